"""Publishing: builds a new snapshot `music_db`, makes it the newest, and removes old ones.

A snapshot is built under a hidden name and named by replacing the pointer, so that readers never see a part of one.
It is a DuckDB file whichever engine computed the tables.
"""

import fcntl
import json
import logging
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from music_assets.data_root import DataRoot, exclusive_lock, one_look, sync
from music_assets.object_store import ObjectChangedError
from music_assets.storage.current_views import create_current_view
from music_assets.storage.delta import DeltaStore, TableVersion
from music_assets.storage.lineage import INPUTS, removed_rows
from music_assets.storage.lookup_tables import create_lookup_tables
from music_assets.storage.published_snapshot import (
    NAME,
    POINTER,
    ROOT_VARIABLE,
    DamagedPointerError,
    NothingPublishedError,
    PublishedSnapshot,
    PublishedTable,
    locate_files,
    newest_snapshot,
    pointer_files,
    read_pointer,
)
from music_assets.storage.snapshot_tables import OPTIONS, create_table
from music_assets.storage.sql import column_type, identifier, literal
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    CURRENT_VIEWS,
    EMBEDDING_TABLES,
    RANKING_TABLES,
    RAW_TABLES,
    TABLES,
    Table,
)

LOG = logging.getLogger(__name__)
BUILDING = ".building-"
VERSION_FORMAT = "%Y%m%dT%H%M%S.%fZ"
KEPT_SNAPSHOTS = 2
KEPT_SECONDS = 3_600
"""Minimum age at which older snapshots are deleted from S3. Readers fetch all files of a snapshot beforehand."""
PUBLICATIONS = 10
"""Attempts to publish while other machines publish the same data root."""
CATALOG = "music_db"


@dataclass(frozen=True)
class Publisher:
    """Publishes the tables of a data root with DuckDB; `threads` None: one per core.

    `repeated` returns `repeated_users` of the rows in parquet files of a raw table, where they are known.
    """

    store: DeltaStore
    memory_limit: str
    threads: int | None = None
    repeated: Callable[[Table, tuple[str, ...]], pa.Table] | None = None

    def publish(self) -> PublishedSnapshot:
        """Publish the newest tables, each computed table with the versions it was computed from.

        Raw tables and rejects become views of their parquet files; the others are copied, in their sort order. Waits
        while another process on this machine publishes. Raises ObjectChangedError if other machines always do first.
        """
        root = self.store.root
        with exclusive_lock(root.publish_lock, wait=True):
            root.snapshots.mkdir(parents=True, exist_ok=True)
            for attempt in range(1, PUBLICATIONS + 1):
                try:
                    snapshot = self._publish_once(root)
                    break
                except ObjectChangedError:  # another machine has published since; its tables may be older
                    if attempt == PUBLICATIONS:
                        raise
            _remove_old(root)
            self._delete_old_versions()
            return snapshot

    def _publish_once(self, root: DataRoot) -> PublishedSnapshot:
        """Build a snapshot and make it the newest. Raises ObjectChangedError if another machine did meanwhile."""
        folder = root.snapshots
        _remove_unfinished(folder)
        replaced = root.store.find(root.relative(folder / POINTER)) if root.store else None
        try:
            with one_look():
                snapshot = self._build(folder, consistent_versions(self.store))
        except BaseException:
            _remove_unfinished(folder)
            raise
        root.record_layout()
        own, content = snapshot.path.with_suffix(".json"), _description(root, snapshot)
        if not root.store:
            for pointer in (own, folder / POINTER):
                root.write(pointer, content)
            return snapshot
        root.upload([snapshot.path])
        root.write(own, content)
        try:
            etag = replaced.etag if replaced else None
            root.store.write(root.relative(folder / POINTER), content, replacing=etag, create=not etag)
        except ObjectChangedError:
            _remove(root, snapshot.path)
            raise
        return snapshot

    @one_look()
    def _delete_old_versions(self) -> None:
        """Delete the parquet files of computed tables from before the published versions, except one older version.

        A process that opened the newest version can therefore read it during two more publications.
        """
        newest = pointer_files(self.store.root)[: 1 + KEPT_SNAPSHOTS]
        try:
            published = [read_pointer(self.store.root, pointer).tables for pointer in newest]
        except DamagedPointerError as error:
            LOG.warning(f"Old versions are not deleted, since a published snapshot is unknown: {error}")
            return
        for table in (*RANKING_TABLES, *EMBEDDING_TABLES):
            shown = [tables[table.full_name].version for tables in published if table.full_name in tables]
            self.store.delete_versions_before(table, min(shown, default=0) - 1)

    def _build(self, folder: Path, versions: Mapping[Table, TableVersion]) -> PublishedSnapshot:
        data_version = _next_version(self.store.root)
        building = folder / f"{BUILDING}{data_version}.duckdb"
        config: dict[str, Any] = {"memory_limit": self.memory_limit, "temp_directory": f"{building}.tmp"}
        if self.threads:
            config["threads"] = self.threads
        with duckdb.connect(config=config) as connection:
            connection.execute(f"ATTACH {literal(str(building))} AS {CATALOG} ({OPTIONS})")
            connection.execute(f"USE {CATALOG}")
            locate_files(connection, self.store.root)
            tables = {
                table.full_name: _create(connection, self.store.root, table, version)
                for table, version in versions.items()
            }
            for view, raw in CURRENT_VIEWS.items():
                repeated = self.repeated(raw, versions[raw].files) if self.repeated else None
                create_current_view(connection, view, raw, repeated)
                _describe(connection, view, "VIEW")
                ((rows,),) = connection.execute(f"SELECT count(*) FROM {view.full_name}").fetchall()
                tables[view.full_name] = PublishedTable(versions[raw].version, rows, (), versions[raw].table_id)
            ranking = versions[ARTIST_RANK_IN_COUNTRY]
            lookups = create_lookup_tables(connection, tables, self._comparable_snapshot())
            for table, rows in lookups.items():
                _describe(connection, table, "TABLE")
                tables[table.full_name] = PublishedTable(ranking.version, rows, (), ranking.table_id)
            connection.execute("CHECKPOINT")
        _set_writable(building, False)
        sync(building)
        path = building.rename(folder / NAME.format(data_version))
        return PublishedSnapshot(path, data_version, tables, path.stat().st_size)

    def _comparable_snapshot(self) -> PublishedSnapshot | None:
        """Return the newest snapshot, unless rows were removed since: it may name artists of erased users only."""
        try:
            snapshot = newest_snapshot(self.store.root)
        except NothingPublishedError:
            return None
        since = {table: snapshot.tables[table.full_name].version for table in RAW_TABLES}
        removed = any(removed_rows(self.store, table, version) for table, version in since.items())
        return None if removed else snapshot


def consistent_versions(store: DeltaStore) -> dict[Table, TableVersion]:
    """Return table versions that fit: each computed table, from the last to the first, names its inputs.

    Both embeddings come from one training. They may be older than the other tables, and do not hold these back.
    """
    versions: dict[str, int] = {}
    for table in reversed((*RANKING_TABLES, *EMBEDDING_TABLES)):
        inputs = store.latest_commit_metadata(table, INPUTS, versions.get(table.name)) or {}
        bound = {each.name for each in EMBEDDING_TABLES} if table in EMBEDDING_TABLES else inputs.keys()
        versions |= {name: version for name, version in inputs.items() if name in bound}
    return {table: store.table_version(table, versions.get(table.name)) for table in TABLES}


def _create(
    connection: duckdb.DuckDBPyConnection, root: DataRoot, table: Table, version: TableVersion
) -> PublishedTable:
    """Copy a table that is to be sorted; create a view of the files of another, unless there are none."""
    is_view = not table.sort_by and bool(version.files)
    if is_view:
        connection.execute(f"CREATE VIEW {table.full_name} AS {_rows(connection, root, table, version)}")
    elif version.files:
        unsorted = len(version.files) > 1  # engines write each file sorted
        order = f" ORDER BY {', '.join(table.sort_by)}" if unsorted else ""
        create_table(connection, table, _rows(connection, root, table, version) + order)
    else:
        create_table(connection, table)
    _describe(connection, table, "VIEW" if is_view else "TABLE")
    return PublishedTable(
        version.version,
        version.rows,
        version.files if is_view else (),
        version.table_id,
        version.sizes if is_view else (),
    )


def _rows(connection: duckdb.DuckDBPyConnection, root: DataRoot, table: Table, version: TableVersion) -> str:
    """Return the query for the rows in the table's files."""
    # Without the variable, paths are relative to the working directory.
    prefix = f"coalesce(getvariable('{ROOT_VARIABLE}') || '/', '')"
    files = ", ".join(f"{prefix} || {literal(root.relative(file))}" for file in version.files)
    rows = f"read_parquet([{files}])"
    written = {name for name, *_ in connection.execute(f"DESCRIBE FROM {rows}").fetchall()}
    columns = ", ".join(  # an older release wrote fewer columns
        identifier(name) if name in written else f"NULL::{column_type(kind)} AS {identifier(name)}"
        for name, kind in table.schema.items()
    )
    return f"SELECT {columns} FROM {rows}"


def _describe(connection: duckdb.DuckDBPyConnection, table: Table, kind: str) -> None:
    connection.execute(f"COMMENT ON {kind} {table.full_name} IS {literal(table.description)}")


def _next_version(root: DataRoot) -> str:
    """Return the time, or the microsecond after the newest version if the clock is behind it.

    Versions sort by name. A version that sorted before the newest would be removed as an old one.
    """
    now = datetime.now(UTC)
    for newest in _snapshot_files(root)[-1:]:
        now = max(now, _version_time(newest) + timedelta(microseconds=1))
    return now.strftime(VERSION_FORMAT)


def _version_time(path: Path) -> datetime:
    return datetime.strptime(path.name, NAME.format(VERSION_FORMAT)).replace(tzinfo=UTC)


def _snapshot_files(root: DataRoot) -> list[Path]:
    """Return the DuckDB file of each snapshot, the oldest first."""
    return [path for path in root.files_below(root.snapshots) if fnmatchcase(path.name, NAME.format("*"))]


def _description(root: DataRoot, snapshot: PublishedSnapshot) -> bytes:
    tables = {
        name: asdict(replace(table, files=tuple(map(root.relative, table.files))))
        for name, table in snapshot.tables.items()
    }
    content = {
        "file": snapshot.path.name,
        "data_version": snapshot.data_version,
        "size_bytes": snapshot.size_bytes,
        "tables": tables,
    }
    return json.dumps(content, indent=1).encode()


def _remove_unfinished(folder: Path) -> None:
    """Remove files of publishers that failed or were killed. The caller holds the publish lock."""
    for path in folder.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove_older_snapshots(root: DataRoot) -> list[Path]:
    """Remove all snapshots but the newest, even if a process still reads them, and return their paths.

    The caller holds the publish lock.
    """
    older = _snapshot_files(root)[:-1]
    for path in older:
        _remove(root, path)
    return older


def _remove(root: DataRoot, path: Path) -> None:
    """Remove a snapshot. The DuckDB file goes last, since the next publisher finds by it what a killed one left."""
    shutil.rmtree(path.with_name(f"{path.name}.tmp"), ignore_errors=True)
    root.remove([path.with_suffix(".json")])
    root.remove([path])


def _remove_old(root: DataRoot) -> None:
    """Remove all but the newest snapshots, unless a process still reads them.

    From S3 they are removed by age, since nobody knows which machines are about to fetch them.
    """
    local = sorted(root.snapshots.glob(NAME.format("*")))
    unused = [path for path in local[:-KEPT_SNAPSHOTS] if not _in_use(path)]
    if not root.store:
        for path in unused:
            _remove(root, path)
        return
    for path in unused:
        path.unlink(missing_ok=True)
    oldest = datetime.now(UTC) - timedelta(seconds=KEPT_SECONDS)
    for path in _snapshot_files(root)[:-KEPT_SNAPSHOTS]:
        if _version_time(path) < oldest:
            _remove(root, path)


def _in_use(path: Path) -> bool:
    """Return whether a process has the file open. DuckDB then holds a POSIX lock on it."""
    _set_writable(path, True)  # a lock that conflicts with those of readers requires write access
    try:
        with path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(file, fcntl.LOCK_UN)
            return False
    except OSError:
        return True
    finally:
        _set_writable(path, False)


def _set_writable(path: Path, writable: bool) -> None:
    mode = path.stat().st_mode
    path.chmod(mode | stat.S_IWUSR if writable else mode & ~0o222)
