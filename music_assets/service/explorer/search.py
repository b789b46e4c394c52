"""The search for artists and countries: completions while typing, and a page of results."""

from fastapi import APIRouter, Request, Response

from music_assets.service import ready_made_queries as queries
from music_assets.service.explorer.reading import Rows, Search, read_all
from music_assets.service.explorer.rendering import is_from_htmx, render
from music_assets.service.routes.deps import artists_by_name

COMPLETIONS = 8
RESULTS = 100

router = APIRouter()


@router.get("/explore/search")
async def search(request: Request, query: Search = "") -> Response:
    """Show the artists and countries with `query` in the name."""
    query = query.strip()
    limit = COMPLETIONS if is_from_htmx(request) else RESULTS
    countries, artists = await _search(request, query, limit) if query else ([], [])
    return render(
        request,
        "search.html",
        "parts/suggestions.html",
        query=query,
        countries=[row["country"] for row in countries],
        artists=artists,
    )


async def _search(request: Request, query: str, limit: int) -> list[Rows]:
    """Return the countries and the artists with `query` in the name."""
    countries = (queries.COUNTRIES_BY_NAME, {"search": query, "limit": limit})
    return await read_all(request, countries, await artists_by_name(request, query, limit))
