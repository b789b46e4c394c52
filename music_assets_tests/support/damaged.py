"""A published data root to damage, and the damage, for tests."""

from collections.abc import Callable
from pathlib import Path

from music_assets.data_root import DataRoot
from music_assets.storage.delta import DeltaStore
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    COUNTRY_RANK_PER_ARTIST,
    REJECTED_ROWS,
    USER_DATA,
    USER_TOP_ARTISTS,
    Table,
)
from music_assets_tests.support.project import TOP_ARTISTS, USERS, Project

MORE_USERS = "user_id,country,total_scrobbles\n5,Malta,1\nx,Malta,1\n"


def publish_twice(root: Path) -> Project:
    """Take two drops, the second with a bad row, and publish after each."""
    project = Project(root, reject_fail_share=1.0)
    project.drop(USER_DATA, USERS, "first.csv")
    project.drop(USER_TOP_ARTISTS, TOP_ARTISTS, "top.csv")
    assert project.refresh().success
    project.drop(USER_DATA, MORE_USERS, "second.csv")
    assert project.refresh().success
    return project


def truncate(path: Path) -> Path:
    """Cut a file off in the middle."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def garble(path: Path) -> Path:
    """Overwrite a file with as many other bytes."""
    path.write_bytes(b"\xff" * path.stat().st_size)
    return path


def remove(path: Path) -> Path:
    """Remove a file."""
    path.unlink()
    return path


def empty(path: Path) -> Path:
    """Leave a file without content, as a power failure does."""
    path.write_bytes(b"")
    return path


def parquet(table: Table) -> Callable[[Path], Path]:
    """Return a function from a data root to the last parquet file that was added to the table."""

    def last_added(root: Path) -> Path:
        files = map(Path, DeltaStore(DataRoot(root)).table_version(table).files)
        return max(files, key=lambda path: path.stat().st_mtime_ns)

    return last_added


def log_entry(table: Table, version: int) -> Callable[[Path], Path]:
    """Return a function from a data root to an entry in the log of the table; -1 is the last."""
    return lambda root: sorted((root / table.folder / "_delta_log").glob("*.json"))[version]


def snapshot(number: int) -> Callable[[Path], Path]:
    """Return a function from a data root to a published DuckDB file; -1 is the newest."""
    return lambda root: sorted((root / "music_db").glob("music_db-*.duckdb"))[number]


def pointer(root: Path) -> Path:
    """Return the pointer to the newest snapshot."""
    return root / "music_db" / "current.json"


Cause = tuple[Callable[[Path], Path], Callable[[Path], Path]]

RAW: dict[str, Cause] = {
    "parquet cut off": (truncate, parquet(USER_DATA)),
    "parquet garbled": (garble, parquet(USER_DATA)),
    "parquet missing": (remove, parquet(USER_TOP_ARTISTS)),
    "first log entry missing": (remove, log_entry(USER_DATA, 0)),
    "log entry missing": (remove, log_entry(USER_DATA, 1)),
    "last log entry missing": (remove, log_entry(USER_DATA, -1)),
    "log entry empty": (empty, log_entry(USER_DATA, 1)),
    "last log entry empty": (empty, log_entry(USER_DATA, -1)),
    "log entry cut off": (truncate, log_entry(USER_TOP_ARTISTS, 1)),
    "log entry garbled": (garble, log_entry(USER_TOP_ARTISTS, 0)),
}
"""Damage to raw tables."""

DERIVED: dict[str, Cause] = {
    "ranking cut off": (truncate, parquet(ARTIST_RANK_IN_COUNTRY)),
    "ranking garbled": (garble, parquet(COUNTRY_RANK_PER_ARTIST)),
    "ranking missing": (remove, parquet(ARTIST_RANK_IN_COUNTRY)),
    "log of ranking cut off": (truncate, log_entry(COUNTRY_RANK_PER_ARTIST, -1)),
    "log of ranking empty": (empty, log_entry(ARTIST_RANK_IN_COUNTRY, 0)),
    "rejects cut off": (truncate, parquet(REJECTED_ROWS)),
    "log of rejects garbled": (garble, log_entry(REJECTED_ROWS, -1)),
}
"""Damage to tables that are made anew."""

SNAPSHOT: dict[str, Cause] = {
    "pointer garbled": (garble, pointer),
    "pointer cut off": (truncate, pointer),
    "pointer empty": (empty, pointer),
    "snapshot cut off": (truncate, snapshot(-1)),
    "snapshot missing": (remove, snapshot(-1)),
}
"""Damage to what is published."""
