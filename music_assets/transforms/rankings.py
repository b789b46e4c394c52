"""The rankings: the artists of each country by plays, and the countries of each artist by share of plays."""

import ibis
import ibis.expr.types as ir

from music_assets.tables import ARTIST_RANK_IN_COUNTRY, COUNTRY_RANK_PER_ARTIST, Table


def artist_rank_in_country(totals: ir.Table) -> ir.Table:
    """Rank the artists of each country by total plays.

    `totals` has country, artist_name, total_playcount and listeners, one row per country and artist. Returns them with
    `rank`.
    """
    return _ranked(totals, ARTIST_RANK_IN_COUNTRY)


def country_rank_per_artist(artists: ir.Table) -> ir.Table:
    """Rank the countries of each artist by the artist's share of all plays in the country.

    `artists` is artist_rank_in_country. Returns country, artist_name, total_playcount, listeners, normalized_popularity
    (the share, 0 where the country has no plays) and rank.
    """
    country_totals = artists.group_by("country").agg(country_total=artists["total_playcount"].sum())
    joined = artists.join(country_totals, "country")
    share = ibis.ifelse(joined["country_total"] > 0, joined["total_playcount"] / joined["country_total"], 0.0)
    shares = joined.select("country", "artist_name", "total_playcount", "listeners", normalized_popularity=share)
    return _ranked(shares, COUNTRY_RANK_PER_ARTIST)


def _ranked(rows: ir.Table, table: Table) -> ir.Table:
    """Add `rank`: 1, 2, 3 … without gaps, in the order that the table declares. Text sorts by UTF-8 bytes."""
    order = table.ranking
    if order is None:
        raise ValueError(f"{table.name} is not a ranking")
    position = ibis.row_number().over(
        group_by=rows[order.within], order_by=[rows[order.by].desc(), rows[order.tie_break].asc()]
    )
    return rows.mutate(rank=(position + 1).cast("int32"))
