"""Totals: how often the users of a country played an artist, and how many of them listen to the artist.

Totals are sums over users. A refresh after a small drop therefore starts from the previous totals: it subtracts what
the users delivered since contributed before, and adds what they contribute now.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from music_assets.tables import USER_DATA, USER_TOP_ARTISTS, Table
from music_assets.transforms.current_rows import CurrentRows
from music_assets.transforms.unranked_plays import Counts

MAX_UPDATED_SHARE = 0.1
"""Share of the users up to which an update of the previous totals is faster than computing all of them."""
ROWS_PER_SLICE = 2**25
"""Number of rows whose users and artists are compared at a time, in half a gigabyte of memory."""
LONGEST_LIST = USER_TOP_ARTISTS.column("rank").maximum or 1
KEY = ("country", "artist_name")
SUMS = ("total_playcount", "listeners")
EXACT_BELOW = 2**53
"""A float64 represents every integer below this."""


@dataclass(frozen=True)
class Coverage:
    """The part of a table's history that totals cover: the rows up to a time, and their number."""

    until: datetime
    rows: int


@dataclass(frozen=True)
class PreviousTotals:
    """Totals of an earlier refresh (as `totals` returns them), the plays in none of them, and what both cover."""

    totals: ir.Table
    unranked: Counts
    coverage: Mapping[str, Coverage]
    """What totals and counts cover, by table name."""


@dataclass(frozen=True)
class Delivered:
    """The current rows of the users that were delivered since an earlier refresh: those at that time, and those now."""

    before: CurrentRows
    now: CurrentRows


def totals(current: CurrentRows) -> ir.Table:
    """Return country, artist_name, total_playcount and listeners: a row for each country and artist with a listener.

    Users without country are ignored; an unknown playcount counts as 0.
    """
    located = current.users.filter(current.users["country"].notnull()).select("user_id", "country")
    listed = current.top_artists.select("user_id", "artist_name", "playcount").join(located, "user_id")
    # A sum of integers that overflows fails on Spark; floats are exact up to 2^53.
    listed = listed.mutate(playcount=listed["playcount"].cast("float64"))
    plays = _one_row_per_artist(listed, _number(located.count()) * LONGEST_LIST)
    return plays.group_by(KEY).agg(total_playcount=plays["playcount"].sum().fill_null(0), listeners=plays.count())


def _one_row_per_artist(listed: ir.Table, rows: float) -> ir.Table:
    """Return the rows with the plays of an artist that a user lists twice added up, so that each row is a listener.

    `listed` has at most `rows` rows. To count distinct users of each country and artist would take twice the time and
    three times the memory.
    """
    slices = range(math.ceil(rows / ROWS_PER_SLICE))
    parts = [listed.filter(listed["user_id"].cast("int64") % len(slices) == number) for number in slices]
    twice = pa.table({"user_id": pa.concat_arrays([pa.array([], pa.int32()), *map(_users_with_equal_hashes, parts)])})
    if not twice.num_rows:
        return listed
    users = ibis.memtable(twice)
    again = listed.semi_join(users, "user_id")
    merged = again.group_by("user_id", "artist_name", "country").agg(playcount=again["playcount"].sum())
    return listed.anti_join(users, "user_id").union(merged.select(*listed.columns))


def _users_with_equal_hashes(listed: ir.Table) -> pa.Array:
    """Return the `user_id` of users with two artists whose 32-bit hashes are equal, which are nearly always the same.

    Sorting numbers in this process takes a quarter of the time of an aggregation by user in an engine.
    """
    key = (listed["user_id"].cast("int64") << 32) | (listed["artist_name"].hash() & 0xFFFFFFFF)
    keys = np.sort(listed.select(key=key).to_pyarrow()["key"].to_numpy())
    pa.default_memory_pool().release_unused()  # Arrow would keep 200 MB that the engine needs next
    return pa.array(np.unique(keys[1:][keys[1:] == keys[:-1]] >> 32), pa.int32())


def delivered_since(
    previous: PreviousTotals,
    users: ir.Table,
    top_artists: ir.Table,
    cache: Callable[[ir.Table], ir.Table],
    max_updated_share: float = MAX_UPDATED_SHARE,
) -> Delivered | None:
    """Return the rows of the users that were delivered since, or None if all totals must be computed again.

    They must if the history does not contain what the previous totals cover, if these are not exact, after a large
    drop, and if nothing was delivered: this refresh was then requested for another reason. `cache` computes rows that
    are read several times.
    """
    if not _can_update(previous, users, top_artists):
        return None
    affected = cache(_affected_users(previous, users, top_artists))
    if _number(affected.count()) > max_updated_share * _number(users.count()):
        return None
    # Reading columns on which no total depends would take long.
    artists = top_artists.drop("mbid", "source_file")
    of_users = cache(users.semi_join(affected, "user_id"))
    of_artists = cache(artists.semi_join(affected, "user_id"))
    before = _covered(of_users, USER_DATA, previous), _covered(of_artists, USER_TOP_ARTISTS, previous)
    return Delivered(CurrentRows.of(*before), CurrentRows.of(of_users, of_artists))


def updated_totals(previous: ir.Table, delivered: Delivered) -> ir.Table:
    """Return the previous totals with the contribution of the delivered users replaced."""
    before = totals(delivered.before)
    subtracted = before.mutate(total_playcount=-before["total_playcount"], listeners=-before["listeners"])
    parts = subtracted.union(totals(delivered.now))
    changed = parts.group_by(KEY).agg({name: parts[name].sum() for name in SUMS})
    # Only the changes are few: an aggregation of all totals would take twice as long.
    merged = previous.select(*KEY, *SUMS).outer_join(changed, KEY, rname="{name}_change")
    updated = merged.select(
        **{name: merged[name].fill_null(merged[f"{name}_change"]) for name in KEY},
        **{name: merged[name].fill_null(0) + merged[f"{name}_change"].fill_null(0) for name in SUMS},
    )
    return updated.filter(updated["listeners"] > 0)


def _affected_users(previous: PreviousTotals, users: ir.Table, top_artists: ir.Table) -> ir.Table:
    """Return the `user_id` of users delivered since."""
    later_users = users.filter(users["ingested_at"] > _until(previous, USER_DATA))
    later_artists = top_artists.filter(top_artists["ingested_at"] > _until(previous, USER_TOP_ARTISTS))
    return later_users.select("user_id").union(later_artists.select("user_id")).distinct()


def _can_update(previous: PreviousTotals, users: ir.Table, top_artists: ir.Table) -> bool:
    """Return whether the history contains what the previous totals cover, and more, and whether they are exact."""
    histories = {USER_DATA: users, USER_TOP_ARTISTS: top_artists}
    expected = [previous.coverage[table.name].rows for table in histories]
    found = [_number(_covered(history, table, previous).count()) for table, history in histories.items()]
    largest = _number(previous.totals["total_playcount"].max().fill_null(0))
    return (
        found == expected
        and sum(_number(history.count()) for history in histories.values()) > sum(expected)
        and largest < EXACT_BELOW
    )


def _covered(history: ir.Table, table: Table, previous: PreviousTotals) -> ir.Table:
    return history.filter(history["ingested_at"] <= _until(previous, table))


def _until(previous: PreviousTotals, table: Table) -> ir.Scalar:
    return ibis.literal(previous.coverage[table.name].until, "timestamp(6)")


def _number(expression: ir.Scalar) -> float:
    return expression.to_pyarrow().as_py()
