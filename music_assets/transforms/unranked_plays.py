"""Users and plays that no ranking counts, because the user or the user's country is unknown."""

from collections.abc import Mapping

import ibis

from music_assets.transforms.current_rows import CurrentRows

Counts = Mapping[str, float]
"""Counts of users with a list, and of their plays: `users` and `plays` of all; `no_user` and `no_user_plays` of those
that are not in `user_data`; `no_country` and `no_country_plays` of the others without country."""


def unranked_plays(current: CurrentRows) -> Counts:
    """Count the users with a list, and their plays."""
    lists = current.top_artists.group_by("user_id").agg(
        plays=lambda rows: rows["playcount"].cast("float64").sum().fill_null(0)
    )
    known = current.users.select("user_id", "country", known=ibis.literal(True))
    joined = lists.left_join(known, "user_id")
    no_user = joined["known"].isnull()
    no_country = joined["known"].notnull() & joined["country"].isnull()
    plays = joined["plays"]
    counted = joined.agg(
        users=joined.count(),
        plays=plays.sum().fill_null(0),
        no_user=no_user.sum().fill_null(0),
        no_user_plays=plays.sum(where=no_user).fill_null(0),
        no_country=no_country.sum().fill_null(0),
        no_country_plays=plays.sum(where=no_country).fill_null(0),
    )
    (counts,) = counted.to_pyarrow().to_pylist()
    return counts


def updated_unranked_plays(previous: Counts, before: CurrentRows, now: CurrentRows) -> Counts:
    """Return the previous counts with those of some users, given by their rows before and now, replaced."""
    subtracted, added = unranked_plays(before), unranked_plays(now)
    return {name: count - subtracted[name] + added[name] for name, count in previous.items()}
