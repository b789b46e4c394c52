"""Retracts drops: removes their rows and rejected rows, so that what they replaced counts again."""

import getpass
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from music_assets.data_root import LockHeldError, exclusive_lock
from music_assets.engines.base import Engine
from music_assets.ingest.identity import RETRACTED, rejects_id
from music_assets.maintenance.drops import Drop, History, State, list_drops
from music_assets.storage.deletion import delete_rows
from music_assets.storage.delta import DeltaStore
from music_assets.tables import INGESTED_AT, RAW_TABLES, REJECTED_ROWS

MINIMUM_HASH = 4
"""Fewest hexadecimal digits of a content hash that are accepted."""


class RetractError(Exception):
    """The drops cannot be retracted. Nothing was changed."""


def find_drops(drops: Sequence[Drop], prefixes: Sequence[str]) -> list[Drop]:
    """Return the drops whose content hash begins with one of the prefixes and that are not retracted yet.

    The same content may have been loaded several times. Raises RetractError if a prefix fits no content, or several.
    """
    hashes = {_full_hash(drops, prefix) for prefix in prefixes}
    return [drop for drop in drops if drop.content_hash in hashes and drop.state is not State.RETRACTED]


def retract(store: DeltaStore, reader: Engine, hashes: Sequence[str]) -> list[Drop]:
    """Remove the rows of all drops with these content hashes, and return the drops.

    One commit per table removes the rejected rows, then one the rows; a retraction that was interrupted continues.
    Raises RetractError if another process is loading files, and DamagedTableError.
    """
    try:
        with exclusive_lock(store.root.ingest_lock):
            drops = find_drops(list_drops(store, reader), hashes)
            for table in RAW_TABLES:
                if mine := [drop for drop in drops if drop.table is table]:
                    _retract(History(store, reader, table), mine)
            return drops
    except LockHeldError:
        raise RetractError("Another process is loading files or removing rows. Wait until it has ended.") from None


def author() -> dict[str, str]:
    """Return who removes rows, and when, for the log."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        name = str(os.geteuid())
    return {"by": name, "at": datetime.now(UTC).isoformat(timespec="seconds")}


def _retract(history: History, drops: Sequence[Drop]) -> None:
    store, table = history.store, history.table
    record: dict[str, Any] = {**author(), "drops": [drop.as_dict() for drop in drops]}
    hashes = {drop.content_hash for drop in drops}
    times = {drop.ingested_at for drop in drops}
    reject_times = set().union(*(history.reject_times(drop.content_hash, drop.ingested_at) for drop in drops))
    known = store.transactions(REJECTED_ROWS, [rejects_id(table.name, each) for each in hashes])
    rejected = (pc.field("table_name") == table.name) & _at(reject_times)
    delete_rows(store, REJECTED_ROWS, rejected, record, dict.fromkeys(known, RETRACTED))
    files = {name: -abs(version) for each in hashes for name, version in history.file_ids(each).items()}
    delete_rows(store, table, _at(times), record, dict.fromkeys(hashes, RETRACTED) | files)


def _at(times: set[datetime]) -> pc.Expression:
    return pc.field(INGESTED_AT.name).isin(pa.array(sorted(times), pa.timestamp("us")))


def _full_hash(drops: Sequence[Drop], prefix: str) -> str:
    hashes = {drop.content_hash for drop in drops if drop.content_hash.startswith(prefix.lower())}
    if len(prefix) < MINIMUM_HASH or len(hashes) > 1:
        raise RetractError(f"{prefix} identifies no single drop. Give more digits of the hash.")
    if not hashes:
        raise RetractError(f"No drop has the content hash {prefix}. `music-assets drops` lists all drops.")
    return hashes.pop()
