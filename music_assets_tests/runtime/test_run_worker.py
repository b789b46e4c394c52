"""The worker process of a run: what it imports, how it runs its command, and how it exits."""

import json
import subprocess
import sys

import pytest

LOADED = """
import sys
from importlib import import_module
from music_assets.runtime.run_worker import LIBRARIES

for name in LIBRARIES:
    import_module(name)
before = {name.partition(".")[0] for name in sys.modules}
print(*sorted(name for name in sys.modules if name.startswith("music_assets.")))
import music_assets.definitions
print(*sorted({name.partition(".")[0] for name in sys.modules} - before - sys.stdlib_module_names))
"""


def worker(line: str) -> subprocess.CompletedProcess[str]:
    """Run a worker with this standard input."""
    command = [sys.executable, "-m", "music_assets.runtime.run_worker"]
    return subprocess.run(command, input=line, capture_output=True, text=True, timeout=60, check=False)


def test_all_libraries_are_imported_in_advance_and_nothing_of_this_package() -> None:
    """So a run uses the current code and waits for no other import."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["music_assets.runtime music_assets.runtime.run_worker", ""]


def test_it_runs_the_command() -> None:
    done = worker(json.dumps(["--version"]) + "\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert ", version 1." in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["no-such-command"], 2, "No such command 'no-such-command'"),
        (["api", "execute_run", "{}"], 1, "Traceback"),
    ],
)
def test_errors_are_printed(arguments: list[str], code: int, said: str) -> None:
    done = worker(json.dumps(arguments) + "\n")
    assert done.returncode == code
    assert said in done.stderr


def test_without_a_command_it_exits_silently() -> None:
    done = worker("")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
