"""Run commands, with their output in a log file next to their folder, and measure their whole process tree."""

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

SAMPLE_SECONDS = 0.2
MB = 2**20
Found = TypeVar("Found")


class CommandFailedError(Exception):
    """A command exited with an error. The message holds the end of its output."""


@dataclass(frozen=True)
class Usage:
    """Seconds of a command and of CPU; MB (2**20 bytes) of its largest process, of all at a time, and written to disk.

    Largest by VmHWM, since a child inherits ru_maxrss from its parent.
    """

    seconds: float
    cpu_seconds: float
    largest_mb: float
    sum_mb: float
    written_mb: float


class Watch:
    """Samples a process and all its descendants, and counts what they use from now on."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.largest_mb = self.sum_mb = self.server_mb = 0.0
        self._counters: dict[int, tuple[float, float]] = {}
        self.sample()
        self._before = self._totals()

    def usage(self, seconds: float) -> Usage:
        """Return the resources used, by the last sample of each process."""
        cpu_seconds, written_mb = (now - before for now, before in zip(self._totals(), self._before, strict=True))
        return Usage(seconds, cpu_seconds, self.largest_mb, self.sum_mb, written_mb)

    def memory(self) -> dict[str, float]:
        """Sample, and return the peaks of memory."""
        self.sample()
        return {"server_mb": self.server_mb, "largest_mb": self.largest_mb, "sum_mb": self.sum_mb}

    def sample(self) -> None:
        """Sample once. The counters of a zombie are still readable."""
        total = 0.0
        for process in process_tree(self.pid):
            with suppress(psutil.Error, OSError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                sizes = {name: int(kb) / 1024 for name, kb in re.findall(r"(VmRSS|VmHWM):\s+(\d+)", status)}
                written = process.io_counters().write_bytes / MB
                self._counters[process.pid] = sum(process.cpu_times()[:2]), written
                total += sizes.get("VmRSS", 0.0)
                self.largest_mb = max(self.largest_mb, sizes.get("VmHWM", 0.0))
                self.server_mb = sizes.get("VmHWM", 0.0) if process.pid == self.pid else self.server_mb
        self.sum_mb = max(self.sum_mb, total, self.largest_mb)

    def _totals(self) -> list[float]:
        return [sum(column) for column in zip(*self._counters.values(), strict=True)]


def process_tree(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants; none after it has been reaped."""
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def python(*arguments: object, environment: Sequence[str] = ()) -> list[str]:
    """Return a command that runs Python, with variables such as `A=1` added to its environment."""
    return ["env", *environment, sys.executable, *map(str, arguments)]


def run(command: Sequence[str], folder: Path) -> Usage:
    """Run a command that works in a folder to its end, sampled five times a second. Raises CommandFailedError."""
    os.sync()  # so that no contestant pays for the writes of another
    begun = time.perf_counter()
    with running(command, folder) as watch:
        exited = os.pidfd_open(watch.pid)
        while not select.select([exited], [], [], SAMPLE_SECONDS)[0]:
            watch.sample()
        seconds = time.perf_counter() - begun
        watch.sample()
        status = os.waitid(os.P_PID, watch.pid, os.WEXITED | os.WNOWAIT)
        os.close(exited)
    if status and status.si_status:
        output = folder.with_suffix(".log").read_text(errors="replace")
        raise CommandFailedError(f"{' '.join(command)} failed:\n{output[-2_000:]}")
    return watch.usage(seconds)


@contextmanager
def running(command: Sequence[str], folder: Path) -> Iterator[Watch]:
    """Run a command while the context lasts; what of it survives SIGTERM for 20 seconds is killed.

    Only the caller samples the watch: a sample takes milliseconds, which would show in a client's p99.
    """
    with folder.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=log, stderr=subprocess.STDOUT)
    try:
        yield Watch(process.pid)
    finally:
        family = process_tree(process.pid)
        process.terminate()
        for survivor in psutil.wait_procs(family, timeout=20)[1]:
            survivor.kill()
        process.wait()


def wait_for(find: Callable[[], Found | None], pause: float = SAMPLE_SECONDS) -> Found:
    """Call `find` until it returns a value. Raises TimeoutError after five minutes."""
    deadline = time.monotonic() + 300
    while (found := find()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError("No result within five minutes.")
        time.sleep(pause)
    return found


def size_mb(folder: Path) -> float:
    """Return the size of all files below a folder in MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MB
