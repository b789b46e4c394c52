"""Lists the drops of a data root: each CSV file that was loaded, and what became of its rows."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

import ibis.expr.types as ir

from music_assets.engines.base import Engine
from music_assets.ingest.identity import UNKNOWN_TIME, Load, parse_file_id, rejects_id, time_of, version_of
from music_assets.storage.delta import DeltaStore
from music_assets.storage.integrity import refuse_damaged
from music_assets.storage.lineage import FILES, REMOVED
from music_assets.tables import INGESTED_AT, RAW_TABLES, REJECTED_ROWS, SOURCE_FILE, Table
from music_assets.transforms.current_rows import replaced_rows

SHORT_HASH = 12
"""Number of hexadecimal digits of a content hash that identify a drop."""


class State(StrEnum):
    """What became of the rows of a drop."""

    CURRENT = "current"
    PARTLY_REPLACED = "partly replaced"
    REPLACED = "replaced"
    RETRACTED = "retracted"


@dataclass(frozen=True)
class Drop:
    """A CSV file that was loaded, with its numbers of loaded and of rejected rows.

    The content hash is empty if release 0.1 loaded the file and its log entry was cleaned up.
    """

    file: str
    table: Table
    rows: int
    rejects: int
    ingested_at: datetime
    content_hash: str
    state: State

    def as_dict(self) -> dict[str, Any]:
        """Return the drop with plain values, for JSON."""
        return {
            "file": self.file,
            "table": self.table.name,
            "rows": self.rows,
            "rejects": self.rejects,
            "ingested_at": self.ingested_at.isoformat(),
            "content_hash": self.content_hash,
            "state": self.state.value,
        }


def list_drops(store: DeltaStore, reader: Engine) -> list[Drop]:
    """Return all drops in the order in which they were loaded. Raises DamagedTableError."""
    refuse_damaged(store, (*RAW_TABLES, REJECTED_ROWS))
    drops = [drop for table in RAW_TABLES for drop in History(store, reader, table).drops()]
    return sorted(drops, key=lambda drop: (drop.ingested_at, drop.table.name))


@dataclass(frozen=True)
class History:
    """What a raw table, its log and its rejected rows say about the files that were loaded into it."""

    store: DeltaStore
    reader: Engine
    table: Table

    def drops(self) -> list[Drop]:
        """Return the drops of the table in any order."""
        present = [self._drop(time) for time in self._names if not self._is_retracted(time)]
        empty = [self._drop(time) for time in self._loads.keys() - self._names.keys() if not self._is_retracted(time)]
        return present + empty + [self._retracted(load) for load in self._loads.values() if load.is_retracted]

    def reject_times(self, content_hash: str, ingested_at: datetime) -> set[datetime]:
        """Return the values of `ingested_at` of the rejected rows of a drop.

        It can be another one than that of its rows: a run that died committed the rejected rows only.
        """
        rejected = self._reject_transactions.get(rejects_id(self.table.name, content_hash), 0)
        is_latest = self._transactions.get(content_hash) in (UNKNOWN_TIME, version_of(ingested_at))
        is_own = rejected > UNKNOWN_TIME and time_of(rejected) not in self._names
        return {ingested_at, time_of(rejected)} if is_latest and is_own else {ingested_at}

    def file_ids(self, content_hash: str) -> dict[str, int]:
        """Return the file transactions of a content."""
        return {name: self._transactions[name] for name in self._transactions if name.startswith(f"{content_hash}:")}

    def _drop(self, time: datetime) -> Drop:
        load = self._loads.get(time)
        content_hash = load.content_hash if load else self._hashes_of_release_0_1.get(time, "")
        rows = self._rows.get(time, 0)
        return Drop(
            file=self._names.get(time) or (load.name if load else ""),
            table=self.table,
            rows=rows,
            rejects=sum(self._rejects.get(each, 0) for each in self.reject_times(content_hash, time)),
            ingested_at=time,
            content_hash=content_hash,
            state=_state(rows, self._replaced.get(time, 0)),
        )

    def _retracted(self, load: Load) -> Drop:
        before = self._removed.get(load.ingested_at, {"file": load.name, "rows": 0, "rejects": 0})
        return Drop(
            before["file"],
            self.table,
            before["rows"],
            before["rejects"],
            load.ingested_at,
            load.content_hash,
            State.RETRACTED,
        )

    def _is_retracted(self, time: datetime) -> bool:
        return time in self._loads and self._loads[time].is_retracted

    @cached_property
    def _history(self) -> ir.Table:
        return self.reader.read(self.table, self.store.table_version(self.table).files)

    @cached_property
    def _names(self) -> dict[datetime, str]:
        """The file of the rows of each time."""
        found = self._history.select(INGESTED_AT.name, SOURCE_FILE.name).distinct().to_pyarrow().to_pylist()
        return {row[INGESTED_AT.name]: row[SOURCE_FILE.name] for row in found}

    @cached_property
    def _rows(self) -> dict[datetime, int]:
        return _count(self._history)

    @cached_property
    def _replaced(self) -> dict[datetime, int]:
        return _count(replaced_rows(self._history, self.table))

    @cached_property
    def _rejects(self) -> dict[datetime, int]:
        rejected = self.reader.read(REJECTED_ROWS, self.store.table_version(REJECTED_ROWS).files)
        return _count(rejected.filter(rejected["table_name"] == self.table.name))

    @cached_property
    def _transactions(self) -> dict[str, int]:
        return self.store.transactions(self.table)

    @cached_property
    def _reject_transactions(self) -> dict[str, int]:
        return self.store.transactions(REJECTED_ROWS)

    @cached_property
    def _loads(self) -> dict[datetime, Load]:
        loads = [parse_file_id(name, version) for name, version in self._transactions.items()]
        return {load.ingested_at: load for load in loads if load}

    @cached_property
    def _removed(self) -> dict[datetime, Mapping[str, Any]]:
        """The drops that were retracted, as far as the log goes back."""
        removals = self.store.commit_metadata(self.table, REMOVED)
        drops = [drop for removal in removals for drop in removal.get("drops", ())]
        return {datetime.fromisoformat(drop["ingested_at"]): drop for drop in drops}

    @cached_property
    def _hashes_of_release_0_1(self) -> dict[datetime, str]:
        """The content hashes of files that release 0.1 loaded.

        Its commits name the files in the order of their hashes. The rows of a file are those with its name and a time
        in the range of the commit.
        """
        if self._names.keys() <= self._loads.keys():
            return {}
        hashes = {}
        for actions in self.store.log_entries(self.table):
            info: dict[str, str] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
            marks = [action["txn"] for action in actions if "txn" in action]
            ids = [mark["appId"] for mark in marks if mark["version"] == UNKNOWN_TIME]
            earliest, latest = _time_range(actions)
            for content_hash, file in zip(ids, json.loads(info.get(FILES, "[]")), strict=False):
                for time, name in self._names.items():
                    if name == file["name"] and earliest <= time.isoformat(timespec="microseconds") <= latest:
                        hashes[time] = content_hash
        return hashes


def _count(rows: ir.Table) -> dict[datetime, int]:
    counted = rows.group_by(INGESTED_AT.name).agg(rows=rows.count())
    return {row[INGESTED_AT.name]: row["rows"] for row in counted.to_pyarrow().to_pylist()}


def _state(rows: int, replaced: int) -> State:
    if not replaced:
        return State.CURRENT
    return State.REPLACED if replaced == rows else State.PARTLY_REPLACED


def _time_range(actions: list[dict[str, Any]]) -> tuple[str, str]:
    """Return the earliest and the latest `ingested_at` of the files that a commit added, as ISO text."""
    stats = [json.loads(action["add"].get("stats") or "{}") for action in actions if "add" in action]
    earliest = [each["minValues"][INGESTED_AT.name] for each in stats if INGESTED_AT.name in each.get("minValues", {})]
    latest = [each["maxValues"][INGESTED_AT.name] for each in stats if INGESTED_AT.name in each.get("maxValues", {})]
    return min(earliest, default="~"), max(latest, default="")
