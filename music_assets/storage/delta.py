"""Delta tables: snapshots to read, commits to write, vacuum. Knows transactions, not what is in the rows."""

import json
import math
import shutil
import time
import uuid
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from music_assets.data_root import DataRoot, sync
from music_assets.tables import Table

REPLACED = "replaced"
"""Identity under which commits that replace a table's content exclude each other, even where there was none."""
FILES = "files"
"""Key of a commit's metadata under which the CSV files it took stand."""
STATISTICS_FOR = ("user_id", "ingested_at")
"""Columns whose smallest and largest value go into the log: integers and times only, which every reader agrees on."""


MOST_SMALL_FILES = 16
"""A table of more files than that which are not full is compacted."""
FULL_ROWS = 4_000_000
"""Rows of a full file, which is never written again: about 100 MB of users' artists."""
FEW_COMMITS = 10
ROWS_IN_GROUP = 122_880
"""Rows that stand in memory while files are put together, and what DuckDB reads at once."""


class ConcurrentCommitError(Exception):
    """Another process committed the same files, or replaced the same table, first. Nothing was written."""


class DamagedLogError(Exception):
    """An entry of a table's log cannot be read. The message names it."""


@dataclass(frozen=True)
class TableVersion:
    """One version of a table: the parquet files that make it up. Version -1 with no files: there is no table yet."""

    version: int
    files: tuple[str, ...]
    rows: int
    size_bytes: int
    latest_ingest: datetime | None = None
    table_id: str = ""
    """Given to the table when it was made: a table that is made anew has another."""


class DeltaStore:
    """The Delta tables below a data root."""

    def __init__(self, root: DataRoot) -> None:
        self.root = root

    def folder(self, table: Table) -> Path:
        """Return the folder of the table."""
        return self.root.table_folder(table)

    def table_version(self, table: Table, version: int | None = None) -> TableVersion:
        """Return that version of the table, or the newest."""
        delta = self._open(table, version)
        if delta is None:
            return TableVersion(-1, (), 0, 0)
        adds = delta.get_add_actions(flatten=True)
        column = {name: adds.column(name).to_pylist() for name in adds.schema.names}
        return TableVersion(
            version=delta.version(),
            files=tuple(str(self.folder(table) / path) for path in column["path"]),
            rows=sum(column["num_records"]),
            size_bytes=sum(column["size_bytes"]),
            latest_ingest=max(filter(None, column.get("max.ingested_at", ())), default=None),
            table_id=str(delta.metadata().id),
        )

    def new_folder(self, table: Table) -> Path:
        """Make a fresh folder inside the table for an engine to write parquet files into; unseen until committed."""
        folder = self.folder(table) / f"part-{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        return folder

    def committed_ids(self, table: Table, ids: Iterable[str]) -> set[str]:
        """Return which of these ids commits of the table carry. Raises DamagedLogError."""
        delta = self._open(table)
        return set() if delta is None else _committed_ids(self.folder(table), delta.version(), ids)

    def append(
        self, table: Table, files: Sequence[Path], identities: Iterable[str], metadata: Mapping[str, Any]
    ) -> int:
        """Add parquet files to the table in one transaction that carries the identities; return the new version.

        Raises ConcurrentCommitError if one of the identities is committed already, by another process in between.
        """
        return self._commit(table, "append", files, identities, metadata)

    def replace(
        self,
        table: Table,
        files: Sequence[Path],
        metadata: Mapping[str, Any] | None = None,
        replaced: int | None = None,
    ) -> int:
        """Make the parquet files the whole content of the table in one transaction; return the new version.

        Raises ConcurrentCommitError if another process replaced the content meanwhile: since it is read here, or, where
        that is given, since the version `replaced`.
        """
        return self._commit(table, "overwrite", files, (), metadata or {}, replaced)

    def compact(self, table: Table, full_rows: int = FULL_ROWS) -> bool:
        """Put the table's small files together in one transaction, if they are many; tell whether they were.

        Rows stay in the order of their arrival. Readers of older versions keep the small files until these are
        vacuumed. Raises ConcurrentCommitError if another process took one of the files out of the table meanwhile.
        """
        delta = self._open(table)
        if delta is None:
            return False
        adds = pa.table(delta.get_add_actions(flatten=True)).sort_by("modification_time").to_pylist()
        small = [add for add in adds if add["num_records"] < full_rows]
        if len(small) <= MOST_SMALL_FILES:
            return False
        folder = self.folder(table)
        files = _put_together(
            [folder / add["path"] for add in small], _nullable(table), self.new_folder(table), full_rows
        )
        now = int(time.time() * 1000)
        removes = [RemoveAction(add["path"], False, now, add["size_bytes"], {}) for add in small]
        self._commit(table, "append", files, (), {}, based_on=delta, removes=removes)
        return True

    def commit_metadata(self, table: Table, key: str, since: int = -1, upto: int | None = None) -> list[Any]:
        """Return what the commits after version `since`, up to `upto` or the newest, carried under this key.

        The newest stands first.
        """
        delta = self._open(table)
        newer = 0 if delta is None else delta.version() - since
        if delta is None or newer <= 0:
            return []
        # Asked of an older version, deltalake returns the newest commits under the numbers of older ones.
        return [
            json.loads(commit[key])
            for commit in delta.history(limit=newer)
            if key in commit and (upto is None or commit["version"] <= upto)
        ]

    def latest_commit_metadata(self, table: Table, key: str, upto: int | None = None) -> Any | None:
        """Return what the newest commit with this key, of those up to `upto`, carried under it; None: there is none.

        Looks at few commits where a recent one has it, however many there are.
        """
        newest = self.table_version(table).version if upto is None else upto
        for since in (max(newest - FEW_COMMITS, -1), -1):
            if found := self.commit_metadata(table, key, since, upto):
                return found[0]
        return None

    def vacuum(self, table: Table, retention_hours: float, spared: Container[str] = ()) -> list[str]:
        """Delete parquet files that no version younger than the retention refers to; return their paths.

        Those of the `spared` ones stay.
        """
        delta = self._open(table)
        if delta is None:
            return []
        found = delta.vacuum(math.ceil(retention_hours), dry_run=True, enforce_retention_duration=False, full=True)
        removed = [str(self.folder(table) / path) for path in found if str(self.folder(table) / path) not in spared]
        for path in removed:
            Path(path).unlink(missing_ok=True)
        for folder in self.folder(table).glob("part-*"):
            hollow = not any(path.is_file() for path in folder.rglob("*"))
            if hollow and time.time() - folder.stat().st_mtime > retention_hours * 3600:
                shutil.rmtree(folder)
        return removed

    def _open(self, table: Table, version: int | None = None) -> DeltaTable | None:
        folder = str(self.folder(table))
        return DeltaTable(folder, version=version) if DeltaTable.is_deltatable(folder) else None

    def _create(self, table: Table, schema: Schema, append_only: bool) -> DeltaTable:
        """Create the table without rows: of two processes that create one with rows, both would get theirs in."""
        folder = self.folder(table)
        folder.mkdir(parents=True, exist_ok=True)
        return DeltaTable.create(
            str(folder),
            schema,
            mode="ignore",
            name=table.full_name,
            description=table.description,
            configuration={"delta.appendOnly": "true"} if append_only else None,
        )

    def _commit(
        self,
        table: Table,
        mode: Any,
        files: Sequence[Path],
        identities: Iterable[str],
        metadata: Mapping[str, Any],
        replaced: int | None = None,
        based_on: DeltaTable | None = None,
        removes: Sequence[RemoveAction] = (),
    ) -> int:
        """Commit the files; in place of what a version of the table had, if that and `removes` are given."""
        folder = self.folder(table)
        adds = [_add_action(folder, file, data_change=not removes) for file in files]
        replaces = mode == "overwrite" or bool(removes)
        for path in files:
            sync(path)
            sync(path.parent)
        schema = Schema.from_arrow(table.schema.to_pyarrow())
        try:
            delta = based_on or self._open(table)
            if replaced is not None and replaced != (delta.version() if delta else -1):
                raise ConcurrentCommitError(f"{table.full_name}: another process replaced the content in between")
            delta = delta or self._create(table, schema, append_only=mode == "append")
            properties = CommitProperties(
                custom_metadata={key: json.dumps(value) for key, value in metadata.items()},
                app_transactions=self._transactions(delta.version(), table, replaces, identities),
            )
            delta.create_write_transaction([*adds, *removes], mode, schema, commit_properties=properties)
        except CommitFailedError as error:
            raise ConcurrentCommitError(f"{table.full_name}: {error}") from error
        committed = DeltaTable(str(folder)).version()
        log = folder / "_delta_log"
        for path in (log / f"{committed:020}.json", log, folder):
            sync(path)
        return committed

    def _transactions(self, version: int, table: Table, replaces: bool, identities: Iterable[str]) -> list[Transaction]:
        """Return the marks that make one of two commits fail: of the same files, or that both replace the content."""
        if replaces:
            return [Transaction(app_id=REPLACED, version=version + 1)]
        names = list(identities)
        if _committed_ids(self.folder(table), version, names):
            raise ConcurrentCommitError(f"{table.full_name}: the same files were committed in between")
        return [Transaction(app_id=name, version=1) for name in names]


def _committed_ids(folder: Path, version: int, identities: Iterable[str]) -> set[str]:
    """Return which of these identities stand in the table's log up to that version.

    `DeltaTable.transaction_version` goes through every identity there is to find one. This goes through them once for
    all: the newest checkpoint (https://github.com/delta-io/delta/blob/master/PROTOCOL.md), then each later commit.
    """
    log = folder / "_delta_log"
    wanted = set(identities)
    checkpoints = {int(path.name[:20]): path for path in log.glob("*.checkpoint.parquet")}
    checkpoint = max((number for number in checkpoints if number <= version), default=-1)
    found: set[str] = set()
    if wanted and checkpoint >= 0:
        (names,) = pq.ParquetFile(checkpoints[checkpoint]).read(columns=["txn.appId"]).flatten().columns
        found.update(names.filter(pc.is_in(names, pa.array(wanted, pa.string()))).to_pylist())
    for number in range(checkpoint + 1, version + 1) if wanted else ():
        found.update(action["txn"]["appId"] for action in _actions(log / f"{number:020}.json") if "txn" in action)
    return found & wanted


def _actions(entry: Path) -> list[dict[str, Any]]:
    try:
        actions = [json.loads(line) for line in entry.read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        raise DamagedLogError(f"{entry} cannot be read: {error}. `music-assets doctor` tells how to go on.") from error
    return actions


def _nullable(table: Table) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in table.schema.to_pyarrow()])


def _put_together(files: Sequence[Path], schema: pa.Schema, folder: Path, full_rows: int) -> list[Path]:
    """Write the rows of parquet files, in their order, into as few as hold them; a few row groups are in memory."""
    import pyarrow.dataset as ds  # loads pandas, and few runs compact

    rows_in_group = min(ROWS_IN_GROUP, full_rows)
    scanner = ds.dataset([str(file) for file in files], schema=schema, format="parquet").scanner(
        batch_size=ROWS_IN_GROUP, batch_readahead=1, fragment_readahead=1
    )
    ds.write_dataset(
        scanner,
        folder,
        format="parquet",
        file_options=ds.ParquetFileFormat().make_write_options(compression="zstd", compression_level=1),
        basename_template="rows-{i}.parquet",
        min_rows_per_group=rows_in_group,
        max_rows_per_group=rows_in_group,
        max_rows_per_file=full_rows,
        preserve_order=True,
        existing_data_behavior="error",
    )
    return sorted(folder.iterdir())


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
        if name not in STATISTICS_FOR:
            continue
        groups = [footer.row_group(group).column(index).statistics for group in range(footer.num_row_groups)]
        known = [group for group in groups if group is not None and group.has_min_max]
        if known and len(known) == len(groups):
            low[name] = _json_value(min(group.min for group in known))
            high[name] = _json_value(max(group.max for group in known))
    return {"minValues": low, "maxValues": high}


def _json_value(value: Any) -> Any:
    return value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value
