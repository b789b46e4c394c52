"""Dagster on this machine: where its home is, and starting its web UI and daemon together."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from music_assets.settings import PREFIX

HOME = ".dagster_home"
STOP_SECONDS = 20
DEV_IS_SUPERSEDED = "ignore:Function `dev_command` is superseded"
"""`dg dev` starts the same services, but wants a project in the current folder, whatever DAGSTER_HOME says."""


class ProjectNotFoundError(Exception):
    """workspace.yaml and dagster.yaml are neither in the current folder nor beside the package."""


def project_folder() -> Path:
    """Return the folder that holds workspace.yaml and dagster.yaml: the current one, or the checkout's.

    Raises ProjectNotFoundError where there is none.
    """
    candidates = (Path.cwd(), Path(__file__).resolve().parents[1])
    for folder in candidates:
        if (folder / "workspace.yaml").is_file() and (folder / "dagster.yaml").is_file():
            return folder
    raise ProjectNotFoundError(
        f"workspace.yaml and dagster.yaml are neither in {candidates[0]} nor in {candidates[1]}. "
        "Change into the project's folder, and run the command there."
    )


def dagster_home(root: Path) -> Path:
    """Return the folder of Dagster's history of runs for a data root, made ready with the project's dagster.yaml.

    It is DAGSTER_HOME where that is set, whose own dagster.yaml is left alone, and a folder in the data root otherwise.
    """
    configured = os.environ.get("DAGSTER_HOME")
    folder = Path(configured).absolute() if configured else root / HOME
    folder.mkdir(parents=True, exist_ok=True)
    if not (configured and (folder / "dagster.yaml").exists()):
        shutil.copyfile(project_folder() / "dagster.yaml", folder / "dagster.yaml")
    return folder


class PortError(Exception):
    """The web UI cannot listen where it was told to."""


def check_port(host: str, port: int) -> None:
    """Try to listen on the port.

    Raises PortError where that fails: Dagster itself would say so only after all else has started.
    """
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise PortError(
            f"Cannot listen on {host}, port {port}: {error.strerror}. Is the web UI running already? "
            "Otherwise name another port with --port."
        ) from None


def run_dagster(root: Path, host: str, port: int) -> int:
    """Run web UI, daemon and code server until they end, or SIGINT, SIGTERM or SIGHUP stops them.

    Returns the exit code. They are a process group of their own, so that nothing of them stays behind.
    """
    workspace, home = project_folder() / "workspace.yaml", dagster_home(root)
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace), "-h", host, "-p", str(port)]
    command += ["--log-level", "warning"]  # else each look of a sensor writes two lines, and runs drown in them
    environment = {
        "PYTHONWARNINGS": DEV_IS_SUPERSEDED,
        **os.environ,
        f"{PREFIX}DATA": str(root),
        "DAGSTER_HOME": str(home),
    }
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # ignored: by nohup
            signal.signal(number, _interrupt)
    process = subprocess.Popen(command, cwd=home, env=environment, start_new_session=True)  # noqa: S603
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(process)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to stop, wait, and kill what is left of its group: at once where a second Ctrl-C says so."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
