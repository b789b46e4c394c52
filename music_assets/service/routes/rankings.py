"""The rankings: countries and artists, in pages."""

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from music_assets.service import ready_made_queries as queries
from music_assets.service.problems import ProblemError
from music_assets.service.routes.deps import (
    RESULTS,
    ArtistName,
    Format,
    Limit,
    Offset,
    link_next_page,
    parts_of,
    respond_page,
)

MAX_COUNTRIES = 1_000
MinListeners = Annotated[
    int, Query(ge=1, le=2**31, description="Only countries where at least this many users listen to the artist.")
]

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
    return await _respond_for_country(request, result_format, limit, offset, queries.ARTISTS_OF_COUNTRY, country)


@router.get("/countries/{country:path}/distinctive")
async def distinctive_artists(
    request: Request, country: str, limit: Limit = 100, offset: Offset = 0, result_format: Format = None
) -> Response:
    """List the artists that a country listens to more than the world does."""
    return await _respond_for_country(request, result_format, limit, offset, queries.DISTINCTIVE_ARTISTS, country)


@router.get("/countries/{country:path}/similar")
async def similar_countries(
    request: Request, country: str, limit: Limit = 100, offset: Offset = 0, result_format: Format = None
) -> Response:
    """List the countries of the most similar taste."""
    return await _respond_for_country(request, result_format, limit, offset, queries.SIMILAR_COUNTRIES, country)


Change = Annotated[
    Literal["riser", "faller", "new", "gone", "unchanged"] | None, Query(description="Only changes of this kind.")
]


@router.get("/countries/{country:path}/changes")
async def changes_of_country(
    request: Request,
    country: str,
    change: Change = None,
    limit: Limit = 1_000,
    offset: Offset = 0,
    result_format: Format = None,
) -> Response:
    """Compare the ranks of the first artists of a country with the previous published ranking."""
    sql = queries.CHANGES
    return await _respond_for_country(request, result_format, limit, offset, sql, country, change=change)


@router.get("/changes")
async def changes(
    request: Request, change: Change = None, limit: Limit = 1_000, offset: Offset = 0, result_format: Format = None
) -> Response:
    """Compare the ranks of the first artists of the world with the previous published ranking."""
    params = {"country": None, "change": change}
    return await respond_page(request, result_format, limit, offset, queries.CHANGES, **params)


async def _respond_for_country(
    request: Request, result_format: str | None, limit: int, offset: int, sql: str, country: str, **params: Any
) -> Response:
    """Run a query with `$country`. Raises ProblemError, with similar names, if no ranking has the country."""
    response = await respond_page(request, result_format, limit, offset, sql, country=country, **params)
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


@router.get("/artists/countries")
async def countries_of_named_artist(
    request: Request,
    artist: ArtistName,
    limit: Limit = 100,
    offset: Offset = 0,
    min_listeners: MinListeners = 1,
    result_format: Format = None,
) -> Response:
    """List the countries of an artist whose name cannot be part of a path, such as `..` or one with a slash."""
    return await countries_of_artist(request, artist, limit, offset, min_listeners, result_format)


@router.get("/artists/{artist:path}/countries")
async def countries_of_artist(
    request: Request,
    artist: str,
    limit: Limit = 100,
    offset: Offset = 0,
    min_listeners: MinListeners = 1,
    result_format: Format = None,
) -> Response:
    """List the countries of an artist, where the artist is most popular first."""
    parts = parts_of(request)
    found = parts.artist_countries.find(artist, min_listeners, limit + 1, offset)
    if found is None:
        params = {"artist": artist, "min_listeners": min_listeners}
        return await respond_page(request, result_format, limit, offset, queries.COUNTRIES_OF_ARTIST, **params)
    response = await parts.responder.respond_found(request, result_format, found, limit)
    return link_next_page(request, response, limit, offset)


@router.get("/artists")
async def artists(
    request: Request,
    search: Annotated[
        str | None, Query(min_length=1, max_length=200, description="Part of the name, case-insensitive.")
    ] = None,
    limit: Limit = 100,
    offset: Offset = 0,
    result_format: Format = None,
) -> Response:
    """List the artists of the world, most played first, all or those with a part in the name."""
    if search is None:
        return await respond_page(request, result_format, limit, offset, queries.TOP_ARTISTS)
    parts = parts_of(request)
    found = await parts.artist_search.find(search, limit + 1, offset)
    response = await parts.responder.respond_found(request, result_format, found, limit)
    return link_next_page(request, response, limit, offset)
