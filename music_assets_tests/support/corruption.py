"""A published data root, and ways to corrupt it."""

import shutil
from collections.abc import Callable
from pathlib import Path

from music_assets.data_root import DataRoot
from music_assets.object_store import in_parallel
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import newest_snapshot
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    COUNTRY_RANK_PER_ARTIST,
    REJECTED_ROWS,
    USER_DATA,
    USER_TOP_ARTISTS,
    Table,
)
from music_assets_tests.support.project import TOP_ARTISTS, USERS, Project

Locator = Callable[[DataRoot], Path]

MORE_USERS = "user_id,country,total_scrobbles\n5,Malta,1\nx,Malta,1\n"


def publish_twice(root: Path) -> Project:
    """Load and publish two drops, the second with a bad row."""
    project = Project(root, reject_fail_share=1.0)
    project.drop(USER_DATA, USERS, "first.csv")
    project.drop(USER_TOP_ARTISTS, TOP_ARTISTS, "top.csv")
    assert project.refresh().success
    project.drop(USER_DATA, MORE_USERS, "second.csv")
    assert project.refresh().success
    return project


def copy_root(source: Path, target: DataRoot) -> DataRoot:
    """Copy a data root in a folder to a new one of either kind, as `cp -r` or `aws s3 cp --recursive` does."""
    if not target.store:
        shutil.copytree(source, target.path)
        return target
    files = [path for path in source.rglob("*") if path.is_file() and path.suffix != ".lock"]
    local = [path for path in files if path.relative_to(source).parts[0] in (".dagster_home", ".scratch")]
    in_parallel(lambda path: target.put(path, target.path / path.relative_to(source)), set(files) - set(local))
    for path in local:
        copy = target.path / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return target


def truncate(path: Path) -> Path:
    """Cut a file to half its size."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def garble(path: Path) -> Path:
    """Overwrite a file with the same number of other bytes."""
    path.write_bytes(b"\xff" * path.stat().st_size)
    return path


def remove(path: Path) -> Path:
    """Remove a file."""
    path.unlink()
    return path


def empty(path: Path) -> Path:
    """Empty a file, as a power failure can."""
    path.write_bytes(b"")
    return path


def parquet(table: Table) -> Locator:
    """Locate the parquet file that was added last to the table."""

    def last_added(root: DataRoot) -> Path:
        files = map(Path, DeltaStore(root).table_version(table).files)
        return max(files, key=lambda path: path.stat().st_mtime_ns)

    return last_added


def log_entry(table: Table, version: int) -> Locator:
    """Locate an entry in the transaction log of the table; -1 is the last."""
    return lambda root: sorted(DeltaStore(root).log_folder(table).glob("*.json"))[version]


def snapshot(number: int) -> Locator:
    """Locate a published DuckDB file; -1 is the newest."""
    return lambda root: sorted(root.snapshots.glob("music_db-*.duckdb"))[number]


def pointer(root: DataRoot) -> Path:
    """Return the pointer to the newest snapshot."""
    return root.snapshots / "current.json"


Corruption = tuple[Callable[[Path], Path], Locator]
"""What is done to a file, and which file."""

RAW_CORRUPTIONS: dict[str, Corruption] = {
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
"""Damage to raw tables, which cannot be computed again."""

DERIVED_CORRUPTIONS: dict[str, Corruption] = {
    "ranking cut off": (truncate, parquet(ARTIST_RANK_IN_COUNTRY)),
    "ranking garbled": (garble, parquet(COUNTRY_RANK_PER_ARTIST)),
    "ranking missing": (remove, parquet(ARTIST_RANK_IN_COUNTRY)),
    "log of ranking cut off": (truncate, log_entry(COUNTRY_RANK_PER_ARTIST, -1)),
    "log of ranking empty": (empty, log_entry(ARTIST_RANK_IN_COUNTRY, 0)),
    "rejects cut off": (truncate, parquet(REJECTED_ROWS)),
    "log of rejects garbled": (garble, log_entry(REJECTED_ROWS, -1)),
}
"""Damage to tables that `music-assets rebuild` computes again."""

SNAPSHOT_CORRUPTIONS: dict[str, Corruption] = {
    "pointer garbled": (garble, pointer),
    "pointer cut off": (truncate, pointer),
    "pointer empty": (empty, pointer),
    "snapshot cut off": (truncate, snapshot(-1)),
    "snapshot missing": (remove, snapshot(-1)),
}
"""Damage to the published snapshot."""

CORRUPTIONS = {**RAW_CORRUPTIONS, **DERIVED_CORRUPTIONS, **SNAPSHOT_CORRUPTIONS}


def corrupt(root: DataRoot, name: str) -> Path:
    """Corrupt a data root in one of the ways above; return the corrupted file."""
    damage, locate = CORRUPTIONS[name]
    newest_snapshot(root)  # on S3, it is fetched
    path = locate(root)
    path.chmod(0o644)  # snapshots are read-only
    damage(path)
    if root.store and path.exists():
        root.upload([path])
    elif root.store:
        root.remove([path])
    return path
