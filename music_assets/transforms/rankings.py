"""The rankings: the artists of each country by plays, and the countries of each artist by share of plays.

They are computed on numbers in place of names: sorting and comparing text takes four times as long.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from music_assets.tables import ARTIST_RANK_IN_COUNTRY, COUNTRY_RANK_PER_ARTIST, Table

NAMES = ("country", "artist_name")
Cache = Callable[[ir.Table], ir.Table]
"""Computes rows that are read several times."""
Release = Callable[[ir.Table], None]
"""Frees the memory of cached rows."""


@dataclass(frozen=True)
class Numbered:
    """Rows with numbers in place of names, in the order of the names in UTF-8 bytes.

    `names` has for each column of names (`country`) a table of the names and their numbers (`country_number`).
    """

    rows: ir.Table
    names: Mapping[str, ir.Table]

    def named(self, rows: ir.Table | None = None) -> ir.Table:
        """Return the rows, or these ones with some of the columns, with names. The numbers remain, in other columns."""
        named = self.rows if rows is None else rows
        for name, numbers in self.names.items():
            if name in named.columns:
                named = named.rename({number_column(name): name}).join(numbers, number_column(name))
        return named


def artist_rank_in_country(totals: ir.Table, cache: Cache, release: Release) -> Numbered:
    """Rank the artists of each country by total plays.

    `totals` has country, artist_name, total_playcount and listeners, one row per country and artist. Returns them with
    `rank`.
    """
    computed = cache(totals)
    numbered = _numbered(computed, cache)
    ranked = cache(_ranked(numbered.rows, ARTIST_RANK_IN_COUNTRY))
    release(computed)
    return Numbered(ranked, numbered.names)


def country_rank_per_artist(artists: Numbered | ir.Table, cache: Cache, release: Release) -> Numbered:
    """Rank the countries of each artist by the artist's share of all plays in the country.

    `artists` is artist_rank_in_country. Returns it with another `rank`, and with normalized_popularity: the share, 0
    where the country has no plays. The rows of `artists` cannot be read afterwards if they are cached.
    """
    computed = artists.rows if isinstance(artists, Numbered) else cache(artists)
    numbered = artists if isinstance(artists, Numbered) else _numbered(computed, cache)
    rows = numbered.rows
    country_totals = rows.group_by("country").agg(country_total=rows["total_playcount"].sum())
    joined = rows.join(country_totals, "country")
    share = ibis.ifelse(joined["country_total"] > 0, joined["total_playcount"] / joined["country_total"], 0.0)
    shares = joined.mutate(normalized_popularity=share).drop("country_total", "rank")
    ranked = cache(_ranked(shares, COUNTRY_RANK_PER_ARTIST))
    release(computed)
    return Numbered(ranked, numbered.names)


def _numbered(rows: ir.Table, cache: Cache) -> Numbered:
    numbered, names = rows, {}
    for name in NAMES:
        distinct = rows.select(name).distinct()
        number = ibis.row_number().over(order_by=distinct[name]).cast("int32")
        names[name] = cache(distinct.mutate(**{number_column(name): number}))
        numbered = numbered.join(names[name], name).drop(name).rename({name: number_column(name)})
    return Numbered(numbered, names)


def number_column(name: str) -> str:
    """Return the name of the column with the numbers of the names in a column."""
    return f"{name}_number"


def _ranked(rows: ir.Table, table: Table) -> ir.Table:
    """Add `rank`: 1, 2, 3 … without gaps, in the order that the table declares, and drop what it does not declare."""
    order = table.ranking
    if order is None:
        raise ValueError(f"{table.name} is not a ranking")
    position = ibis.row_number().over(
        group_by=rows[order.within], order_by=[rows[order.by].desc(), rows[order.tie_break].asc()]
    )
    return rows.mutate(rank=(position + 1).cast("int32")).select(list(table.schema))
