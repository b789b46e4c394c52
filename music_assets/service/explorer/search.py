"""The search for artists and countries: completions while typing, and a page of results."""

from fastapi import APIRouter, Request, Response

from music_assets.service import ready_made_queries as queries
from music_assets.service.explorer.reading import Search, artists_by_name, read
from music_assets.service.explorer.rendering import is_from_htmx, render

COMPLETIONS = 8
RESULTS = 100

router = APIRouter()


@router.get("/explore/search")
async def search(request: Request, query: Search = "") -> Response:
    """Show the artists and countries with `query` in the name."""
    query = query.strip()
    limit = COMPLETIONS if is_from_htmx(request) else RESULTS
    bounds = {"search": query, "limit": limit}
    countries = await read(request, queries.COUNTRIES_BY_NAME, **bounds) if query else []
    return render(
        request,
        "search.html",
        "parts/suggestions.html",
        query=query,
        countries=[row["country"] for row in countries],
        artists=await artists_by_name(request, query, limit),
    )
