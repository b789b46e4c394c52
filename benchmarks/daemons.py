"""Dagster daemons that load drops without being asked: `music-assets up`, and an empty project as the floor."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psutil

from benchmarks.contestants import project_environment
from benchmarks.data import Drop
from benchmarks.measure import SAMPLE_SECONDS, Usage, Watch, process_tree, python, run, running, wait_for
from benchmarks.results import FOLDER
from benchmarks.services import OUR_SERVICE
from music_assets.data_root import DataRoot
from music_assets.runtime.dagster_home import WORKSPACE_FILE
from music_assets.runtime.launcher import CLOCK_SECONDS, WORKER
from music_assets.runtime.ports import free_port
from music_assets.settings import PREFIX, Settings
from music_assets.tables import RAW_TABLES, REFRESH_RANKINGS

SENSOR_INTERVAL: int = Settings.model_fields["sensor_interval"].default


@dataclass(frozen=True)
class Daemon:
    """The command of a daemon that works in a folder, its drop folders, and how to know that it has loaded a drop."""

    folder: Path
    command: Sequence[str]
    drop_folders: Sequence[Path]
    has_loaded: Callable[[Drop], bool]

    def drop(self, drop: Drop) -> float:
        """Write the files under hidden names, flush them, rename them, and return the time of the rename."""
        files = dict(zip(self.drop_folders, (drop.users, drop.top_artists), strict=False))
        for folder, file in files.items():
            shutil.copyfile(file, folder / f".{file.name}.part")
        os.sync()
        begun = time.time()
        for folder, file in files.items():
            (folder / f".{file.name}.part").rename(folder / file.name)
        return begun

    def latency(self, drop: Drop) -> dict[str, float]:
        """Drop the files, and return the seconds until they are loaded, and those of Dagster's run history."""
        begun = self.drop(drop)
        wait_for(lambda: self.has_loaded(drop) or None)
        seconds = time.time() - begun
        record = self.finished_run(begun)
        return {
            "seconds": seconds,
            "until_requested": record.create_timestamp.timestamp() - begun,
            "until_begun": (record.start_time or begun) - begun,
            "until_ended": (record.end_time or begun) - begun,
        }

    def finished_run(self, after: float, watch: Watch | None = None) -> dg.RunRecord:
        """Wait until the newest run was requested after a time and has ended; sample a process meanwhile."""

        def newest() -> dg.RunRecord | None:
            for _ in range(5):  # reading the history takes more time than a sample
                time.sleep(SAMPLE_SECONDS)
                if watch:
                    watch.sample()
            records = instance.get_run_records(limit=1)
            return next((one for one in records if one.create_timestamp.timestamp() > after and one.end_time), None)

        with dg.DagsterInstance.from_config(str(DataRoot(self.folder).dagster_home)) as instance:
            return wait_for(newest, pause=0)


def our_daemon(folder: Path) -> Daemon:
    """Return `music-assets up` with default settings; it has loaded a drop when the service finds the first user."""
    root, port = DataRoot(folder), free_port()
    root.prepare()
    environment = [f"{PREFIX}DATA={folder}", f"{PREFIX}PORT={port}"]
    command = python("-m", "music_assets", "up", "--port", free_port(), environment=environment)

    def has_loaded(drop: Drop) -> bool:
        sql = f"SELECT count(*) FROM raw_parquet_user_data WHERE user_id = {drop.first_user}"
        return OUR_SERVICE.ask(port, sql) == [[1]]

    return Daemon(folder, command, list(map(root.drop_folder, RAW_TABLES)), has_loaded)


def empty_daemon(folder: Path) -> Daemon:
    """Return `dagster dev` over `peers/empty_project.py`; it has loaded a drop when it has removed the file."""
    drops = folder / "drops"
    drops.mkdir()
    environment = [f"EMPTY_DROPS={drops}", f"SENSOR_INTERVAL={SENSOR_INTERVAL}", *project_environment(DataRoot(folder))]
    options = ("-h", "127.0.0.1", "-p", free_port(), "--log-level", "warning")
    project = FOLDER / "peers" / "empty_project.py"
    command = python("-m", "dagster", "dev", "-f", project, *options, environment=environment)
    return Daemon(folder, command, [drops], lambda _: not any(drops.glob("*.csv")))


def run_by_daemon(folder: Path, drop: Drop | None = None) -> Usage:
    """Return what the run of a drop uses, from the moment at which the daemon of `music-assets up` launches it.

    Without a drop, it computes all rankings. Such a run comes first: after it, a worker is started that waits.
    """
    daemon = our_daemon(folder)
    options, environment = ("-j", REFRESH_RANKINGS, "-w", WORKSPACE_FILE), project_environment(DataRoot(folder))
    launch = python("-m", "dagster", "job", "launch", *options, environment=environment)
    run(launch, folder)
    with running(daemon.command, folder) as up:
        first_end = daemon.finished_run(0).end_time or 0
        watch = Watch(wait_for(lambda: _idle_worker(up.pid, first_end)))
        begun = daemon.drop(drop) if drop else time.time()
        if not drop:
            run(launch, folder)
        record = daemon.finished_run(begun, watch)
    starting, run_id = dg.DagsterEventType.RUN_STARTING, record.dagster_run.run_id
    with dg.DagsterInstance.from_config(str(DataRoot(folder).dagster_home)) as instance:
        launched = instance.get_records_for_run(run_id, of_type=starting).records[0].event_log_entry.timestamp
    return watch.usage((record.end_time or 0) - launched)


def _idle_worker(up: int, started_after: float) -> int | None:
    """Return the worker process that started after a time, if it has loaded everything."""
    for process in process_tree(up):
        with suppress(psutil.Error):
            if WORKER[-1] in process.cmdline() and process.create_time() > started_after - CLOCK_SECONDS:
                before = process.cpu_times()
                time.sleep(0.5)
                if sum(before[:2]) > 0.5 and process.cpu_times() == before:
                    return int(process.pid)
    return None
