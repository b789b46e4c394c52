"""Sentences: how often each of a user's artists stands in the user's sentence, for word2vec to read."""

import ibis
import ibis.expr.types as ir


def sentences(top_artists: ir.Table) -> ir.Table:
    """Return `user_id`, `artist_name` and `weight`, one row for each pair, ordered by user and artist.

    `top_artists` holds current rows: `user_id`, `artist_name`, `playcount`; an artist listed twice by a user counts
    with the sum of the plays. The weight is round(1 + log10(plays)), so that loved artists weigh more without drowning
    the others; 0 plays, or an unknown number, weigh 0.
    """
    pairs = top_artists.group_by("user_id", "artist_name").aggregate(
        plays=lambda rows: rows["playcount"].fill_null(0).sum().cast("int64")
    )
    weight = ibis.ifelse(pairs["plays"] > 0, (1 + ibis.greatest(pairs["plays"], 1).cast("float64").log10()).round(), 0)
    return pairs.select("user_id", "artist_name", weight=weight.cast("int32")).order_by("user_id", "artist_name")
