"""The page of a country: its artists."""

from functools import partial

from fastapi import APIRouter, Request, Response

from music_assets.service import ready_made_queries as queries
from music_assets.service.explorer.reading import Name, Page, Search, read, read_page
from music_assets.service.explorer.rendering import page_url, render
from music_assets.service.routes.rankings import check_country

ROWS_PER_PAGE = 50

router = APIRouter()


@router.get("/explore/country")
async def country(request: Request, name: Name, search: Search = "", page: Page = 1) -> Response:
    """Show the artists of a country, one page of them, with `search` in the name."""
    (summary,) = await read(request, queries.COUNTRY_SUMMARY, country=name)
    if not summary["artists"]:
        await check_country(request, name)
    sql = queries.ARTISTS_OF_COUNTRY_BY_NAME if search else queries.ARTISTS_OF_COUNTRY
    parameters = {"search": search} if search else {}
    rows, has_more = await read_page(request, sql, page, ROWS_PER_PAGE, country=name, **parameters)
    return render(
        request,
        "country.html",
        "parts/country_ranking.html",
        name=name,
        **summary,
        search=search,
        rows=rows,
        page=page,
        has_more=has_more,
        page_address=partial(_address, name, search),
    )


def _address(name: str, search: str, page: int) -> str:
    return page_url("/explore/country", name=name, search=search, page=page if page > 1 else None)
