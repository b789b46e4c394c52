"""The process that waits for a run: what it has loaded by then, what it does with its command, and how it ends."""

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
    """A worker that got this line, and nothing more."""
    command = [sys.executable, "-m", "music_assets.runtime.run_worker"]
    return subprocess.run(command, input=line, capture_output=True, text=True, timeout=60, check=False)


def test_everything_is_loaded_but_this_package() -> None:
    """A run works with the code as it is when it starts, and waits for nothing else to be loaded."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["music_assets.runtime music_assets.runtime.run_worker", ""]


def test_the_command_is_run() -> None:
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
def test_what_goes_wrong_is_told(arguments: list[str], code: int, said: str) -> None:
    done = worker(json.dumps(arguments) + "\n")
    assert done.returncode == code
    assert said in done.stderr


def test_without_a_command_it_ends_in_silence() -> None:
    done = worker("")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
