"""The published snapshot `music_db`: a read-only DuckDB file under a new name each time, and the pointer to the newest.

Built aside, then named by replacing `current.json`: a reader sees one version from start to end, and the next one the
newest. DuckDB is the file's format here, whichever engine computed the tables.
"""

import fcntl
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from glob import escape
from pathlib import Path

import duckdb

from music_assets.data_root import DataRoot, durable_write, exclusive_lock, sync
from music_assets.storage.current_views import create_current_view
from music_assets.storage.delta import DeltaStore, TableVersion
from music_assets.storage.sql import column_type, identifier, literal
from music_assets.tables import CURRENT_VIEWS, EMBEDDING_TABLES, RANKING_TABLES, REFRESH_RANKINGS, TABLES, Table

LOG = logging.getLogger(__name__)
KEPT_VERSIONS = 2
POINTER = "current.json"
BUILDING = ".building-"
NAME = "music_db-{}.duckdb"
VERSION = "%Y%m%dT%H%M%S.%fZ"
INPUTS = "inputs"
"""Key of a commit's metadata under which stands which version of which table it was computed from."""


class NothingPublishedError(Exception):
    """No snapshot has been published below this data root yet, or none that is whole is left."""


@dataclass(frozen=True)
class PublishedTable:
    """A table in the snapshot: the Delta version it shows, and the parquet files it is a view over (none: native)."""

    version: int
    rows: int
    files: tuple[str, ...]
    table_id: str = ""


@dataclass(frozen=True)
class PublishedSnapshot:
    """A published snapshot: its file, its version (a UTC time, so later ones sort after), and what is in it."""

    path: Path
    data_version: str
    tables: Mapping[str, PublishedTable]
    size_bytes: int

    @property
    def is_intact(self) -> bool:
        """Whether the file is there, and as long as it was when it was published."""
        try:
            return self.path.stat().st_size == self.size_bytes
        except OSError:
            return False


def newest_snapshot(root: DataRoot) -> PublishedSnapshot:
    """Return the newest published snapshot below the data root that is whole.

    It is the one that the pointer names. Where the pointer, or what it names, is damaged, it is the newest of the
    others, and the log says so. Raises NothingPublishedError where there is none.
    """
    damage: list[str] = []
    for pointer in pointer_files(root):
        try:
            snapshot = read_pointer(pointer)
        except DamagedPointerError as error:
            damage.append(str(error))
            continue
        if not snapshot.is_intact:
            damage.append(f"{snapshot.path} is missing or cut off")
            continue
        if damage:
            LOG.warning(f"{'; '.join(damage)}. Using {snapshot.path.name} instead. {MEND}")
        return snapshot
    if damage:
        raise NothingPublishedError(f"No published snapshot is whole: {'; '.join(damage)}. {MEND}")
    raise NothingPublishedError(
        f"Nothing is published below {root} yet. Drop the two CSV files and run the job {REFRESH_RANKINGS}."
    )


MEND = "`music-assets rebuild` publishes anew."


class DamagedPointerError(Exception):
    """A file that should tell of a snapshot does not. The message names it."""


def pointer_files(root: DataRoot) -> list[Path]:
    """Return the files that tell of a snapshot: the pointer where there is one, then what each snapshot came with."""
    folder = root.snapshots
    own = sorted(folder.glob("music_db-*.json"), reverse=True)
    return [folder / POINTER, *own] if (folder / POINTER).exists() else own


def read_pointer(path: Path) -> PublishedSnapshot:
    """Return the snapshot of which the file tells. Raises DamagedPointerError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tables = {
            name: PublishedTable(entry["version"], entry["rows"], tuple(entry["files"]), entry["table_id"])
            for name, entry in content["tables"].items()
        }
        return PublishedSnapshot(path.parent / content["file"], content["data_version"], tables, content["size_bytes"])
    except OSError as error:
        raise DamagedPointerError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise DamagedPointerError(f"{path} is damaged: it does not tell of a snapshot") from None


@contextmanager
def publish_lock(root: DataRoot) -> Iterator[None]:
    """Wait for, and hold, the right to change what is published below the data root, or to rely on it."""
    with exclusive_lock(root.publish_lock, wait=True):
        yield


def referenced_files(root: DataRoot) -> set[str]:
    """Return the parquet files that the kept snapshots show: they must outlive any retention.

    Raises DamagedPointerError.
    """
    shown = [read_pointer(pointer).tables.values() for pointer in pointer_files(root)]
    return {file for tables in shown for table in tables for file in table.files}


@contextmanager
def connect(root: DataRoot) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the newest snapshot read-only, for a query or a few."""
    connection = duckdb.connect(str(newest_snapshot(root).path), read_only=True)
    try:
        yield connection
    finally:
        connection.close()


def publish(
    root: DataRoot, snapshots: Mapping[Table, TableVersion], memory_limit: str, threads: int | None
) -> PublishedSnapshot:
    """Build a snapshot of these versions of the tables, make it the newest, and remove old ones that nobody reads.

    Raw tables and rejects become views over their parquet files; the others are copied in, in their sort order.
    """
    folder = root.snapshots
    folder.mkdir(parents=True, exist_ok=True)
    data_version = _next_version(folder)
    building = folder / f"{BUILDING}{data_version}.duckdb"
    try:
        current = _build(building, snapshots, memory_limit, threads)
    except BaseException:
        _remove(building)
        raise
    final = folder / NAME.format(data_version)
    building.rename(final)
    result = PublishedSnapshot(
        final,
        data_version,
        {
            table.full_name: PublishedTable(
                snapshot.version,
                snapshot.rows,
                snapshot.files if _is_view(table, snapshot) else (),
                snapshot.table_id,
            )
            for table, snapshot in snapshots.items()
        }
        | current,
        final.stat().st_size,
    )
    _tell(result, final.with_suffix(".json"))
    _tell(result, folder / POINTER)
    _remove_old(folder)
    return result


@dataclass(frozen=True)
class Publisher:
    """Publishes the tables of a data root, with DuckDB held to a memory limit and a number of threads (None: all)."""

    store: DeltaStore
    memory_limit: str
    threads: int | None = None

    def publish(self) -> PublishedSnapshot:
        """Publish the newest tables, each computed table beside the very versions it was computed from.

        One process at a time publishes below a data root; the next one waits, then sees what this one was given.
        """
        root = self.store.root
        with publish_lock(root):
            _remove_unfinished(root.snapshots)
            return publish(root, self._consistent(), self.memory_limit, self.threads)

    def _consistent(self) -> dict[Table, TableVersion]:
        """Choose versions that fit: going from the last computed table to the first, each names its inputs.

        Both embeddings come from one training. Beside the other tables they may be old, which holds none of those back.
        """
        versions: dict[str, int] = {}
        for table in reversed((*RANKING_TABLES, *EMBEDDING_TABLES)):
            inputs = self.store.latest_commit_metadata(table, INPUTS, versions.get(table.name)) or {}
            kept = {each.name for each in EMBEDDING_TABLES} if table in EMBEDDING_TABLES else inputs.keys()
            versions |= {name: version for name, version in inputs.items() if name in kept}
        return {table: self.store.table_version(table, versions.get(table.name)) for table in TABLES}


def _next_version(folder: Path) -> str:
    """Return the time, or the next microsecond after the newest version's where the clock is behind it.

    Versions are ordered by name: without that, what is published would be removed as an old one.
    """
    now = datetime.now(UTC)
    for newest in sorted(folder.glob(NAME.format("*")))[-1:]:
        earlier = datetime.strptime(newest.name, NAME.format(VERSION)).replace(tzinfo=UTC)
        now = max(now, earlier + timedelta(microseconds=1))
    return now.strftime(VERSION)


def _remove_unfinished(folder: Path) -> None:
    """Remove what a process left that died while it was building."""
    for path in folder.glob(f"{BUILDING}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_view(table: Table, snapshot: TableVersion) -> bool:
    return not table.sort_by and bool(snapshot.files)


def _build(
    path: Path, snapshots: Mapping[Table, TableVersion], memory_limit: str, threads: int | None
) -> dict[str, PublishedTable]:
    """Write the DuckDB file; return what it holds beyond these tables: the views of current rows."""
    config: dict[str, str | bool | int | float | list[str]] = {"memory_limit": memory_limit}
    if threads:
        config["threads"] = threads
    connection = duckdb.connect(str(path), config=config)
    try:
        for table, snapshot in snapshots.items():
            connection.execute(_definition(table, snapshot))
            connection.execute(f"COMMENT ON {_kind(table, snapshot)} {table.full_name} IS {literal(table.description)}")
        current = {}
        for view, raw in CURRENT_VIEWS.items():
            create_current_view(connection, view, raw)
            connection.execute(f"COMMENT ON VIEW {view.full_name} IS {literal(view.description)}")
            rows = connection.execute(f"SELECT count(*) FROM {view.full_name}").fetchall()[0][0]
            current[view.full_name] = PublishedTable(snapshots[raw].version, rows, (), snapshots[raw].table_id)
        connection.execute("CHECKPOINT")
    finally:
        connection.close()
    sync(path)
    return current


def _definition(table: Table, snapshot: TableVersion) -> str:
    if not snapshot.files:
        columns = ", ".join(f"{identifier(name)} {column_type(kind)}" for name, kind in table.schema.items())
        return f"CREATE TABLE {table.full_name} ({columns})"
    names = ", ".join(map(identifier, table.schema))
    files = ", ".join(literal(escape(file)) for file in snapshot.files)
    unsorted = table.sort_by and len(snapshot.files) > 1  # an engine writes each file sorted
    order = f" ORDER BY {', '.join(table.sort_by)}" if unsorted else ""
    return f"CREATE {_kind(table, snapshot)} {table.full_name} AS SELECT {names} FROM read_parquet([{files}]){order}"


def _kind(table: Table, snapshot: TableVersion) -> str:
    return "VIEW" if _is_view(table, snapshot) else "TABLE"


def _tell(result: PublishedSnapshot, pointer: Path) -> None:
    """Write the file that tells of a snapshot, in one step for readers."""
    content = {
        "file": result.path.name,
        "data_version": result.data_version,
        "size_bytes": result.size_bytes,
        "tables": {name: asdict(table) for name, table in result.tables.items()},
    }
    with durable_write(pointer) as file:
        file.write(json.dumps(content, indent=1).encode())


def _remove_old(folder: Path) -> None:
    """Remove all but the newest snapshots; not what is in use."""
    for path in sorted(folder.glob(NAME.format("*")))[:-KEPT_VERSIONS]:
        if not _in_use(path):
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a DuckDB file with what stands beside it: what tells of it, its log of changes, what it spilled.

    The file goes last: by it the next process finds what one that died here has left.
    """
    shutil.rmtree(path.with_name(f"{path.name}.tmp"), ignore_errors=True)
    for each in (path.with_suffix(".json"), path.with_name(f"{path.name}.wal"), path):
        each.unlink(missing_ok=True)


def _in_use(path: Path) -> bool:
    """Tell whether a process has the file open: DuckDB holds a POSIX lock on it for as long."""
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.lockf(file, fcntl.LOCK_UN)
        return False
