"""The start page: what is in the data."""

from fastapi import APIRouter, Request, Response

from music_assets.service import ready_made_queries as queries
from music_assets.service.explorer.reading import read
from music_assets.service.explorer.rendering import country_url, number, render
from music_assets.service.explorer.world_map import world_map

router = APIRouter()


@router.get("/")
async def home(request: Request) -> Response:
    """Show the start page."""
    countries = await read(request, queries.COUNTRIES, limit=1000, offset=0)
    values = {row["country"]: row["total_playcount"] for row in countries}
    return render(
        request,
        "home.html",
        countries=countries,
        map=world_map(values, number),
        map_link=country_url,
        caption="Plays",
    )
