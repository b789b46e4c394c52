"""`music-assets up`: web UI, daemon and query service as child processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from music_assets.data_root import DataRoot, LockHeldError, acquire_lock, durable_write
from music_assets.runtime.dagster_home import WORKSPACE_FILE, prepare_dagster_home
from music_assets.settings import PREFIX, child_environment, http_url

STOP_SECONDS = 20
POLL_SECONDS = 0.2
IGNORE_DEV_IS_SUPERSEDED = "ignore:Function `dev_command` is superseded"
"""`dg dev`, which supersedes `dagster dev`, requires a project in the current folder."""


class AlreadyUpError(Exception):
    """Another `music-assets up` runs on the data root."""


@contextmanager
def up_lock(root: DataRoot, web_ui: str) -> Iterator[None]:
    """Hold the lock of `music-assets up`, and record the URL of the web UI for the error message of others.

    Raises AlreadyUpError if another process holds the lock.
    """
    try:
        lock = acquire_lock(root.up_lock)
    except LockHeldError:
        holder = root.up_holder.read_text(encoding="utf-8")
        raise AlreadyUpError(
            f"`music-assets up` is already running on {root}: {holder}. Stop it first, or choose another data "
            f"root with {PREFIX}DATA."
        ) from None
    try:
        with durable_write(root.up_holder) as file:
            file.write(f"process {os.getpid()}, web UI {web_ui}".encode())
        yield
    finally:
        lock.release()


def run_services(root: DataRoot, host: str, port: int) -> int:
    """Run web UI, daemon and query service until one of them exits or SIGINT, SIGTERM or SIGHUP arrives.

    Returns the exit code of the process that exited, or 0 after a signal. Each child leads a process group, which is
    stopped as a whole.
    """
    home = prepare_dagster_home(root)
    dagster = [sys.executable, "-m", "dagster", "dev", "-w", str(WORKSPACE_FILE), "-h", host, "-p", str(port)]
    dagster += ["--log-level", "warning"]  # at the default level each evaluation of a sensor logs two lines
    service = [sys.executable, "-m", "music_assets", "serve"]
    web_ui = http_url("127.0.0.1" if host in ("0.0.0.0", "::") else host, port)  # noqa: S104
    environment = {"PYTHONWARNINGS": IGNORE_DEV_IS_SUPERSEDED} | child_environment(
        **root.environment, MUSIC_ASSETS_DAGSTER_URL=web_ui, DAGSTER_HOME=str(home)
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _interrupt)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in (dagster, service):
            processes.append(subprocess.Popen(command, cwd=home, env=environment, start_new_session=True))  # noqa: S603
        return _wait_for_first(processes)
    except KeyboardInterrupt:
        return 0
    finally:
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            _wait_or_kill(process)


def _wait_for_first(processes: list[subprocess.Popen[bytes]]) -> int:
    while True:
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(POLL_SECONDS)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was interrupted, then kill the rest of its group. A second Ctrl-C kills at once."""
    with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
