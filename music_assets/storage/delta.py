"""The Delta tables of a data root: versions to read, commits, vacuum.

What the rows mean does not belong here, nor what commits record about their origin (`lineage.py`).
"""

import json
import math
import shutil
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from music_assets.data_root import DamagedTableError, DataRoot, sync
from music_assets.object_store import ObjectChangedError, ObjectStore
from music_assets.storage.log_upload import LOG_FOLDER, change_log
from music_assets.tables import Table

REPLACED = "replaced"
"""Transaction id of commits that replace files. It makes two of them conflict, even on an empty table."""
APPEND_ONLY = "delta.appendOnly"
STATISTICS_COLUMNS = ("user_id", "ingested_at")
"""Columns with minimum and maximum in the log: only integers and times, which every reader compares alike."""
RECENT_COMMITS = 10
UPLOAD_HOURS = 24
"""Age from which on a file on S3 that was never committed is deleted. Another machine may be about to commit it."""
Result = TypeVar("Result")
PART = "part-"
"""Prefix of the folders that parquet files are written into, one for each writer."""


class ConcurrentCommitError(Exception):
    """Another process committed the same files, or replaced the same table, first. Nothing was written."""


@dataclass(frozen=True)
class TableVersion:
    """One version of a table: its parquet files. Version -1 without files if the table does not exist."""

    version: int
    paths: tuple[str, ...]
    """Where the parquet files are or, if they have not been fetched from S3 yet, will be."""
    rows: int
    size_bytes: int
    latest_ingest: datetime | None = None
    table_id: str = ""
    """Identifies the table: one created again in the same folder has another id."""
    sizes: tuple[int, ...] = ()
    """The size of each parquet file in bytes."""
    fetch: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)

    @property
    def files(self) -> tuple[str, ...]:
        """The parquet files on this machine. From S3 those that are missing are fetched."""
        self.fetch()
        return self.paths


class DeltaStore:
    """The Delta tables of a data root."""

    def __init__(self, root: DataRoot) -> None:
        self.root = root

    def folder(self, table: Table) -> Path:
        """Return the folder of the table."""
        return self.root.table_folder(table)

    def table_version(self, table: Table, version: int | None = None) -> TableVersion:
        """Return a version of the table, by default the newest."""
        delta = self.open(table, version)
        if delta is None:
            return TableVersion(-1, (), 0, 0)
        adds = delta.get_add_actions(flatten=True)
        column = {name: adds.column(name).to_pylist() for name in adds.schema.names}
        paths = [self.folder(table) / path for path in column["path"]]
        return TableVersion(
            version=delta.version(),
            paths=tuple(map(str, paths)),
            rows=sum(column["num_records"]),
            size_bytes=sum(column["size_bytes"]),
            latest_ingest=max(filter(None, column.get("max.ingested_at", ())), default=None),
            table_id=str(delta.metadata().id),
            sizes=tuple(column["size_bytes"]),
            fetch=partial(self.root.fetch, paths, dict(zip(paths, column["size_bytes"], strict=True))),
        )

    def local_paths(self, table: Table, adds: Iterable[Mapping[str, Any]]) -> list[Path]:
        """Return the parquet files of these add actions, after they were fetched from S3."""
        sizes = {self.folder(table) / add["path"]: int(add["size_bytes"]) for add in adds}
        self.root.fetch(sizes, sizes)
        return list(sizes)

    def committed_at(self, table: Table) -> float:
        """Return when the newest version was committed, in seconds since 1970; 0 if the table does not exist."""
        delta = self.open(table)
        return delta.history(limit=1)[0]["timestamp"] / 1000 if delta else 0.0

    def open(self, table: Table, version: int | None = None) -> DeltaTable | None:
        """Return the table as deltalake reads it, or None if it does not exist.

        From S3 its log is copied to this machine first. Nothing may be committed to that copy: see `_change`.
        """
        self.log_folder(table)
        folder = str(self.folder(table))
        return DeltaTable(folder, version=version) if DeltaTable.is_deltatable(folder) else None

    def log_folder(self, table: Table) -> Path:
        """Return the folder of the table's log, which need not exist, with all entries and checkpoints."""
        log = self.folder(table) / LOG_FOLDER
        self.root.look(log)
        return log

    def _change(self, table: Table, change: Callable[[Path], Result]) -> Result:
        """Let a function change the log of the table below a folder, and return its result.

        Raises ObjectChangedError, for a table on S3, if other processes are always first.
        """
        folder = self.folder(table)
        return change_log(self.root, self.root.store, folder, change) if self.root.store else change(folder)

    def create_checkpoint(self, table: Table) -> int:
        """Write a checkpoint of the newest version, and return the version."""

        def write(folder: Path) -> int:
            delta = DeltaTable(str(folder))
            delta.create_checkpoint()
            return delta.version()

        self.log_folder(table)
        return self._change(table, write)

    def new_folder(self, table: Table) -> Path:
        """Create a folder inside the table for new parquet files. Readers ignore the files until they are committed."""
        folder = self.folder(table) / f"{PART}{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        return folder

    def transactions(self, table: Table, ids: Iterable[str] | None = None) -> dict[str, int]:
        """Return the newest version of these application transactions, by default of all. Raises DamagedTableError."""
        delta = self.open(table)
        return {} if delta is None else _transactions(self.folder(table), delta.version(), ids)

    def append(
        self,
        table: Table,
        files: Sequence[Path],
        transactions: Mapping[str, int],
        metadata: Mapping[str, Any],
        expected: Mapping[str, int] | None = None,
    ) -> int:
        """Add parquet files to the table in one commit with these application transactions; return the new version.

        Raises ConcurrentCommitError if one of these has another version in the table than `expected`, which by default
        is none.
        """
        adds = self._durable_adds(table, files)
        with _conflicts(table):
            delta = self.open(table) or self._create(table)
            found = _transactions(self.log_folder(table).parent, delta.version(), transactions)
            if any(version != (expected or {}).get(name) for name, version in found.items()):
                raise ConcurrentCommitError(f"{table.full_name}: another process committed the same files first")
            marks = [Transaction(app_id=name, version=version) for name, version in transactions.items()]
            return self._commit(table, delta, "append", adds, marks, metadata)

    def replace(
        self,
        table: Table,
        files: Sequence[Path],
        metadata: Mapping[str, Any] | None = None,
        expected_version: int | None = None,
    ) -> int:
        """Replace the content of the table by these parquet files in one transaction; return the new version.

        Raises ConcurrentCommitError if another process replaced the content meanwhile, or if the table is not at
        `expected_version`.
        """
        adds = self._durable_adds(table, files)
        with _conflicts(table):
            delta = self.open(table)
            if expected_version not in (None, delta.version() if delta else -1):
                raise ConcurrentCommitError(f"{table.full_name}: another process replaced the content first")
            delta = delta or self._create(table)
            return self._commit(table, delta, "overwrite", adds, [_replacement(delta)], metadata or {})

    def rewrite(
        self, table: Table, delta: DeltaTable, files: Sequence[Path], replaced: Iterable[Mapping[str, Any]]
    ) -> int:
        """Replace some files of the table, given by their add actions, by files with the same rows.

        Returns the new version. Raises ConcurrentCommitError if another process removed one of the files since the
        table was opened as `delta`.
        """
        adds = self._durable_adds(table, files, data_change=False)
        removes = _remove_actions(replaced, data_change=False)
        with _conflicts(table):
            return self._commit(table, delta, "append", [*adds, *removes], [_replacement(delta)], {})

    def delete(
        self,
        table: Table,
        delta: DeltaTable,
        files: Sequence[Path],
        replaced: Iterable[Mapping[str, Any]],
        transactions: Mapping[str, int],
        metadata: Mapping[str, Any],
    ) -> int:
        """Replace some files of the table, given by their add actions, by files with fewer rows.

        Returns the new version. Raises ConcurrentCommitError as `rewrite` does.
        """
        adds, removes = self._durable_adds(table, files), _remove_actions(replaced, data_change=True)
        marks = [Transaction(app_id=name, version=version) for name, version in transactions.items()]
        with _conflicts(table):
            return self._commit(table, delta, "append", [*adds, *removes], [*marks, _replacement(delta)], metadata)

    def open_for_deletion(self, table: Table) -> DeltaTable | None:
        """Return the table, or None if it does not exist, after a commit that permits deletion if it was forbidden.

        Releases before 0.2 created raw tables as append-only.
        """
        delta = self.open(table)
        if delta and delta.metadata().configuration.get(APPEND_ONLY) == "true":
            properties = {APPEND_ONLY: "false"}
            self._change(table, lambda folder: DeltaTable(str(folder)).alter.set_table_properties(properties))
            delta = self.open(table)
        return delta

    def commit_metadata(self, table: Table, key: str, since: int = -1, upto: int | None = None) -> list[Any]:
        """Return the values of a metadata key in the commits after version `since`, up to `upto`, newest first."""
        delta = self.open(table)
        newer = 0 if delta is None else delta.version() - since
        if delta is None or newer <= 0:
            return []
        # The history of an older version would number the newest commits as if they were older.
        return [
            json.loads(commit[key])
            for commit in delta.history(limit=newer)
            if key in commit and (upto is None or commit["version"] <= upto)
        ]

    def latest_commit_metadata(self, table: Table, key: str, upto: int | None = None) -> Any | None:
        """Return the newest value of a metadata key in the commits up to `upto`, or None."""
        newest = self.table_version(table).version if upto is None else upto
        for since in (max(newest - RECENT_COMMITS, -1), -1):  # reading thousands of commits takes seconds
            if found := self.commit_metadata(table, key, since, upto):
                return found[0]
        return None

    def log_entries(self, table: Table) -> Iterator[list[dict[str, Any]]]:
        """Yield the actions of each log entry that was not cleaned up yet, oldest first. Raises DamagedTableError."""
        for entry in sorted(self.log_folder(table).glob("*.json")):
            yield read_log_entry(entry)

    def vacuum(self, table: Table, retention_hours: float, referenced: Container[str] = ()) -> list[str]:
        """Delete parquet files that no version younger than the retention refers to; return their paths.

        `referenced` files are kept. On S3 so are files that were uploaded lately and may be about to be committed.
        """
        delta = self.open(table)
        if delta is None:
            return []
        found = self._unreferenced(table, delta, math.ceil(retention_hours))
        removed = [path for path in (self.folder(table) / name for name in found) if str(path) not in referenced]
        self.root.remove(removed)
        for folder in self.folder(table).glob(f"{PART}*"):
            empty = not any(path.is_file() for path in folder.rglob("*"))
            if empty and time.time() - folder.stat().st_mtime > retention_hours * 3600:
                shutil.rmtree(folder)
        return list(map(str, removed))

    def _unreferenced(self, table: Table, delta: DeltaTable, hours: int) -> list[str]:
        if not self.root.store:
            return delta.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True)
        removed = delta.vacuum(hours, dry_run=True, enforce_retention_duration=False)
        return sorted({*removed, *self._never_committed(table, delta, max(hours, UPLOAD_HOURS), self.root.store)})

    def _never_committed(self, table: Table, delta: DeltaTable, hours: int, store: ObjectStore) -> Iterator[str]:
        """Yield the parquet files on S3 of at least this age that the log does not name."""
        named = set(pa.table(delta.get_add_actions(flatten=True))["path"].to_pylist())
        named.update(delta.vacuum(0, dry_run=True, enforce_retention_duration=False))
        oldest = datetime.now(UTC) - timedelta(hours=hours)
        for found in store.list(table.folder):
            path = found.key.removeprefix(f"{table.folder}/")
            if found.modified < oldest and not path.startswith(LOG_FOLDER) and path not in named:
                yield path

    def delete_versions_before(self, table: Table, oldest: int) -> list[str]:
        """Delete parquet files that only versions before `oldest` refer to, whatever their age; return their paths.

        Files that are not committed yet stay.
        """
        delta = self.open(table)
        if delta is None or oldest <= 0:
            return []
        kept = list(range(oldest, delta.version() + 1))
        found = delta.vacuum(0, dry_run=True, enforce_retention_duration=False, full=False, keep_versions=kept)
        existing = self.root.files_below(self.folder(table)) if found else {}
        removed = [path for path in (self.folder(table) / name for name in found) if path in existing]
        self.root.remove(removed)
        for folder in {path.parent for path in removed} - {self.folder(table)}:
            if folder.exists() and not any(folder.iterdir()):
                folder.rmdir()
        return list(map(str, removed))

    def _create(self, table: Table) -> DeltaTable:
        """Create an empty table. If commits with rows created it, two processes could both commit theirs."""
        self.folder(table).mkdir(parents=True, exist_ok=True)

        def create(folder: Path) -> None:
            DeltaTable.create(
                str(folder), _schema(table), mode="ignore", name=table.full_name, description=table.description
            )

        self._change(table, create)
        return DeltaTable(str(self.folder(table)))

    def _durable_adds(self, table: Table, files: Sequence[Path], data_change: bool = True) -> list[AddAction]:
        """Force the files to disk, or upload them, and return the actions that add them."""
        for path in () if self.root.store else files:
            sync(path)
            sync(path.parent)
        self.root.upload(files)
        return [_add_action(self.folder(table), path, data_change) for path in files]

    def _commit(
        self,
        table: Table,
        delta: DeltaTable,
        mode: Literal["append", "overwrite"],
        actions: Sequence[AddAction | RemoveAction],
        marks: list[Transaction],
        metadata: Mapping[str, Any],
    ) -> int:
        properties = CommitProperties(
            custom_metadata={key: json.dumps(value) for key, value in metadata.items()}, app_transactions=marks
        )

        def write(folder: Path) -> int:
            # Conflicts with the commits since the version that was read are detected.
            target = DeltaTable(str(folder), delta.version()) if self.root.store else delta
            target.create_write_transaction(list(actions), mode, _schema(table), commit_properties=properties)
            target.update_incremental()
            return target.version()

        version = self._change(table, write)
        folder = self.folder(table)
        for path in () if self.root.store else (_log_entry(folder, version), folder / LOG_FOLDER, folder):
            sync(path)
        return version


def read_log_entry(entry: Path) -> list[dict[str, Any]]:
    """Return the actions of an entry of a table's log. Raises DamagedTableError if it is unreadable or empty."""
    try:
        actions = [json.loads(line) for line in entry.read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        raise DamagedTableError(f"{entry} cannot be read: {error}. Run `music-assets doctor` for advice.") from error
    if not actions or not all(isinstance(action, dict) for action in actions):
        raise DamagedTableError(f"{entry} is empty or cut off. Run `music-assets doctor` for advice.")
    return actions


def _log_entry(folder: Path, version: int) -> Path:
    return folder / LOG_FOLDER / f"{version:020}.json"


def _transactions(folder: Path, version: int, ids: Iterable[str] | None = None) -> dict[str, int]:
    """Return the newest version of these application transactions in the table's log up to that table version.

    `DeltaTable.transaction_version` scans all ids to find one. This scans them once: the newest checkpoint
    (https://github.com/delta-io/delta/blob/master/PROTOCOL.md), then each later commit.
    """
    wanted = None if ids is None else set(ids)
    if wanted == set():
        return {}
    checkpoints = {int(path.name[:20]): path for path in (folder / LOG_FOLDER).glob("*.checkpoint.parquet")}
    checkpoint = max((number for number in checkpoints if number <= version), default=-1)
    found: dict[str, int] = {}
    if checkpoint >= 0:
        stored = pq.ParquetFile(checkpoints[checkpoint]).read(columns=["txn.appId", "txn.version"]).flatten()
        names = stored["txn.appId"]
        rows = stored.filter(names.is_valid() if wanted is None else pc.is_in(names, pa.array(wanted, pa.string())))
        found.update(zip(rows["txn.appId"].to_pylist(), rows["txn.version"].to_pylist(), strict=True))
    for number in range(checkpoint + 1, version + 1):
        marks = [action["txn"] for action in read_log_entry(_log_entry(folder, number)) if "txn" in action]
        found.update((mark["appId"], mark["version"]) for mark in marks)
    return found if wanted is None else {name: found[name] for name in wanted & found.keys()}


@contextmanager
def _conflicts(table: Table) -> Iterator[None]:
    """Raise ConcurrentCommitError where deltalake, or the store, reports a conflict."""
    try:
        yield
    except (CommitFailedError, ObjectChangedError) as error:
        raise ConcurrentCommitError(f"{table.full_name}: {error}") from error


def _remove_actions(adds: Iterable[Mapping[str, Any]], data_change: bool) -> list[RemoveAction]:
    now = int(time.time() * 1000)
    return [RemoveAction(add["path"], data_change, now, add["size_bytes"], {}) for add in adds]


def _replacement(delta: DeltaTable) -> Transaction:
    return Transaction(app_id=REPLACED, version=delta.version() + 1)


def _schema(table: Table) -> Schema:
    return Schema.from_arrow(table.schema.to_pyarrow())


def _add_action(folder: Path, file: Path, data_change: bool) -> AddAction:
    footer = pq.read_metadata(file)
    status = file.stat()
    return AddAction(
        path=file.relative_to(folder).as_posix(),
        size=status.st_size,
        partition_values={},
        modification_time=int(status.st_mtime * 1000),
        data_change=data_change,
        stats=json.dumps({"numRecords": footer.num_rows, **_extremes(footer)}),
    )


def _extremes(footer: pq.FileMetaData) -> dict[str, Any]:
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    for index, name in enumerate(footer.schema.names):
        if name not in STATISTICS_COLUMNS:
            continue
        groups = [footer.row_group(group).column(index).statistics for group in range(footer.num_row_groups)]
        known = [group for group in groups if group is not None and group.has_min_max]
        if known and len(known) == len(groups):
            low[name] = _json_value(min(group.min for group in known))
            high[name] = _json_value(max(group.max for group in known))
    return {"minValues": low, "maxValues": high}


def _json_value(value: Any) -> Any:
    return value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value
