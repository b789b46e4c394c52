"""Who makes rankings out of CSV files: music-assets as its users start it, and the scripts in `peers/`."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import duckdb

from benchmarks.data import Drop
from benchmarks.digest import COLUMNS, Digest, digest
from benchmarks.processes import Command
from benchmarks.results import OURS
from benchmarks.running import Entrant
from music_assets.data_root import DataRoot
from music_assets.runtime.dagster_home import INSTANCE_FILE
from music_assets.settings import PREFIX
from music_assets.storage.published_snapshot import connect
from music_assets.tables import RANKING_TABLES, REFRESH_RANKINGS

PEERS = Path(__file__).parent / "peers"
IMMUTABLE = (".parquet", ".duckdb")


class Ranker(Entrant, Protocol):
    """Makes raw parquet files and both rankings below a folder of its own."""

    def take(self, folder: Path, drop: Drop, later_wins: bool = False) -> Command:
        """Return the command that takes the files and makes everything anew."""
        ...

    def refresh(self, folder: Path) -> Command:
        """Return the command that makes the rankings out of the raw parquet files."""
        ...

    def forget(self, folder: Path) -> None:
        """Remove what `refresh` makes."""
        ...

    def digest(self, folder: Path) -> Digest:
        """Return what stands in the tables."""
        ...


@dataclass(frozen=True)
class Ours:
    """The jobs and assets of the project, run through Dagster by its command line, with default settings."""

    threads: int | None = None
    name: str = OURS
    needs: Sequence[str] = ()

    def take(self, folder: Path, drop: Drop, later_wins: bool = False) -> Command:
        """Put the files into the drop folders, and run the real job. Later always wins."""
        self._make_home(folder)
        for file, table in ((drop.users, "user_data"), (drop.top_artists, "user_top_artists")):
            target = folder / "user_data" / table / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, target)
        return self._dagster(folder, "job", "execute", "-j", REFRESH_RANKINGS)

    def ingest(self, folder: Path, drop: Drop) -> Command:
        """Put the files into the drop folders, and materialize the raw tables alone."""
        self.take(folder, drop)
        return self._materialize(folder, "raw_parquet/user_data,raw_parquet/user_top_artists")

    def refresh(self, folder: Path) -> Command:
        """Materialize the rankings and what is published."""
        return self._materialize(folder, ",".join([*(table.name for table in RANKING_TABLES), "music_db"]))

    def forget(self, folder: Path) -> None:
        """Remove the rankings and what is published."""
        for name in ("processed_parquet", "music_db"):
            shutil.rmtree(folder / name, ignore_errors=True)

    def digest(self, folder: Path) -> Digest:
        """Read what is published."""
        with connect(DataRoot(folder)) as connection:
            return digest(connection, {name: _full_name(name) for name in COLUMNS})

    def _materialize(self, folder: Path, selection: str) -> Command:
        return self._dagster(folder, "asset", "materialize", "--select", selection)

    def _dagster(self, folder: Path, *arguments: str) -> Command:
        environment = {
            f"{PREFIX}DATA": str(folder),
            f"{PREFIX}SETTLE_SECONDS": "0",
            f"{PREFIX}THREADS": str(self.threads or ""),
            "DAGSTER_HOME": str(DataRoot(folder).dagster_home),
        }
        return Command(
            [sys.executable, "-m", "dagster", *arguments, "-m", "music_assets.definitions"],
            environment,
        )

    def _make_home(self, folder: Path) -> None:
        DataRoot(folder).dagster_home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(INSTANCE_FILE, DataRoot(folder).dagster_home / INSTANCE_FILE.name)


def _full_name(name: str) -> str:
    return f"{'raw' if name.startswith('user') else 'processed'}_parquet_{name}"


@dataclass(frozen=True)
class Script:
    """A script in `peers/`; `threads` is told as an argument, or in an environment variable where that is named."""

    name: str
    file: str
    needs: Sequence[str]
    threads: int | None = None
    threads_variable: str | None = None
    options: Sequence[str] = ()

    def take(self, folder: Path, drop: Drop, later_wins: bool = False) -> Command:
        """Give it the files."""
        files = ["--users", str(drop.users), "--top-artists", str(drop.top_artists)]
        return self._command(folder, *self.options, *files, *(["--later-wins"] if later_wins else []))

    def refresh(self, folder: Path) -> Command:
        """Give it no files."""
        return self._command(folder)

    def forget(self, folder: Path) -> None:
        """Remove the rankings."""
        for path in folder.glob("*_rank_*.parquet"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def digest(self, folder: Path) -> Digest:
        """Read its parquet files, in the order of their names."""
        sources = {name: f"read_parquet({sorted(map(str, _files(folder, name)))})" for name in COLUMNS}
        with duckdb.connect(config={"temp_directory": str(folder / "spill")}) as connection:
            return digest(connection, sources)

    def _command(self, folder: Path, *arguments: str) -> Command:
        folder.mkdir(parents=True, exist_ok=True)
        environment: Mapping[str, str] = {}
        if self.threads and self.threads_variable:
            environment = {self.threads_variable: str(self.threads)}
        elif self.threads:
            arguments = (*arguments, "--threads", str(self.threads))
        return Command([sys.executable, str(PEERS / self.file), str(folder), *arguments], environment)


@dataclass(frozen=True)
class Publisher(Script):
    """A script that makes a DuckDB file, too, in which its tables are read."""

    def digest(self, folder: Path) -> Digest:
        """Read what is published."""
        with duckdb.connect(str(folder / "music_db.duckdb"), read_only=True) as connection:
            return digest(connection, {name: name for name in COLUMNS})


PUBLISHER = Publisher("DuckDB SQL, all outputs", "duckdb_sql.py", ["duckdb"], options=["--publish"])
"""Makes all that ours makes, without any of the guarantees."""


def _files(folder: Path, name: str) -> list[Path]:
    """Return the parquet files of a table: one, or a folder of them, below `raw/` or beside it."""
    top = folder / "raw" / name if name.startswith("user") else folder / f"{name}.parquet"
    return [top] if top.is_file() else [path for path in top.rglob("*.parquet") if path.is_file()]


def rankers(threads: int | None = None) -> list[Ranker]:
    """Return everybody, held to a number of threads if one is given."""
    return [
        Ours(threads),
        Script("DuckDB SQL", "duckdb_sql.py", ["duckdb"], threads),
        Script("Polars", "polars_lazy.py", ["polars"], threads, "POLARS_MAX_THREADS"),
        Script("PySpark", "pyspark_job.py", ["pyspark", "java"], threads),
    ]


def copied(source: Path, target: Path) -> Path:
    """Copy a contestant's folder afresh; files that nobody changes in place are linked instead."""
    shutil.rmtree(target, ignore_errors=True)

    def copy(path: str, to: str) -> None:
        os.link(path, to) if path.endswith(IMMUTABLE) else shutil.copy2(path, to)

    shutil.copytree(source, target, copy_function=copy)
    return target


def size_mb(folder: Path) -> float:
    """Return the megabytes that the files below a folder take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
