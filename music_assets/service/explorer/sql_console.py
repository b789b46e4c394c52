"""The SQL console. Its script sends the queries to `POST /query`, as every client does."""

from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from music_assets.service.explorer.named_queries import EXAMPLES, NamedQuery, read_named_queries
from music_assets.service.explorer.rendering import render
from music_assets.service.problems import ProblemError
from music_assets.service.routes.deps import parts_of
from music_assets.service.routes.tables import describe
from music_assets.service.snapshots import published_tables
from music_assets.storage.published_snapshot import NothingPublishedError

router = APIRouter()


@router.get("/sql")
async def sql_console(request: Request, name: Annotated[str, Query(max_length=200)] = "") -> Response:
    """Show the console, with the named query `name` in the editor."""
    examples, named = _examples(), parts_of(request).named_queries
    groups = [("Named queries", named), ("Examples", examples)]
    return render(
        request,
        "sql.html",
        sql=_find([*named, *examples], name).sql,
        query_groups=[(title, queries) for title, queries in groups if queries],
        tables=_tables(request),
    )


@cache
def _examples() -> list[NamedQuery]:
    return read_named_queries(EXAMPLES)


def _find(queries: list[NamedQuery], name: str) -> NamedQuery:
    for query in queries:
        if name in ("", query.name):
            return query
    raise ProblemError("not-found", f"There is no named query {name!r}.")


def _tables(request: Request) -> list[dict[str, Any]]:
    try:
        snapshot = parts_of(request).snapshots.newest()
    except NothingPublishedError:
        return []
    return [describe(table, snapshot) for table in published_tables(snapshot)]
