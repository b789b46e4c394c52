"""Runs a command to its end, and tells what the whole tree of its processes took."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parents[1]
LOOK_SECONDS = 0.2
MB = 2**20


class FailedError(Exception):
    """A command ended with an error; the message holds the end of what it printed."""


@dataclass(frozen=True)
class Command:
    """What to run, and what its environment has beyond this process's."""

    arguments: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Usage:
    """What a command took: seconds on the clock and of CPU, and megabytes (of 2**20 bytes).

    `largest_mb` is the peak of the resident memory of the largest process, as the kernel keeps it (VmHWM). `sum_mb` is
    the peak of the sum over the tree, seen five times a second; a page that two processes share counts twice.
    `written_mb` is what the kernel was made to write (write_bytes in /proc), temporary files included.

    The kernel's ru_maxrss is of no use here: a child begins with that of the process that starts it.
    """

    seconds: float
    cpu_seconds: float
    largest_mb: float
    sum_mb: float
    written_mb: float


class Watch:
    """What has been seen of a process and all below it."""

    def __init__(self, pid: int) -> None:
        self.largest_mb = 0.0
        self.sum_mb = 0.0
        self._cpu: dict[int, float] = {}
        self._written: dict[int, int] = {}
        self._root = psutil.Process(pid)

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of all processes seen, each as it was last seen."""
        return sum(self._cpu.values())

    @property
    def written_mb(self) -> float:
        """Megabytes written by all processes seen, each as it was last seen."""
        return sum(self._written.values()) / MB

    def look(self) -> None:
        """Look once. Of a process that has ended and was not waited for, the counters still stand."""
        total = 0.0
        for process in self.tree():
            try:
                status = (Path("/proc") / str(process.pid) / "status").read_text()
                resident, peak = (_kilobytes(status, name) / 1024 for name in ("VmRSS", "VmHWM"))
                cpu = process.cpu_times()
                self._cpu[process.pid] = cpu.user + cpu.system
                self._written[process.pid] = process.io_counters().write_bytes
            except (psutil.Error, OSError):
                continue
            total += resident
            self.largest_mb = max(self.largest_mb, peak)
        self.sum_mb = max(self.sum_mb, total, self.largest_mb)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look again and again, in a thread, and a last time at the end."""
        done = threading.Event()

        def look_on() -> None:
            while not done.wait(LOOK_SECONDS):
                self.look()

        thread = threading.Thread(target=look_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.look()

    def tree(self) -> list[psutil.Process]:
        """Return the process and all below it, as they are now."""
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return []


def _kilobytes(status: str, name: str) -> int:
    """Return a figure of /proc/<pid>/status; a process that has ended has none."""
    _, found, rest = status.partition(f"{name}:")
    return int(rest.split(None, 1)[0]) if found else 0


def run(command: Command, log: Path) -> Usage:
    """Run a command to its end with its output in `log`.

    What earlier commands left to be written is written first, so that nobody pays for another. Raises FailedError where
    the command ends with an error.
    """
    os.sync()
    with log.open("wb") as sink:
        begun = time.perf_counter()
        process = _start(command, sink.fileno())
        watch = Watch(process.pid)
        try:
            with watch.looking():
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                seconds = time.perf_counter() - begun
        except KeyboardInterrupt:
            _stop(process)
            raise
    if process.wait():
        raise FailedError(f"{' '.join(command.arguments)} failed:\n{_end(log)}")
    return Usage(seconds, watch.cpu_seconds, watch.largest_mb, watch.sum_mb, watch.written_mb)


@contextmanager
def running(command: Command, log: Path) -> Iterator[Watch]:
    """Keep a command running for a while, with its output in `log`; then stop it and all it started.

    Nobody looks at it unless the caller does: looking takes a few milliseconds, which a client's p99 would show.
    """
    with log.open("wb") as sink:
        process = _start(command, sink.fileno())
    try:
        yield Watch(process.pid)
    finally:
        _stop(process)


def _start(command: Command, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(command.arguments),
        env={**os.environ, **command.environment},
        cwd=REPOSITORY,
        stdout=output,
        stderr=subprocess.STDOUT,
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end; kill what is left after 20 seconds."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for left in psutil.wait_procs(family, timeout=5)[1]:
        left.kill()


def _end(log: Path) -> str:
    return log.read_text(errors="replace")[-2_000:]
