"""Everything on this machine: where Dagster's home is, and running web UI, daemon and query service together."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from music_assets.data_root import DataRoot, LockHeldError, acquire_lock
from music_assets.settings import PREFIX

STOP_SECONDS = 20
LOOK_SECONDS = 0.2
DEV_IS_SUPERSEDED = "ignore:Function `dev_command` is superseded"
"""`dg dev` starts the same services, but wants a project in the current folder, whatever DAGSTER_HOME says."""


class ProjectNotFoundError(Exception):
    """workspace.yaml and dagster.yaml are neither in the current folder nor beside the package."""


def project_folder() -> Path:
    """Return the folder that holds workspace.yaml and dagster.yaml: the current one, or the checkout's.

    Raises ProjectNotFoundError where there is none.
    """
    candidates = (Path.cwd(), Path(__file__).resolve().parents[2])
    for folder in candidates:
        if (folder / "workspace.yaml").is_file() and (folder / "dagster.yaml").is_file():
            return folder
    raise ProjectNotFoundError(
        f"workspace.yaml and dagster.yaml are neither in {candidates[0]} nor in {candidates[1]}. "
        "Change into the project's folder, and run the command there."
    )


def home_folder(root: DataRoot) -> Path:
    """Return the folder of Dagster's history of runs: DAGSTER_HOME where that is set, else one in the data root."""
    configured = os.environ.get("DAGSTER_HOME")
    return Path(configured).absolute() if configured else root.dagster_home


def dagster_home(root: DataRoot) -> Path:
    """Return the folder of Dagster's history of runs for a data root, made ready with the project's dagster.yaml.

    A dagster.yaml in a DAGSTER_HOME is left alone.
    """
    folder = home_folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    if not (os.environ.get("DAGSTER_HOME") and (folder / "dagster.yaml").exists()):
        shutil.copyfile(project_folder() / "dagster.yaml", folder / "dagster.yaml")
    return folder


class PortError(Exception):
    """A port is taken already."""


def check_port(host: str, port: int, option: str) -> None:
    """Try to listen on the port that the option names.

    Raises PortError where that fails: what listens there would say so only after all else has started.
    """
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise PortError(
            f"Cannot listen on {host}, port {port}: {error.strerror}. Is it running already? "
            f"Otherwise name another port with {option}."
        ) from None


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
    workspace, home = project_folder() / "workspace.yaml", dagster_home(root)
    dagster = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace), "-h", host, "-p", str(port)]
    dagster += ["--log-level", "warning"]  # else each look of a sensor writes two lines, and runs drown in them
    service = [sys.executable, "-m", "music_assets", "serve"]
    reached_at = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104  Everywhere includes this machine.
    environment = {
        "PYTHONWARNINGS": DEV_IS_SUPERSEDED,
        **os.environ,
        f"{PREFIX}DATA": str(root),
        f"{PREFIX}DAGSTER_URL": f"http://{reached_at}:{port}",
        "DAGSTER_HOME": str(home),
    }
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
