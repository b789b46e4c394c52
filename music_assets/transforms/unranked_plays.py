"""Users and plays that no ranking counts, because the user or the user's country is unknown."""

import ibis
import ibis.expr.types as ir


def unranked_plays(users: ir.Table, top_artists: ir.Table) -> ir.Table:
    """Return one row that counts the users with a current list of artists, and their plays.

    `users` and `top_artists` are current rows. The columns are `users` and `plays` of all lists, `no_user` and
    `no_user_plays` of users that are not in `users`, `no_country` and `no_country_plays` of the others without country.
    """
    lists = top_artists.group_by("user_id").agg(plays=top_artists["playcount"].cast("float64").sum().fill_null(0))
    known = users.select("user_id", "country", known=ibis.literal(True))
    joined = lists.left_join(known, "user_id")
    no_user = joined["known"].isnull()
    no_country = joined["known"].notnull() & joined["country"].isnull()
    plays = joined["plays"]
    return joined.agg(
        users=joined.count(),
        plays=plays.sum().fill_null(0),
        no_user=no_user.sum().fill_null(0),
        no_user_plays=plays.sum(where=no_user).fill_null(0),
        no_country=no_country.sum().fill_null(0),
        no_country_plays=plays.sum(where=no_country).fill_null(0),
    )
