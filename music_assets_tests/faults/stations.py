"""Real daemons: Dagster's own, whose sensor starts runs, on a data root and a DAGSTER_HOME of one's choice."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
import psutil

from music_assets_tests.end_to_end.conftest import plain_environment
from music_assets_tests.faults.runs import REPOSITORY, SETTINGS, Home

PATIENCE = 300
QUICK = {"RETRY_PAUSE": "1", **SETTINGS}


@contextmanager
def daemon(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon that looks at runs every second; it is killed in the end, with all it has started."""
    settings = home.dagster / "dagster.yaml"
    settings.write_text(settings.read_text().replace("poll_interval_seconds: 10", "poll_interval_seconds: 1"))
    named = {f"MUSIC_ASSETS_{name}": value for name, value in QUICK.items()}
    runs_of(home)  # Dagster makes its databases at the first use; two processes at once would trip over each other.
    with home.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster._daemon", "run", "-m", "music_assets.definitions"],
            cwd=REPOSITORY,
            env=plain_environment(home.root.path, DAGSTER_HOME=str(home.dagster), **named),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        kill_all(process)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it has started, at once, as when the power fails."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for one in family:
        one.send_signal(signal.SIGSTOP)
    for one in family:
        one.kill()
    process.wait()


def wait_for(home: Home, what: str, holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not happen in {PATIENCE} s: {home.log.read_text()[-3000:]}"
        time.sleep(0.3)


def runs_of(home: Home) -> list[dg.DagsterRun]:
    """Return all runs that this DAGSTER_HOME knows of."""
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        return list(instance.get_runs())
