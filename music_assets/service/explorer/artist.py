"""The page of an artist: countries on a map and as a table, and similar artists."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from music_assets.service import ready_made_queries as queries
from music_assets.service.explorer.reading import Name, Rows, read_all
from music_assets.service.explorer.rendering import percent, render
from music_assets.service.explorer.world_map import world_map
from music_assets.service.problems import ProblemError
from music_assets.service.routes.deps import parts_of

MAX_COUNTRIES = 1_000
MIN_LISTENERS = (1, 3, 10, 30, 100, 300, 1000)
ENOUGH_COUNTRIES = 15
"""Countries that the default of the filter leaves, if the artist has that many."""
SIMILAR_ARTISTS = 12

router = APIRouter()


@router.get("/explore/artist")
async def artist(
    request: Request, name: Name, min_listeners: Annotated[int | None, Query(ge=1, le=2**31)] = None
) -> Response:
    """Show the countries of an artist, where the artist is most popular first."""
    (countries,) = await countries_of_artists(request, name)
    least = min_listeners or _default_min_listeners(countries)
    rows = [row for row in countries if row["listeners"] >= least]
    values = {row["country"]: row["normalized_popularity"] for row in rows}
    return render(
        request,
        "artist.html",
        "parts/artist_countries.html",
        name=name,
        total_countries=len(countries),
        total_plays=sum(row["total_playcount"] for row in countries),
        rows=rows,
        largest=max(values.values(), default=0) or 1,
        left_out=len(countries) - len(rows),
        min_listeners=least,
        choices=sorted({*MIN_LISTENERS, least}),
        map=world_map(values, percent),
        caption=f"Popularity of {name}",
    )


@router.get("/explore/artist/similar")
async def similar_artists(request: Request, name: Name) -> Response:
    """Show the similar artists, or how to train the embeddings. It is a part of the page of the artist."""
    try:
        found = await parts_of(request).similarity.similar_artists(name, SIMILAR_ARTISTS)
    except ProblemError as problem:
        if problem.kind != "not-trained":
            raise
        return render(request, "parts/not_trained.html", what="similar")
    return render(request, "parts/similar_artists.html", rows=found.rows.to_pylist())


async def countries_of_artists(request: Request, *names: str) -> list[Rows]:
    """Return all countries of each artist with their listeners. Raises ProblemError if an artist has none."""
    bounds = {"limit": MAX_COUNTRIES, "offset": 0, "min_listeners": 1}
    found = await read_all(request, *((queries.COUNTRIES_OF_ARTIST, {"artist": name, **bounds}) for name in names))
    for name, countries in zip(names, found, strict=True):
        if not countries:
            raise ProblemError("not-found", f"No ranking has the artist {name!r}. Names must match exactly.")
    return found


def _default_min_listeners(countries: Rows) -> int:
    """Return 10, or less for an artist with few listeners: a share of a country's plays means little for two users."""
    for least in (10, 3):
        if sum(row["listeners"] >= least for row in countries) >= ENOUGH_COUNTRIES:
            return least
    return 1
