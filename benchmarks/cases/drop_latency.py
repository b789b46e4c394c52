"""How long a drop is on its way, from its rename to an answer over HTTP, with a real `music-assets up`.

The floor is the same daemon with a sensor just as frequent and an asset that does nothing.
"""

import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import dagster as dg

from benchmarks.bases import base, folder_of
from benchmarks.contestants import PEERS, Ours, copied
from benchmarks.data import Drop, first_user, later_drop
from benchmarks.load import ask_once
from benchmarks.processes import Command, running
from benchmarks.results import OURS, Measurement
from benchmarks.running import Case, Entrant, Setting
from benchmarks.services import OurService, Question, free_port
from music_assets.local import HOME, project_folder
from music_assets.settings import PREFIX, Settings

USERS = 1_000
DROPS = 2
"""Drops a round, after one that is not counted: it tells that everything is up."""

SENSOR_INTERVAL: int = Settings.model_fields["sensor_interval"].default
LOOK_SECONDS = 0.05
PATIENCE = 300


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

        return Station(drop, arrived, folder / HOME)


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
        (folder / HOME).mkdir()
        shutil.copyfile(project_folder() / "dagster.yaml", folder / HOME / "dagster.yaml")
        return folder

    def command(self, folder: Path, http: int, web: int) -> Command:
        """Start web UI and daemon."""
        arguments = ["dev", "-f", str(PEERS / "empty_project.py"), "-h", "127.0.0.1", "-p", str(web)]
        environment = {
            "EMPTY_DROPS": str(folder / "drops"),
            "SENSOR_INTERVAL": str(SENSOR_INTERVAL),
            "DAGSTER_HOME": str(folder / HOME),
        }
        return Command([sys.executable, "-m", "dagster", *arguments, "--log-level", "warning"], environment)

    def station(self, folder: Path, http: int) -> Station:
        """Drop one file; it has arrived when the asset has removed it."""
        drops = folder / "drops"
        return Station(
            lambda files: _renamed([files.users], [drops]),
            lambda files: not any(drops.glob("*.csv")),
            folder / HOME,
        )


def drop_latency(setting: Setting) -> Iterator[Measurement]:
    """Start each anew in each round, drop once to see it work, then drop and wait a few times."""
    chance = random.Random(1)
    drops = [later_drop(setting.work, USERS, number) for number in range(DROPS + 1)]
    daemons: tuple[Daemon, ...] = (OurDaemon(), EmptyDaemon())
    for number, daemon in setting.in_turn(setting.present(daemons)):
        folder = daemon.prepare(setting)
        http, web = free_port(), free_port()
        with running(daemon.command(folder, http, web), folder.with_suffix(".log")):
            station = daemon.station(folder, http)
            _waited(station, drops[0])
            for drop in drops[1:]:
                time.sleep(chance.uniform(0, SENSOR_INTERVAL))
                yield Measurement(daemon.name, number, _waited(station, drop))


def _waited(station: Station, drop: Drop) -> dict[str, float]:
    """Drop, wait until it has arrived, and return the seconds since the rename.

    Among them are the moments that Dagster's history tells: when the run was requested, began and ended.
    """
    begun = station.drop(drop)
    while not station.arrived(drop):
        if time.time() - begun > PATIENCE:
            raise TimeoutError(f"A drop did not arrive within {PATIENCE} s.")
        time.sleep(LOOK_SECONDS)
    arrived = time.time() - begun
    with _instance(station.home) as instance:
        while (record := instance.get_run_records(limit=1)[0]).end_time is None:
            time.sleep(LOOK_SECONDS)
    return {
        "seconds": arrived,
        "until_requested": record.create_timestamp.timestamp() - begun,
        "until_begun": (record.start_time or begun) - begun,
        "until_ended": record.end_time - begun,
    }


@contextmanager
def _instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def _renamed(files: Sequence[Path], folders: Sequence[Path]) -> float:
    """Write the files aside, as an uploader would, rename them into place, and return when (seconds since 1970)."""
    asides = [folder / f".{file.name}.part" for file, folder in zip(files, folders, strict=True)]
    for file, aside in zip(files, asides, strict=True):
        aside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, aside)
    begun = time.time()
    for file, aside in zip(files, asides, strict=True):
        aside.replace(aside.with_name(file.name))
    return begun


CASES = (
    Case(
        "drop_latency",
        "A drop's way from rename to answer",
        f"A drop of {USERS:,} users with 50 artists each, onto all users: the seconds from the rename of its files "
        "until the query service finds the first of them, with `music-assets up` as it is (the sensor looks every five "
        "seconds, a file has to rest for two). The floor is `dagster dev` with a sensor just as frequent and an asset "
        "that only removes the file. A drop comes at a random moment between two looks.",
        drop_latency,
    ),
)
