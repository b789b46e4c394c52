"""The rankings: which artists lead in a country, and which countries love an artist most."""

import ibis
import ibis.expr.types as ir


def artist_rank_in_country(totals: ir.Table) -> ir.Table:
    """Rank the artists of each country by the plays of the country's users.

    `totals` has a row for each country and artist, as `transforms/totals.py` makes them. Returns country, artist_name,
    total_playcount, rank: ranks are 1, 2, 3 … without gaps by total_playcount descending, ties by artist_name ascending
    in UTF-8 byte order.
    """
    order = [totals["total_playcount"].desc(), totals["artist_name"].asc()]
    return totals.mutate(rank=_rank(totals["country"], order))


def country_rank_per_artist(artists: ir.Table) -> ir.Table:
    """Rank the countries of each artist by the artist's share of the country's plays.

    `artists` is artist_rank_in_country. Returns country, artist_name, total_playcount, normalized_popularity, rank:
    normalized_popularity = total_playcount / the country's total over all its artists, 0 where that total is 0; ranks
    are 1, 2, 3 … without gaps by normalized_popularity descending, ties by country ascending.
    """
    country_totals = artists.group_by("country").agg(country_total=artists["total_playcount"].sum())
    joined = artists.join(country_totals, "country")
    shares = joined.select(
        "country",
        "artist_name",
        "total_playcount",
        normalized_popularity=ibis.ifelse(
            joined["country_total"] > 0, joined["total_playcount"] / joined["country_total"], 0.0
        ),
    )
    order = [shares["normalized_popularity"].desc(), shares["country"].asc()]
    return shares.mutate(rank=_rank(shares["artist_name"], order))


def _rank(within: ir.Value, order: list[ir.Value]) -> ir.Value:
    return (ibis.row_number().over(group_by=within, order_by=order) + 1).cast("int32")
