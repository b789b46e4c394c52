"""Whether two contestants made the same tables: row counts, and sums of the hashes of all rows."""

from collections.abc import Mapping
from typing import Any

import duckdb

COLUMNS = {
    "user_data": "user_id::INTEGER, country, total_scrobbles::BIGINT",
    "user_top_artists": "user_id::INTEGER, rank::INTEGER, artist_name, playcount::BIGINT, mbid",
    "artist_rank_in_country": "country, artist_name, total_playcount::DOUBLE, rank::INTEGER",
    "country_rank_per_artist": "country, artist_name, total_playcount::DOUBLE, normalized_popularity::DOUBLE, "
    "rank::INTEGER",
}
ORDER = {"artist_rank_in_country": "country, rank", "country_rank_per_artist": "artist_name, rank"}

Digest = dict[str, tuple[Any, ...]]


class DifferentError(Exception):
    """Two contestants made different tables: no time counts."""


class UnsortedError(Exception):
    """A table does not lie in the order that it is looked up by."""


def digest(connection: duckdb.DuckDBPyConnection, sources: Mapping[str, str]) -> Digest:
    """Return count and hash of each table, by the name or function to select it from.

    Raises UnsortedError where the rows of a ranking do not lie in order.
    """
    for name, order in ORDER.items():
        _check_order(connection, sources[name], order)
    return {
        name: connection.execute(f"SELECT count(*), sum(hash({columns})) FROM {sources[name]}").fetchall()[0]
        for name, columns in COLUMNS.items()
    }


def _check_order(connection: duckdb.DuckDBPyConnection, source: str, order: str) -> None:
    key, rank = order.split(", ")
    above = f"SELECT {order}, lag({key}) OVER () AS key_above, lag({rank}) OVER () AS rank_above FROM {source}"
    falls = f"{key} < key_above OR ({key} = key_above AND {rank} <= rank_above)"
    rows = connection.execute(f"SELECT count(*) FROM ({above}) WHERE {falls}").fetchall()[0][0]
    if rows:
        raise UnsortedError(f"{source} is not sorted by {order}: {rows} rows ought to stand before the row above them.")


class Agreement:
    """Remembers what the first contestant made, and holds everybody else to it."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[str, Any]] = {}

    def check(self, contestant: str, made: Any, about: str = "") -> None:
        """Compare what a contestant made with what the first one made about the same thing.

        Raises DifferentError where they differ.
        """
        first, expected = self._made.setdefault(about, (contestant, made))
        if made != expected:
            what = f" about {about}" if about else ""
            raise DifferentError(f"{contestant} and {first} differ{what}:\n{made}\n{expected}")
