"""Who takes drops by itself: `music-assets up`, and a daemon that does nothing; and how to wait for a drop."""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import dagster as dg
import psutil

from benchmarks.bases import base, folder_of
from benchmarks.contestants import PEERS, Ours, copied
from benchmarks.data import Drop, first_user
from benchmarks.load import ask_once
from benchmarks.processes import Command, Usage, Watch, run, running
from benchmarks.results import OURS
from benchmarks.running import Entrant, Setting
from benchmarks.services import OurService, Question, free_port
from music_assets.data_root import DataRoot
from music_assets.runtime.dagster_home import INSTANCE_FILE, WORKSPACE_FILE
from music_assets.runtime.launcher import CLOCK_SECONDS, WORKER
from music_assets.settings import PREFIX, Settings
from music_assets.tables import REFRESH_RANKINGS

SENSOR_INTERVAL: int = Settings.model_fields["sensor_interval"].default
LOOK_SECONDS = 0.2
"""Between two looks at what a drop has come to; each takes CPU time from it."""
HISTORY_SECONDS = 1.0
"""Between two looks into Dagster's history, which tells the moments anyhow."""
PATIENCE = 300
Found = TypeVar("Found")
REST_SECONDS = 0.5


@dataclass(frozen=True)
class Station:
    """Something that is up and waits for drops: how to drop, how to tell that a drop has arrived, Dagster's home."""

    drop: Callable[[Drop], float]
    arrived: Callable[[Drop], bool]
    home: Path


class Daemon(Entrant, Protocol):
    """Somebody who takes drops by itself."""

    def prepare(self, setting: Setting) -> Path:
        """Return a fresh folder to work in."""
        ...

    def command(self, folder: Path, http: int, web: int) -> Command:
        """Return the command that starts it, with its query service and its web UI on these ports."""
        ...

    def station(self, folder: Path, http: int) -> Station:
        """Return how to deal with it once it runs."""
        ...


@dataclass(frozen=True)
class OurDaemon:
    """`music-assets up` with its defaults, over all users."""

    name: str = OURS
    needs: Sequence[str] = ()

    def prepare(self, setting: Setting) -> Path:
        """Copy the data root with all users in it."""
        return copied(base(setting, Ours()), folder_of(setting, "up", self.name))

    def command(self, folder: Path, http: int, web: int) -> Command:
        """Start web UI, daemon and query service."""
        environment = {f"{PREFIX}DATA": str(folder), f"{PREFIX}PORT": str(http)}
        return Command([sys.executable, "-m", "music_assets", "up", "--port", str(web)], environment)

    def station(self, folder: Path, http: int) -> Station:
        """Drop into both folders; a drop has arrived when its first user is found."""

        def drop(files: Drop) -> float:
            folders = [folder / "user_data" / name for name in ("user_data", "user_top_artists")]
            return _renamed([files.users, files.top_artists], folders)

        def arrived(files: Drop) -> bool:
            sql = f"SELECT count(*) FROM raw_parquet_user_data WHERE user_id = {first_user(files)}"
            try:
                status, body = ask_once(http, OurService().request(Question("arrived", sql), ""))
            except OSError:
                return False
            return status == 200 and json.loads(body)["rows"] == [[1]]

        return Station(drop, arrived, DataRoot(folder).dagster_home)


@dataclass(frozen=True)
class EmptyDaemon:
    """`dagster dev` over `peers/empty_project.py`, in a home with the same dagster.yaml."""

    name: str = "empty asset"
    needs: Sequence[str] = ()

    def prepare(self, setting: Setting) -> Path:
        """Make an empty folder, and a home."""
        folder = folder_of(setting, "up", self.name)
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "drops").mkdir(parents=True)
        DataRoot(folder).dagster_home.mkdir()
        shutil.copyfile(INSTANCE_FILE, DataRoot(folder).dagster_home / INSTANCE_FILE.name)
        return folder

    def command(self, folder: Path, http: int, web: int) -> Command:
        """Start web UI and daemon."""
        arguments = ["dev", "-f", str(PEERS / "empty_project.py"), "-h", "127.0.0.1", "-p", str(web)]
        environment = {
            "EMPTY_DROPS": str(folder / "drops"),
            "SENSOR_INTERVAL": str(SENSOR_INTERVAL),
            "DAGSTER_HOME": str(DataRoot(folder).dagster_home),
        }
        return Command([sys.executable, "-m", "dagster", *arguments, "--log-level", "warning"], environment)

    def station(self, folder: Path, http: int) -> Station:
        """Drop one file; it has arrived when the asset has removed it."""
        drops = folder / "drops"
        return Station(
            lambda files: _renamed([files.users], [drops]),
            lambda files: not any(drops.glob("*.csv")),
            DataRoot(folder).dagster_home,
        )


def waited(station: Station, drop: Drop) -> dict[str, float]:
    """Drop, wait until it has arrived, and return the seconds since the rename.

    Among them are the moments that Dagster's history tells: when the run was requested, began and ended.
    """
    begun = station.drop(drop)
    until(lambda: station.arrived(drop) or None)
    arrived = time.time() - begun
    record = ended_after(station.home, begun)
    return {
        "seconds": arrived,
        "until_requested": record.create_timestamp.timestamp() - begun,
        "until_begun": (record.start_time or begun) - begun,
        "until_ended": (record.end_time or begun) - begun,
    }


def ended_after(home: Path, moment: float) -> dg.RunRecord:
    """Wait until the newest run was requested after a moment, and has ended."""

    def newest() -> dg.RunRecord | None:
        records = instance.get_run_records(limit=1)
        return next((one for one in records if one.create_timestamp.timestamp() > moment and one.end_time), None)

    with _instance(home) as instance:
        return until(newest, HISTORY_SECONDS)


def until(find: Callable[[], Found | None], pause: float = LOOK_SECONDS) -> Found:
    """Look again and again, until something is found. Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE
    while (found := find()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"It did not come to pass within {PATIENCE} s.")
        time.sleep(pause)
    return found


@contextmanager
def _instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def _renamed(files: Sequence[Path], folders: Sequence[Path]) -> float:
    """Write the files aside, as an uploader would, rename them into place, and return when (seconds since 1970).

    What was written is on the disk by then, as it is for everybody before the clock starts.
    """
    asides = [folder / f".{file.name}.part" for file, folder in zip(files, folders, strict=True)]
    for file, aside in zip(files, asides, strict=True):
        aside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, aside)
    os.sync()
    begun = time.time()
    for file, aside in zip(files, asides, strict=True):
        aside.replace(aside.with_name(file.name))
    return begun


@dataclass(frozen=True)
class OursByDaemon(Ours):
    """Ours, but with a run that the daemon of `music-assets up` launches for the drop."""

    name: str = f"{OURS}, run by the daemon"

    def run(self, folder: Path, drop: Drop) -> Usage:
        """Drop, and return what the run took, from the moment at which the daemon launched it until its end.

        A run without a drop comes first, so that a worker stands by, as one does after any run; what that took to start
        is not counted.
        """
        daemon, http, web = OurDaemon(), free_port(), free_port()
        station = daemon.station(folder, http)
        folder.mkdir(parents=True, exist_ok=True)
        with running(daemon.command(folder, http, web), folder.with_suffix(".log")) as up:
            until(lambda: _listens(web))
            _launch(folder)
            ended = ended_after(station.home, 0).end_time or 0
            worker = until(lambda: _standing_by(up, ended))
            worker.look()
            cpu_seconds, written_mb = worker.cpu_seconds, worker.written_mb
            with worker.looking():
                record = ended_after(station.home, station.drop(drop))
        return Usage(
            (record.end_time or 0) - _launched(station.home, record.dagster_run.run_id),
            worker.cpu_seconds - cpu_seconds,
            worker.largest_mb,
            worker.sum_mb,
            worker.written_mb - written_mb,
        )


def _listens(port: int) -> bool | None:
    """Tell whether somebody listens; Dagster's home is ready once its web server does."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return None


def _launch(folder: Path) -> None:
    """Launch a run without a drop."""
    workspace = ["-w", str(WORKSPACE_FILE)]
    environment = {f"{PREFIX}DATA": str(folder), "DAGSTER_HOME": str(DataRoot(folder).dagster_home)}
    command = [sys.executable, "-m", "dagster", "job", "launch", "-j", REFRESH_RANKINGS, *workspace]
    run(Command(command, environment), folder.with_suffix(".launch.log"))


def _launched(home: Path, run_id: str) -> float:
    """Return when the daemon launched a run."""
    with _instance(home) as instance:
        found = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.RUN_STARTING)
        return found.records[0].event_log_entry.timestamp


def _standing_by(up: Watch, moment: float) -> Watch | None:
    """Find the worker that started after a moment, if it has loaded everything and rests."""
    for process in up.tree():
        with suppress(psutil.Error):
            if WORKER[-1] in process.cmdline() and process.create_time() > moment - CLOCK_SECONDS and _rests(process):
                return Watch(process.pid)
    return None


def _rests(process: psutil.Process) -> bool:
    before = process.cpu_times()
    time.sleep(REST_SECONDS)
    return sum(before[:2]) > REST_SECONDS and process.cpu_times() == before
