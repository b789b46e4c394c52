"""Weighted interactions: how much each artist counts for a user. The matrix in memory is in `embedding/`."""

import math

import ibis
import ibis.expr.types as ir

from music_assets.tables import USER_TOP_ARTISTS, Column, Table

INTERACTIONS = Table(
    name="interactions",
    folder="",
    description="Input of a training: the weight of each artist for each user.",
    columns=(
        USER_TOP_ARTISTS.column("user_id"),
        USER_TOP_ARTISTS.column("artist_name"),
        Column("weight", "int32", "round(1 + log10(playcount)); 0 without plays.", nullable=False),
    ),
    sort_by=("user_id", "artist_name"),
)
"""What `weighted_interactions` returns. It is written to scratch files only and never published."""


def weighted_interactions(top_artists: ir.Table) -> ir.Table:
    """Return `user_id`, `artist_name` and `weight`, one row per user and artist, ordered by both.

    `top_artists` has current rows with `user_id`, `artist_name` and `playcount`; an artist that a user lists twice
    counts once, with the sum of the plays. The logarithmic weight favours an artist with many plays without drowning
    the others. An unknown playcount counts as 0.
    """
    pairs = top_artists.group_by("user_id", "artist_name").aggregate(
        plays=lambda rows: rows["playcount"].fill_null(0).sum().cast("int64")
    )
    weight = ibis.ifelse(pairs["plays"] > 0, (1 + ibis.greatest(pairs["plays"], 1).cast("float64").log10()).round(), 0)
    return pairs.select("user_id", "artist_name", weight=weight.cast("int32")).order_by("user_id", "artist_name")


def weight_of(plays: int) -> int:
    """Return the weight of an artist with this number of plays, as `weighted_interactions` does."""
    return math.floor(1.5 + math.log10(plays)) if plays > 0 else 0
