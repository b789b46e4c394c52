"""Everything on this machine: where Dagster's home is, and running web UI, daemon and query service together."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from music_assets.data_root import DataRoot, LockHeldError, acquire_lock
from music_assets.runtime.dagster_home import WORKSPACE_FILE, prepare_dagster_home
from music_assets.settings import PREFIX, child_environment

STOP_SECONDS = 20
LOOK_SECONDS = 0.2
DEV_IS_SUPERSEDED = "ignore:Function `dev_command` is superseded"
"""`dg dev` starts the same services, but wants a project in the current folder, whatever DAGSTER_HOME says."""


class AlreadyUpError(Exception):
    """Another process runs everything on this data root already."""


@contextmanager
def up_lock(root: DataRoot, address: str) -> Iterator[None]:
    """Hold the right to run everything on the data root; `address`: that of the web UI, for others to see.

    It ends with this process, however that ends. Raises AlreadyUpError where another process holds it.
    """
    holder = root.up_lock.with_suffix(".txt")  # not the lock file itself: filelock empties that
    try:
        lock = acquire_lock(root.up_lock)
    except LockHeldError:
        raise AlreadyUpError(
            f"`music-assets up` is running on {root} already: {holder.read_text(encoding='utf-8')}. Use that one, stop "
            f"it first, or choose another data root with {PREFIX}DATA."
        ) from None
    try:
        holder.write_text(f"process {os.getpid()}, web UI {address}", encoding="utf-8")
        yield
    finally:
        lock.release()


def run_all(root: DataRoot, host: str, port: int) -> int:
    """Run web UI, daemon and query service until one of them ends, or SIGINT, SIGTERM or SIGHUP stops them.

    Returns the exit code of the one that ended, 0 if stopped. Nothing stays behind: each is a process group of its own,
    which is stopped as a whole.
    """
    home = prepare_dagster_home(root)
    dagster = [sys.executable, "-m", "dagster", "dev", "-w", str(WORKSPACE_FILE), "-h", host, "-p", str(port)]
    dagster += ["--log-level", "warning"]  # else each look of a sensor writes two lines, and runs drown in them
    service = [sys.executable, "-m", "music_assets", "serve"]
    reached_at = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104  Everywhere includes this machine.
    changes = {
        f"{PREFIX}DATA": str(root),
        f"{PREFIX}DAGSTER_URL": f"http://{reached_at}:{port}",
        "DAGSTER_HOME": str(home),
    }
    environment = {"PYTHONWARNINGS": DEV_IS_SUPERSEDED, **child_environment(**changes)}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # ignored: by nohup
            signal.signal(number, _interrupt)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in (dagster, service):
            processes.append(subprocess.Popen(command, cwd=home, env=environment, start_new_session=True))  # noqa: S603
        return _first_to_end(processes)
    except KeyboardInterrupt:
        return 0
    finally:
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            _stop(process)


def _first_to_end(processes: list[subprocess.Popen[bytes]]) -> int:
    while True:
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(LOOK_SECONDS)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was asked to stop, then kill what is left of its group; a second Ctrl-C hurries."""
    with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
