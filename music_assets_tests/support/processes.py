"""Processes that tests start: their environment, waiting for them, and killing them with everything they started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from music_assets.data_root import DataRoot

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TIMEOUT = 120
"""Seconds after which a process counts as hanging. Nothing is that slow, but the machine may be busy."""

Result = TypeVar("Result")


def clean_environment(root: DataRoot | Path, **variables: str) -> dict[str, str]:
    """Return the environment without settings of Dagster and of this project, except the data root and `variables`."""
    foreign = ("DAGSTER", "MUSIC_ASSETS", "DG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "MUSIC_ASSETS_DATA": str(root), "COLUMNS": "200", "PYTHONPATH": str(REPOSITORY), **variables}


def wait_until(
    condition: Callable[[], Result],
    what: str,
    timeout: float = TIMEOUT,
    process: subprocess.Popen | None = None,
    log: Path | None = None,
) -> Result:
    """Wait until the condition is true, and return its value.

    Fails the test after `timeout` seconds, or as soon as `process` has ended; the message has the end of the log.
    """
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > deadline:
            reason = "the process has ended" if ended else f"{timeout} s have passed"
            pytest.fail(f"{what}: {reason}\n{log.read_text()[-3000:] if log else ''}")
        time.sleep(0.05)
    return found


def process_tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants; nothing if it has ended."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_tree(process: subprocess.Popen) -> None:
    """Kill a process and all its descendants at the same moment, as a power failure does."""
    tree = process_tree(process.pid)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for each in tree:
            if each.is_running():
                each.send_signal(number)
    process.wait()
