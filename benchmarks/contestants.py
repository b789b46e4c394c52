"""Contestants that turn CSV files into rankings: this project, started as its users do, and scripts in `peers/`."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb

from benchmarks.context import Entrant, empty_folder
from benchmarks.data import Drop, full_drop
from benchmarks.measure import python, run
from benchmarks.results import FOLDER, OURS
from music_assets.data_root import DataRoot
from music_assets.runtime.dagster_home import INSTANCE_FILE
from music_assets.settings import PREFIX
from music_assets.storage.published_snapshot import connect
from music_assets.tables import RANKING_TABLES, RAW_TABLES, REFRESH_RANKINGS

RAW_COLUMNS = {
    "user_data": "user_id::INTEGER, country, total_scrobbles::BIGINT",
    "user_top_artists": "user_id::INTEGER, rank::INTEGER, artist_name, playcount::BIGINT, mbid",
}
RANKING_COLUMNS = {
    "artist_rank_in_country": "country, artist_name, total_playcount::DOUBLE, rank::INTEGER, listeners::BIGINT",
    "country_rank_per_artist": "artist_name, country, total_playcount::DOUBLE, normalized_popularity::DOUBLE, "
    "rank::INTEGER, listeners::BIGINT",
}
"""Columns to compare. The first one of a ranking, and rank, are what it is sorted by."""
UNSORTED = """FROM (SELECT {key}, rank, lag({key}) OVER () AS above, lag(rank) OVER () AS rank_above FROM {source})
    WHERE {key} < above OR ({key} = above AND rank <= rank_above) LIMIT 1"""

Digest = dict[str, tuple[int, int]]


class UnsortedError(Exception):
    """The rows of a ranking are not in lookup order."""


def digest(connection: duckdb.DuckDBPyConnection, sources: Mapping[str, str]) -> Digest:
    """Return row count and hash of each table; `sources` gives its name or table function. Raises UnsortedError."""
    for name, columns in RANKING_COLUMNS.items():
        key = columns.split(",")[0]
        if connection.execute(UNSORTED.format(key=key, source=sources[name])).fetchall():
            raise UnsortedError(f"{sources[name]} is not sorted by {key}, rank.")
    return {
        name: connection.execute(f"SELECT count(*), sum(hash({columns})) FROM {sources[name]}").fetchall()[0]
        for name, columns in {**RAW_COLUMNS, **RANKING_COLUMNS}.items()
    }


def published_digest(root: DataRoot) -> Digest:
    """Return the digest of the published tables of a data root."""
    with connect(root) as connection:
        return digest(connection, {table.name: table.full_name for table in (*RAW_TABLES, *RANKING_TABLES)})


@dataclass(frozen=True)
class Ours(Entrant):
    """The jobs and assets of this project with default settings, run by the `dagster` command."""

    name: str = OURS

    def load(self, folder: Path, drop: Drop) -> list[str]:
        """Drop the files, and return the command that executes the main job."""
        link_drop(folder, drop)
        return _dagster(DataRoot(folder), "job", "execute", "-j", REFRESH_RANKINGS)

    def ingest(self, folder: Path, drop: Drop) -> list[str]:
        """Drop the files, and return the command that materializes only the raw tables."""
        link_drop(folder, drop)
        return materialize(DataRoot(folder), *(f"raw_parquet/{table.name}" for table in RAW_TABLES))

    def refresh(self, folder: Path) -> list[str]:
        """Remove rankings and snapshots, and return the command that materializes them."""
        root = DataRoot(folder)
        for path in (root.snapshots, *map(root.table_folder, RANKING_TABLES)):
            shutil.rmtree(path, ignore_errors=True)
        return materialize(root, *RANKING_COLUMNS, "music_db")

    def digest(self, folder: Path) -> Digest:
        """Return the digest of the published tables."""
        return published_digest(DataRoot(folder))


@dataclass(frozen=True)
class Script(Entrant):
    """A script in `peers/`."""

    file: str = ""
    options: tuple[str, ...] = ()

    def load(self, folder: Path, drop: Drop) -> list[str]:
        """Return the command that runs the script on the files."""
        return [*self.refresh(folder), str(drop.users), str(drop.top_artists)]

    def refresh(self, folder: Path) -> list[str]:
        """Return the command that runs the script without files, and replaces the rankings."""
        return python(FOLDER / "peers" / self.file, *self.options, folder)

    def digest(self, folder: Path) -> Digest:
        """Return the digest of the published tables where there are any, else of the parquet files in name order."""
        with duckdb.connect(config={"temp_directory": str(folder / "spill")}) as connection:
            if (published := folder / "music_db.duckdb").exists():
                connection.execute(f"ATTACH '{published}' (READ_ONLY)")
                return digest(connection, {name: f"music_db.{name}" for name in (*RAW_COLUMNS, *RANKING_COLUMNS)})
            tops = {name: folder / "raw" / name for name in RAW_COLUMNS}
            tops |= {name: folder / f"{name}.parquet" for name in RANKING_COLUMNS}
            patterns = {name: f"{top}/**/*.parquet" if top.is_dir() else str(top) for name, top in tops.items()}
            return digest(connection, {name: f"'{pattern}'" for name, pattern in patterns.items()})


Contestant = Ours | Script
DUCKDB = Script("DuckDB SQL", ("duckdb",), "duckdb_sql.py")
CONTESTANTS: list[Contestant] = [
    Ours(),
    DUCKDB,
    Script("Polars", ("polars",), "polars_lazy.py"),
    Script("PySpark", ("pyspark", "java"), "pyspark_job.py"),
]
PUBLISHER = Script("DuckDB SQL, all outputs", ("duckdb",), "duckdb_sql.py", ("--publish",))
"""Writes every output that this project writes, without the guarantees."""


@cache
def base_folder(work: Path, users: int, contestant: Contestant) -> Path:
    """Return a folder in which the contestant has loaded all users, once per process: it may not outlive its code."""
    folder = empty_folder(work, "base", contestant.name)
    run(contestant.load(folder, full_drop(work, users)), folder)
    return folder


def link_drop(folder: Path, drop: Drop) -> None:
    """Link the files of a drop into the drop folders of a data root."""
    DataRoot(folder).prepare()
    for file, table in zip((drop.users, drop.top_artists), RAW_TABLES, strict=True):
        os.link(file, DataRoot(folder).drop_folder(table) / file.name)


def materialize(root: DataRoot, *assets: str) -> list[str]:
    """Return the command that materializes assets of a data root."""
    return _dagster(root, "asset", "materialize", "--select", ",".join(assets))


def _dagster(root: DataRoot, *arguments: str) -> list[str]:
    environment = [*project_environment(root), f"{PREFIX}SETTLE_SECONDS=0"]
    return python("-m", "dagster", *arguments, "-m", "music_assets.definitions", environment=environment)


def project_environment(root: DataRoot) -> list[str]:
    """Create the Dagster home of a data root, and return the variables that name both."""
    root.dagster_home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(INSTANCE_FILE, root.dagster_home / INSTANCE_FILE.name)
    return [*(f"{name}={value}" for name, value in root.environment.items()), f"DAGSTER_HOME={root.dagster_home}"]
