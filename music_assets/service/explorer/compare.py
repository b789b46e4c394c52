"""The page that compares two countries, or two artists."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from music_assets.service import ready_made_queries as queries
from music_assets.service.explorer.artist import countries_of_artists
from music_assets.service.explorer.reading import Search, artists_by_name, read, read_all
from music_assets.service.explorer.rendering import percent, render
from music_assets.service.explorer.world_map import world_map
from music_assets.service.routes.deps import MAX_NAME_CHARACTERS
from music_assets.service.routes.rankings import check_country

SHOWN_ARTISTS = 100
COMPLETIONS = 10
MIN_LISTENERS = 3
"""Countries with fewer listeners of both artists are left out: their shares mean little."""

Kind = Literal["countries", "artists"]
Side = Annotated[str, Query(max_length=MAX_NAME_CHARACTERS)]

router = APIRouter()


@router.get("/explore/compare")
async def compare(request: Request, kind: Kind = "countries", first: Side = "", second: Side = "") -> Response:
    """Compare `first` and `second`, or ask for them."""
    sides: dict[str, Any] = {"kind": kind, "first": first.strip(), "second": second.strip()}
    names = await read(request, queries.COUNTRY_NAMES) if kind == "countries" else []
    found: dict[str, Any] = {}
    if sides["first"] and sides["second"]:
        found = await (_countries if kind == "countries" else _artists)(request, sides["first"], sides["second"])
    return render(request, "compare.html", **sides, names=[row["country"] for row in names], found=found)


@router.get("/explore/compare/artists")
async def artist_names(request: Request, first: Search = "", second: Search = "") -> Response:
    """Return artists that complete what is being typed, as options. It is a part of the page."""
    typed = (first or second).strip()
    found = await artists_by_name(request, typed, COMPLETIONS)
    return render(request, "parts/options.html", names=[row["artist_name"] for row in found])


async def _countries(request: Request, first: str, second: str) -> dict[str, Any]:
    for name in (first, second):
        await check_country(request, name)
    sides = {"first": first, "second": second}
    rows, overlap = await read_all(
        request,
        (queries.COMPARE_COUNTRIES, {**sides, "limit": SHOWN_ARTISTS}),
        (queries.OVERLAP_OF_COUNTRIES, sides),
    )
    largest = max((max(row["first_share"], row["second_share"]) for row in rows), default=0) or 1
    return {"rows": rows, "overlap": overlap[0]["overlap"], "largest": largest}


async def _artists(request: Request, first: str, second: str) -> dict[str, Any]:
    both = await countries_of_artists(request, first, second)
    left, right = ({row["country"]: row for row in rows} for rows in both)
    names = [
        name
        for name in left.keys() | right.keys()
        if max(side[name]["listeners"] for side in (left, right) if name in side) >= MIN_LISTENERS
    ]
    rows = [{"country": name, "first_share": _share(left, name), "second_share": _share(right, name)} for name in names]
    rows.sort(key=lambda row: (-max(row["first_share"], row["second_share"]), row["country"]))
    shares = [share for row in rows for share in (row["first_share"], row["second_share"]) if share]
    maps = {
        side: world_map({row["country"]: row[column] for row in rows if row[column]}, percent, shares)
        for side, column in (("first", "first_share"), ("second", "second_share"))
    }
    return {"rows": rows, "maps": maps, "largest": max(shares, default=1)}


def _share(side: dict[str, dict[str, Any]], name: str) -> float:
    return side[name]["normalized_popularity"] if name in side else 0.0
