"""The page of a country: its artists, what it loves more than the world, similar countries. And a list of all."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from music_assets.service import ready_made_queries as queries
from music_assets.service.explorer.reading import Name, Page, Rows, Search, read_all
from music_assets.service.explorer.rendering import is_from_htmx, page_url, render
from music_assets.service.routes.rankings import check_country

ROWS_PER_PAGE = 50
DISTINCTIVE_ARTISTS = 12
SIMILAR_COUNTRIES = 12
MAX_COUNTRIES = 1_000
MAX_CHANGES = 1_000

router = APIRouter()


@router.get("/explore/country")
async def country(request: Request, name: Name, search: Search = "", page: Page = 1) -> Response:
    """Show the artists of a country, one page of them, with `search` in the name."""
    of_country = {"country": name, "offset": 0}
    bounds = {"country": name, "limit": ROWS_PER_PAGE + 1, "offset": (page - 1) * ROWS_PER_PAGE}
    ranking = queries.ARTISTS_OF_COUNTRY_BY_NAME if search else queries.ARTISTS_OF_COUNTRY
    summary, rows, changes, *others = await read_all(
        request,
        (queries.COUNTRY_SUMMARY, {"country": name}),
        (ranking, {**bounds, "search": search} if search else bounds),
        (queries.CHANGES, {**of_country, "change": None, "limit": MAX_CHANGES}),
        *([] if is_from_htmx(request) else _others(name)),
    )
    if not summary[0]["artists"]:
        await check_country(request, name)
    return render(
        request,
        "country.html",
        "parts/country_ranking.html",
        name=name,
        **summary[0],
        search=search,
        rows=rows[:ROWS_PER_PAGE],
        changes=_previous_ranks(changes),
        page=page,
        has_more=len(rows) > ROWS_PER_PAGE,
        page_address=partial(_address, name, search),
        distinctive=others[0] if others else [],
        similar=others[1] if others else [],
    )


@router.get("/explore/countries")
async def countries(request: Request) -> Response:
    """Show all countries, those with the most users first."""
    users, totals = await read_all(
        request, (queries.USERS_BY_COUNTRY, {}), (queries.COUNTRIES, {"limit": MAX_COUNTRIES, "offset": 0})
    )
    counts = {row["country"]: row["users"] for row in users}
    rows = [{**row, "users": counts.get(row["country"], 0)} for row in totals]
    rows.sort(key=lambda row: -row["users"])
    return render(request, "countries.html", rows=rows, largest=max(counts.values(), default=1))


def _others(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the queries of what stays when the ranking is filtered."""
    return [
        (queries.DISTINCTIVE_ARTISTS, {"country": name, "offset": 0, "limit": DISTINCTIVE_ARTISTS}),
        (queries.SIMILAR_COUNTRIES, {"country": name, "offset": 0, "limit": SIMILAR_COUNTRIES}),
    ]


def _previous_ranks(changes: Rows) -> dict[str, int | None]:
    """Return the previous rank of each artist that has changed; None if the artist is new."""
    kinds = ("riser", "faller", "new")
    return {row["artist_name"]: row["previous_rank"] for row in changes if row["change"] in kinds}


def _address(name: str, search: str, page: int) -> str:
    return page_url("/explore/country", name=name, search=search, page=page if page > 1 else None)
