"""The rankings: countries and artists, in pages."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from music_assets.service import ready_made_queries as queries
from music_assets.service.routes.deps import RESULTS, PageDep

router = APIRouter(default_response_class=Response, responses=RESULTS, tags=["Rankings"])


@router.get("/countries")
async def countries(page: PageDep) -> Response:
    """List the countries with their number of artists and plays."""
    return await page.respond(queries.COUNTRIES)


@router.get("/countries/{country:path}/artists")
async def artists_of_country(page: PageDep, country: str) -> Response:
    """List the artists of a country, most played first."""
    return await page.respond(queries.ARTISTS_OF_COUNTRY, country=country)


@router.get("/artists/{artist:path}/countries")
async def countries_of_artist(
    page: PageDep,
    artist: str,
    min_listeners: Annotated[
        int | None,
        Query(
            ge=1,
            le=2**31,
            description="Only countries with at least this many listeners: current users of the country who have the "
            "artist among their current top artists. Counting takes seconds on millions of rows.",
        ),
    ] = None,
) -> Response:
    """List the countries of an artist, where the artist is most popular first."""
    if min_listeners is None:
        return await page.respond(queries.COUNTRIES_OF_ARTIST, artist=artist)
    return await page.respond(queries.COUNTRIES_OF_ARTIST_BY_LISTENERS, artist=artist, min_listeners=min_listeners)


@router.get("/artists")
async def artists(
    page: PageDep,
    search: Annotated[str, Query(min_length=1, max_length=200, description="Part of the name, case-insensitive.")],
) -> Response:
    """Find artists by part of their name, with the country where each is most popular."""
    return await page.respond(queries.ARTISTS, search=search)
