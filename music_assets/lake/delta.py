"""Delta tables: snapshots to read, commits to write, vacuum. Knows transactions, not what is in the rows."""

import json
import math
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from music_assets.tables import Table

REPLACED = "replaced"
"""Identity under which commits that replace a table's content exclude each other, even where there was none."""
STATISTICS_FOR = ("user_id", "ingested_at")
"""Columns whose smallest and largest value go into the log: integers and times only, which every reader agrees on."""


class ConcurrentCommitError(Exception):
    """Another process committed the same files, or replaced the same table, first. Nothing was written."""


@dataclass(frozen=True)
class Snapshot:
    """One version of a table: the parquet files that make it up. Version -1 with no files: there is no table yet."""

    version: int
    files: tuple[str, ...]
    rows: int
    size_bytes: int
    latest_ingest: datetime | None = None


class DeltaStore:
    """The Delta tables below a data root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, table: Table) -> Path:
        """Return the folder of the table."""
        return self.root / table.folder

    def snapshot(self, table: Table, version: int | None = None) -> Snapshot:
        """Return that version of the table, or the newest."""
        delta = self._open(table, version)
        if delta is None:
            return Snapshot(-1, (), 0, 0)
        adds = delta.get_add_actions(flatten=True)
        column = {name: adds.column(name).to_pylist() for name in adds.schema.names}
        return Snapshot(
            version=delta.version(),
            files=tuple(str(self.folder(table) / path) for path in column["path"]),
            rows=sum(column["num_records"]),
            size_bytes=sum(column["size_bytes"]),
            latest_ingest=max(filter(None, column.get("max.ingested_at", ())), default=None),
        )

    def new_folder(self, table: Table) -> Path:
        """Make a fresh folder inside the table for an engine to write parquet files into; unseen until committed."""
        folder = self.folder(table) / f"part-{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        return folder

    def holds(self, table: Table, identity: str) -> bool:
        """Tell whether a commit of the table carried this identity."""
        delta = self._open(table)
        return delta is not None and delta.transaction_version(identity) is not None

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

    def metadata(self, table: Table, key: str, since: int = -1, upto: int | None = None) -> list[Any]:
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

    def vacuum(self, table: Table, retention_hours: float) -> list[str]:
        """Delete parquet files that no version younger than the retention refers to; return their paths."""
        delta = self._open(table)
        if delta is None:
            return []
        removed = delta.vacuum(math.ceil(retention_hours), dry_run=False, enforce_retention_duration=False, full=True)
        for folder in self.folder(table).glob("part-*"):
            if not any(folder.iterdir()) and time.time() - folder.stat().st_mtime > retention_hours * 3600:
                folder.rmdir()
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
    ) -> int:
        folder = self.folder(table)
        adds = [_add_action(folder, file) for file in files]
        _sync(file for path in files for file in (path, path.parent))
        schema = Schema.from_arrow(table.schema.to_pyarrow())
        try:
            delta = self._open(table)
            if replaced is not None and replaced != (delta.version() if delta else -1):
                raise ConcurrentCommitError(f"{table.full_name}: another process replaced the content in between")
            delta = delta or self._create(table, schema, append_only=mode == "append")
            properties = CommitProperties(
                custom_metadata={key: json.dumps(value) for key, value in metadata.items()},
                app_transactions=_transactions(delta, table, mode, identities),
            )
            delta.create_write_transaction([*adds], mode, schema, commit_properties=properties)
        except CommitFailedError as error:
            raise ConcurrentCommitError(f"{table.full_name}: {error}") from error
        committed = DeltaTable(str(folder)).version()
        log = folder / "_delta_log"
        _sync((log / f"{committed:020}.json", log, folder))
        return committed


def _transactions(delta: DeltaTable, table: Table, mode: str, identities: Iterable[str]) -> list[Transaction]:
    """Return the marks that make one of two commits fail: of the same files, or that both replace the content."""
    if mode == "overwrite":
        return [Transaction(app_id=REPLACED, version=delta.version() + 1)]
    names = list(identities)
    if any(delta.transaction_version(name) is not None for name in names):
        raise ConcurrentCommitError(f"{table.full_name}: the same files were committed in between")
    return [Transaction(app_id=name, version=1) for name in names]


def _add_action(folder: Path, file: Path) -> AddAction:
    footer = pq.read_metadata(file)
    status = file.stat()
    return AddAction(
        path=file.relative_to(folder).as_posix(),
        size=status.st_size,
        partition_values={},
        modification_time=int(status.st_mtime * 1000),
        data_change=True,
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


def _sync(paths: Iterable[Path]) -> None:
    """Force files and folders to the disk: engines do not, and what is deleted after a commit must not outlive it."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
