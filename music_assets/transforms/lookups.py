"""Lookup tables: answers to frequent questions, derived from the rankings so that no query has to aggregate."""

import ibis
import ibis.expr.types as ir

LISTED = 200
"""Number of first artists, or of distinctive ones, that are stored for each country."""
SHRINKAGE = 10
"""Listeners added to the found and to the expected number, so that three listeners in a small country do not win."""
COMPARED_ARTISTS = 1_000
"""Number of artists, those with the most listeners, by which the taste of countries is compared."""
SIMILAR_COUNTRIES_LISTED = 50
ARTISTS_PER_SEARCH_ROW = 32
NAME_SEPARATOR = "\x1f"
"""The control character for this purpose: nobody types it, so no search matches across two names."""


@ibis.udf.scalar.builtin
def list_cosine_similarity(one: list[float], other: list[float]) -> float:
    """Return the cosine of two vectors (DuckDB)."""


def country_totals(artists: ir.Table) -> ir.Table:
    """Return country, artists (their number), total_playcount and listings (listeners added up over all artists).

    `artists` is artist_rank_in_country.
    """
    return artists.group_by("country").agg(
        artists=artists.count(), total_playcount=artists["total_playcount"].sum(), listings=artists["listeners"].sum()
    )


def world_artists(countries: ir.Table) -> ir.Table:
    """Rank the artists of the world by plays. `countries` is country_rank_per_artist."""
    artists = countries.group_by("artist_name").agg(
        total_playcount=countries["total_playcount"].sum(),
        listeners=countries["listeners"].sum(),
        countries=countries.count(),
        top_country=countries["country"].max(where=countries["rank"] == 1),
    )
    order = ibis.window(order_by=[artists["total_playcount"].desc(), artists["artist_name"]])
    return artists.mutate(rank=1 + ibis.row_number().over(order))


def artist_search(world: ir.Table) -> ir.Table:
    """Return first_rank and names: rows of several names, which take a sixth of the time of single ones to search."""
    block = (world["rank"] - 1) // ARTISTS_PER_SEARCH_ROW
    named = world.mutate(first_rank=block * ARTISTS_PER_SEARCH_ROW + 1, name=world["artist_name"].lower())
    return named.group_by("first_rank").agg(names=named["name"].group_concat(NAME_SEPARATOR, order_by=named["rank"]))


def distinctive_artists(artists: ir.Table, world: ir.Table, totals: ir.Table) -> ir.Table:
    """Return the artists that each country listens to more than the world does, by ratio.

    `artists` is artist_rank_in_country; `world` and `totals` are `world_artists` and `country_totals`.
    """
    several = artists.filter(artists["listeners"] > 1)  # one user is not the taste of a country
    joined = several.join(world.select("artist_name", worldwide="listeners"), "artist_name").join(totals, "country")
    expected = joined["listings"] * joined["worldwide"] / totals["listings"].sum().as_scalar()
    ratios = joined.select(
        "country",
        "artist_name",
        "listeners",
        "total_playcount",
        expected_listeners=expected,
        ratio=_ratio(joined["listeners"], expected),
    )
    loved = ratios.filter(ratios["ratio"] > 1)
    order = ibis.window(group_by="country", order_by=[loved["ratio"].desc(), loved["artist_name"]])
    ranked = loved.mutate(rank=1 + ibis.row_number().over(order))
    return ranked.filter(ranked["rank"] <= LISTED)


def similar_countries(artists: ir.Table, world: ir.Table, totals: ir.Table) -> ir.Table:
    """Return for each country those of the most similar taste. The arguments are as in `distinctive_artists`.

    The similarity is the cosine of the logarithms of the ratios of `distinctive_artists`, over the artists with the
    most listeners.
    """
    most = world.order_by(world["listeners"].desc(), "artist_name").limit(COMPARED_ARTISTS)
    known = totals.filter(totals["listings"] > 0).select("country", "listings")
    grid = known.cross_join(most.select("artist_name", worldwide="listeners"))
    filled = grid.left_join(artists.select("country", "artist_name", "listeners"), ["country", "artist_name"])
    expected = filled["listings"] * filled["worldwide"] / totals["listings"].sum().as_scalar()
    values = filled.select("country", "artist_name", value=_ratio(filled["listeners"].fill_null(0), expected).log())
    vectors = values.group_by("country").agg(taste=values["value"].collect(order_by=values["artist_name"]))
    others = vectors.select(similar_country="country", other="taste")
    pairs = vectors.join(others, vectors["country"] != others["similar_country"])
    compared = pairs.select(
        "country", "similar_country", similarity=list_cosine_similarity(pairs["taste"], pairs["other"])
    )
    found = compared.filter(~compared["similarity"].isnan())
    order = ibis.window(group_by="country", order_by=[found["similarity"].desc(), found["similar_country"]])
    ranked = found.mutate(rank=1 + ibis.row_number().over(order))
    return ranked.filter(ranked["rank"] <= SIMILAR_COUNTRIES_LISTED)


def _ratio(listeners: ir.Value, expected: ir.Value) -> ir.Value:
    return (listeners + SHRINKAGE) / (expected + SHRINKAGE)


def rank_changes(now: ir.Table, before: ir.Table) -> ir.Table:
    """Return rank and previous_rank of each artist that is or was among the first ones of a country.

    Both arguments have country, artist_name and rank. The world is an empty country, and NULL in the result. `change`
    is riser, faller, new, gone or unchanged.
    """
    listed = now.filter(now["rank"] <= LISTED).select("country", "artist_name")
    was_listed = before.filter(before["rank"] <= LISTED).select("country", "artist_name")
    key = ["country", "artist_name"]
    both = listed.union(was_listed, distinct=True).left_join(now, key)
    joined = both.select("country", "artist_name", "rank").left_join(
        before.select("country", "artist_name", previous_rank="rank"), key
    )
    return joined.select(
        "artist_name",
        "rank",
        "previous_rank",
        country=joined["country"].nullif(""),
        change=ibis.cases(
            (joined["previous_rank"].isnull(), "new"),
            (joined["rank"].isnull(), "gone"),
            (joined["rank"] < joined["previous_rank"], "riser"),
            (joined["rank"] > joined["previous_rank"], "faller"),
            else_="unchanged",
        ),
    )
