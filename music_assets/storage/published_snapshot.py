"""The published snapshot `music_db`, for readers: a read-only DuckDB file, and the pointer to the newest.

Each snapshot is a file of its own. A reader therefore sees one version from start to end. Building and removing
snapshots belongs to `publisher.py`.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from music_assets.data_root import DataRoot
from music_assets.storage.sql import literal
from music_assets.tables import REFRESH_RANKINGS

LOG = logging.getLogger(__name__)
POINTER = "current.json"
POINTERS = "*.json"
NAME = "music_db-{}.duckdb"
ADVICE = "Run `music-assets rebuild` to publish again."
ROOT_VARIABLE = "data_root"
"""The DuckDB variable with the data root, from which the views of a snapshot find their parquet files."""


class NothingPublishedError(Exception):
    """The data root has no published snapshot, or none that is intact."""


class DamagedPointerError(Exception):
    """A pointer file cannot be read, or does not describe a snapshot. The message names it."""


@dataclass(frozen=True)
class PublishedTable:
    """A table of the snapshot: its Delta version, and the parquet files that it is a view of, if it is one.

    The pointer stores the files relative to the data root, so that a root can be moved.
    """

    version: int
    rows: int
    files: tuple[str, ...]
    table_id: str = ""
    sizes: tuple[int, ...] = ()
    """The size of each file in bytes; nothing if an older release published the snapshot."""


@dataclass(frozen=True)
class PublishedSnapshot:
    """A published snapshot: its file, its version (a UTC time, so that versions sort by age), and its tables."""

    path: Path
    data_version: str
    tables: Mapping[str, PublishedTable]
    size_bytes: int

    @property
    def published_at(self) -> datetime:
        """The time of the publication in UTC."""
        return datetime.fromisoformat(self.data_version)

    @property
    def is_intact(self) -> bool:
        """Whether the file exists and has the size it was published with."""
        try:
            return self.path.stat().st_size == self.size_bytes
        except OSError:
            return False


def newest_snapshot(root: DataRoot) -> PublishedSnapshot:
    """Return the newest intact snapshot.

    If the pointer, or the snapshot it names, is damaged, this is an older one, and a warning is logged. Raises
    NothingPublishedError, LayoutError.
    """
    root.check_layout()
    pointers = pointer_files(root)
    damage: list[str] = []
    for pointer in pointers:
        try:
            snapshot = read_pointer(root, pointer)
        except DamagedPointerError as error:
            damage.append(str(error))
            continue
        fetch_database(root, snapshot)
        if not snapshot.is_intact:
            damage.append(f"{root.address(snapshot.path)} is missing or cut off")
            continue
        if damage:
            LOG.warning(f"{'; '.join(damage)}. Using {snapshot.path.name} instead. {ADVICE}")
        return snapshot
    if damage:
        raise NothingPublishedError(f"No published snapshot is intact: {'; '.join(damage)}. {ADVICE}")
    raise NothingPublishedError(
        f"Nothing is published below {root} yet. Drop the two CSV files and run the job {REFRESH_RANKINGS}."
    )


def fetch_database(root: DataRoot, snapshot: PublishedSnapshot) -> None:
    """Fetch the DuckDB file of a snapshot from S3, if it exists there and is not on this machine."""
    with suppress(FileNotFoundError):
        root.fetch([snapshot.path], {snapshot.path: snapshot.size_bytes})


def fetch_files(root: DataRoot, snapshot: PublishedSnapshot) -> None:
    """Fetch the parquet files that the views of a snapshot read from S3, unless they are on this machine.

    Raises FileNotFoundError if the bucket lacks one.
    """
    sizes = {Path(file): size for each in snapshot.tables.values() for file, size in zip(each.files, each.sizes)}  # noqa: B905
    root.fetch([Path(file) for each in snapshot.tables.values() for file in each.files], sizes)


def pointer_files(root: DataRoot) -> list[Path]:
    """Return the files that describe a snapshot: the pointer, if it exists, then the copy of each snapshot's own."""
    root.look(root.snapshots, POINTERS)
    return _pointer_files(root.snapshots)


def _pointer_files(folder: Path) -> list[Path]:
    own = sorted(folder.glob("music_db-*.json"), reverse=True)
    return [folder / POINTER, *own] if (folder / POINTER).exists() else own


def read_pointer(root: DataRoot, path: Path) -> PublishedSnapshot:
    """Return the snapshot that the file describes. Raises DamagedPointerError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tables = {
            name: PublishedTable(
                entry["version"],
                entry["rows"],
                tuple(str(root.path / file) for file in entry["files"]),  # layout version 1 stored absolute paths
                entry["table_id"],
                tuple(entry.get("sizes", ())),
            )
            for name, entry in content["tables"].items()
        }
        return PublishedSnapshot(path.parent / content["file"], content["data_version"], tables, content["size_bytes"])
    except OSError as error:
        raise DamagedPointerError(f"{root.address(path)} cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise DamagedPointerError(f"{root.address(path)} is damaged: it does not describe a snapshot") from None


def referenced_files(root: DataRoot) -> set[str]:
    """Return the parquet files that snapshots read, which no vacuum may delete. Raises DamagedPointerError."""
    root.refresh(root.snapshots, POINTERS)  # also within `one_look`: another process may have published since
    tables = [read_pointer(root, pointer).tables.values() for pointer in _pointer_files(root.snapshots)]
    return {file for each in tables for table in each for file in table.files}


@contextmanager
def connect(root: DataRoot) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the newest snapshot read-only."""
    with open_snapshot(root, newest_snapshot(root)) as connection:
        yield connection


def open_snapshot(root: DataRoot, snapshot: PublishedSnapshot) -> duckdb.DuckDBPyConnection:
    """Return a read-only connection to a snapshot. Raises duckdb.Error, FileNotFoundError.

    If the copy of a snapshot on S3 is damaged, it is fetched again.
    """
    fetch_files(root, snapshot)
    try:
        connection = duckdb.connect(str(snapshot.path), read_only=True)
    except duckdb.Error:
        if not root.store:
            raise
        snapshot.path.unlink()
        fetch_database(root, snapshot)
        connection = duckdb.connect(str(snapshot.path), read_only=True)
    locate_files(connection, root)
    return connection


def locate_files(connection: duckdb.DuckDBPyConnection, root: DataRoot) -> None:
    """Set where the views of a snapshot find their parquet files. A cursor of the connection does not inherit it."""
    connection.execute(f"SET VARIABLE {ROOT_VARIABLE} = {literal(str(root.path))}")
