"""The rankings: countries and artists, in pages."""

from difflib import get_close_matches
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from music_assets.service import ready_made_queries as queries
from music_assets.service.problems import ProblemError
from music_assets.service.routes.deps import RESULTS, Format, Limit, Offset, parts_of, respond_page

MAX_COUNTRIES = 1_000

router = APIRouter(default_response_class=Response, responses=RESULTS, tags=["Rankings"])


@router.get("/countries")
async def countries(request: Request, limit: Limit = 100, offset: Offset = 0, result_format: Format = None) -> Response:
    """List the countries with their number of artists and plays."""
    return await respond_page(request, result_format, limit, offset, queries.COUNTRIES)


@router.get("/countries/{country:path}/artists")
async def artists_of_country(
    request: Request, country: str, limit: Limit = 100, offset: Offset = 0, result_format: Format = None
) -> Response:
    """List the artists of a country, most played first. The name must match exactly."""
    response = await respond_page(request, result_format, limit, offset, queries.ARTISTS_OF_COUNTRY, country=country)
    if response.headers.get("x-row-count") == "0":
        await check_country(request, country)
    return response


async def check_country(request: Request, country: str) -> None:
    """Raise ProblemError, with similar names, if no ranking has the country."""
    rows = await parts_of(request).responder.sample(request, queries.COUNTRY_NAMES, MAX_COUNTRIES)
    names = [name for (name,) in rows]
    if country in names:
        return
    same = [name for name in names if name.casefold() == country.strip().casefold()]
    lowered = {name.casefold(): name for name in names}
    similar = [lowered[name] for name in get_close_matches(country.casefold(), lowered)]
    suggestions = same or similar
    hint = f"Did you mean {' or '.join(map(repr, suggestions))}?" if suggestions else "GET /countries lists the names."
    raise ProblemError("not-found", f"No ranking has the country {country!r}. {hint}", suggestions=suggestions or None)


@router.get("/artists/{artist:path}/countries")
async def countries_of_artist(
    request: Request,
    artist: str,
    limit: Limit = 100,
    offset: Offset = 0,
    min_listeners: Annotated[
        int, Query(ge=1, le=2**31, description="Only countries where at least this many users listen to the artist.")
    ] = 1,
    result_format: Format = None,
) -> Response:
    """List the countries of an artist, where the artist is most popular first."""
    params = {"artist": artist, "min_listeners": min_listeners}
    return await respond_page(request, result_format, limit, offset, queries.COUNTRIES_OF_ARTIST, **params)


@router.get("/artists")
async def artists(
    request: Request,
    search: Annotated[str, Query(min_length=1, max_length=200, description="Part of the name, case-insensitive.")],
    limit: Limit = 100,
    offset: Offset = 0,
    result_format: Format = None,
) -> Response:
    """Find artists by part of their name, with the country where each is most popular."""
    return await respond_page(request, result_format, limit, offset, queries.ARTISTS, search=search)
