"""The start page: what is in the data, the world's top artists, a map of users, and what has changed."""

from typing import Any

from fastapi import APIRouter, Request, Response

from music_assets.service import ready_made_queries as queries
from music_assets.service.explorer.reading import Rows, read_all
from music_assets.service.explorer.rendering import number, render
from music_assets.service.explorer.world_map import LEVELS, world_map
from music_assets.service.routes.deps import parts_of
from music_assets.storage.published_snapshot import NothingPublishedError, PublishedSnapshot
from music_assets.tables import CURRENT_USER_DATA, CURRENT_USER_TOP_ARTISTS, WORLD_ARTISTS, Table

TOP_ARTISTS = 25
SHOWN_CHANGES = 10
MAX_CHANGES = 1_000

router = APIRouter()


@router.get("/")
async def home(request: Request) -> Response:
    """Show the start page; before the first refresh, how to start."""
    try:
        snapshot = parts_of(request).snapshots.newest()
    except NothingPublishedError:
        return render(request, "no_data.html")
    users, artists, changes = await read_all(
        request,
        (queries.USERS_BY_COUNTRY, {}),
        (queries.TOP_ARTISTS, {"limit": TOP_ARTISTS, "offset": 0}),
        (queries.CHANGES, {"country": None, "change": None, "limit": MAX_CHANGES, "offset": 0}),
    )
    return render(
        request,
        "home.html",
        facts=_facts(snapshot, len(users)),
        published=snapshot.published_at,
        data_version=snapshot.data_version,
        artists=artists,
        largest=artists[0]["total_playcount"] if artists else 1,
        map=world_map({row["country"]: row["users"] for row in users}, number, _powers(users)),
        caption="Users",
        climbers=_largest(changes, "riser", 1),
        fallers=_largest(changes, "faller", -1),
    )


def _facts(snapshot: PublishedSnapshot, countries: int) -> list[tuple[str, int]]:
    def rows(table: Table) -> int:
        return snapshot.tables[table.full_name].rows

    return [
        ("users", rows(CURRENT_USER_DATA)),
        ("entries in their lists", rows(CURRENT_USER_TOP_ARTISTS)),
        ("artists", rows(WORLD_ARTISTS)),
        ("countries", countries),
    ]


def _powers(users: Rows) -> list[int]:
    """Return the bounds of levels that each are several times the one before: most users live in few countries."""
    largest = max((row["users"] for row in users), default=1)
    return [round(largest ** (level / LEVELS)) for level in range(LEVELS)]


def _largest(changes: Rows, kind: str, sign: int) -> list[dict[str, Any]]:
    """Return the largest changes of a kind, `by` how many ranks."""
    found = [{**row, "by": sign * (row["previous_rank"] - row["rank"])} for row in changes if row["change"] == kind]
    return sorted(found, key=lambda row: -row["by"])[:SHOWN_CHANGES]
