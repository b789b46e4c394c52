"""Totals: how often the users of a country played an artist, computed from the history of deliveries.

Totals are sums. So where they are known as of an earlier time, only the users that were delivered since are looked at:
what these contributed then is taken off, what they contribute now is added.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import ibis
import ibis.expr.types as ir

from music_assets.tables import USER_DATA, USER_TOP_ARTISTS, Table
from music_assets.transforms.current_rows import current_rows

LARGEST_SHARE = 0.1
"""Of the users; where more were delivered since, it costs about as much to compute all totals anew."""
LARGEST_EXACT = 2**53
"""Below it a float64 holds every integer."""


@dataclass(frozen=True)
class Covered:
    """The part of a table's history that totals were computed from: its rows up to a time, and how many these were."""

    until: datetime
    rows: int


@dataclass(frozen=True)
class Earlier:
    """Totals as of an earlier time (country, artist_name, total_playcount), and what they cover, by table name."""

    totals: ir.Table
    covered: Mapping[str, Covered]


def totals(users: ir.Table, top_artists: ir.Table, repeated: Callable[[Table], ir.Table] | None = None) -> ir.Table:
    """Return country, artist_name and total_playcount: a row for each country and artist with a listener.

    `users` and `top_artists` are the history of deliveries, of which the current rows count. Users without country do
    not count; an unknown playcount counts as 0. `repeated` returns for a table what `repeated_users` does, where
    something else than the engine of these rows counts them sooner.
    """
    twice = {table: repeated(table) if repeated else None for table in (USER_DATA, USER_TOP_ARTISTS)}
    current_users = current_rows(users, USER_DATA, twice[USER_DATA])
    located = current_users.filter(current_users["country"].notnull()).select("user_id", "country")
    current_artists = current_rows(top_artists, USER_TOP_ARTISTS, twice[USER_TOP_ARTISTS])
    listed = current_artists.select("user_id", "artist_name", "playcount")
    plays = listed.join(located, "user_id")
    return plays.group_by("country", "artist_name").agg(
        # As floats, which are exact up to 2^53: a sum of integers that outgrows its type stops Spark.
        total_playcount=plays["playcount"].cast("float64").sum().fill_null(0)
    )


def totals_now(
    users: ir.Table,
    top_artists: ir.Table,
    earlier: Earlier | None,
    keep: Callable[[ir.Table], ir.Table],
    repeated: Callable[[Table], ir.Table] | None = None,
    largest_share: float = LARGEST_SHARE,
) -> ir.Table:
    """Return the same as `totals`, starting from earlier ones where that is possible and pays.

    It is possible where the history still holds what they cover, and they are exact. Where nothing was delivered since,
    somebody wants all computed anew. `keep` computes rows once that are read several times. `repeated` as in `totals`.
    """
    if earlier is None or not _is_continued(earlier, users, top_artists):
        return totals(users, top_artists, repeated)
    touched = keep(_touched(earlier, users, top_artists))
    if _number(touched.count()) > largest_share * _number(users.count()):
        return totals(users, top_artists, repeated)
    # Columns on which no total depends are left where they are: it takes long to read them.
    artists = top_artists.drop("mbid", "source_file")
    return _updated(earlier, keep(users.semi_join(touched, "user_id")), keep(artists.semi_join(touched, "user_id")))


def _updated(earlier: Earlier, users: ir.Table, top_artists: ir.Table) -> ir.Table:
    """Return the earlier totals with the part of the touched users, whose history this is, replaced."""
    then = totals(_covered(users, USER_DATA, earlier), _covered(top_artists, USER_TOP_ARTISTS, earlier))
    now = totals(users, top_artists)
    parts = ibis.union(
        then.select("country", "artist_name", more=-then["total_playcount"], listeners=ibis.literal(0, "int64")),
        now.select("country", "artist_name", more=now["total_playcount"], listeners=ibis.literal(1, "int64")),
    )
    changes = parts.group_by("country", "artist_name").agg(more=parts["more"].sum(), listeners=parts["listeners"].sum())
    # Joined, not added up with the others: these are many, and each is there once.
    joined = earlier.totals.outer_join(changes, ["country", "artist_name"])
    updated = joined.select(
        country=joined["country"].coalesce(joined["country_right"]),
        artist_name=joined["artist_name"].coalesce(joined["artist_name_right"]),
        total_playcount=joined["total_playcount"].fill_null(0) + joined["more"].fill_null(0),
        listeners=joined["listeners"].fill_null(0),
    )
    # All who listen without plays are touched. So where no plays are left, there is a listener among these, or none.
    return updated.filter((updated["total_playcount"] > 0) | (updated["listeners"] > 0)).drop("listeners")


def _touched(earlier: Earlier, users: ir.Table, top_artists: ir.Table) -> ir.Table:
    """Return the `user_id` of those delivered since, and of those with an artist without plays, which no sum shows.

    Each condition stands alone: where it holds for no row of a row group, engines do not read that.
    """
    later_users = users.filter(users["ingested_at"] > _until(earlier, USER_DATA))
    later_artists = top_artists.filter(top_artists["ingested_at"] > _until(earlier, USER_TOP_ARTISTS))
    unplayed = [
        top_artists.filter(top_artists["playcount"] == 0),
        top_artists.filter(top_artists["playcount"].isnull()),
    ]
    return ibis.union(*(rows.select("user_id") for rows in (later_users, later_artists, *unplayed))).distinct()


def _is_continued(earlier: Earlier, users: ir.Table, top_artists: ir.Table) -> bool:
    """Tell whether the history holds what the earlier totals cover, and more, and whether the totals are exact."""
    histories = {USER_DATA: users, USER_TOP_ARTISTS: top_artists}
    expected = [earlier.covered[table.name].rows for table in histories]
    found = [_number(_covered(history, table, earlier).count()) for table, history in histories.items()]
    largest = _number(earlier.totals["total_playcount"].max().fill_null(0))
    return (
        found == expected
        and sum(_number(history.count()) for history in histories.values()) > sum(expected)
        and largest < LARGEST_EXACT
    )


def _covered(history: ir.Table, table: Table, earlier: Earlier) -> ir.Table:
    return history.filter(history["ingested_at"] <= _until(earlier, table))


def _until(earlier: Earlier, table: Table) -> ir.Scalar:
    return ibis.literal(earlier.covered[table.name].until, "timestamp(6)")


def _number(expression: ir.Scalar) -> float:
    return expression.to_pyarrow().as_py()
