"""Repeats: dropped files whose content was loaded before, and what the table still holds of it."""

from collections.abc import Sequence
from datetime import datetime

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from music_assets.tables import INGESTED_AT, Table


def replaced(history: ir.Table, table: Table, loaded_at: Sequence[datetime]) -> set[int]:
    """Return which of some contents, given by the times at which they were loaded, must be loaded again.

    They were delivered again in the order of `loaded_at`. Of each key, the content that was delivered last must have
    the current row. Where it has not, it is loaded again, and then so is each later one that it would replace. The
    others are repeats: delivering all of them again would change no current row. Returns positions in `loaded_at`.
    """
    replaced_files: set[int] = set()
    if not loaded_at:
        return replaced_files
    followers: dict[int, set[int]] = {}
    for row in _last_deliveries(history, table, loaded_at).to_pyarrow().to_pylist():
        followers.setdefault(row["place"], set()).add(row["last"])
        if row["newest"] > loaded_at[row["last"]]:
            replaced_files.add(row["last"])
    for place in range(len(loaded_at)):
        if place in replaced_files:
            replaced_files |= followers.get(place, set())
    return replaced_files


def _last_deliveries(history: ir.Table, table: Table, loaded_at: Sequence[datetime]) -> ir.Table:
    """Return for each content (`place`) the last one with a key in common, and the newest row of such a key."""
    key, time = list(table.key), INGESTED_AT.name
    places = ibis.memtable(
        pa.table(
            {"time": pa.array(loaded_at, pa.timestamp("us")), "place": pa.array(range(len(loaded_at)), pa.int32())}
        )
    )
    # A filter on one column, so that engines skip row groups.
    recent = history.filter(history[time] >= ibis.literal(min(loaded_at), "timestamp(6)")).select(*key, time)
    delivered = recent.join(places, recent[time] == places["time"]).select(*key, "place").distinct()
    keys = delivered.group_by(key).agg(last=delivered["place"].max())
    newest = recent.semi_join(keys, key).group_by(key).agg(newest=recent[time].max())
    rows = delivered.join(keys, key).join(newest, key)
    return rows.group_by("place", "last").agg(newest=rows["newest"].max())
