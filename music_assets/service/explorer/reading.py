"""What the pages share: parameters of their addresses, and reading rows of ready-made queries."""

import asyncio
from typing import Annotated, Any

from fastapi import Query, Request

from music_assets.service.routes.deps import MAX_NAME_CHARACTERS, parts_of

Rows = list[dict[str, Any]]

Name = Annotated[str, Query(min_length=1, max_length=MAX_NAME_CHARACTERS)]
Search = Annotated[str, Query(max_length=200)]
Page = Annotated[int, Query(ge=1, le=1_000_000)]


async def read(request: Request, sql: str, **parameters: Any) -> Rows:
    """Return the rows of a query, through the same pool, limits and gate as the API. Raises ProblemError."""
    return await parts_of(request).responder.rows(request, sql, parameters)


async def read_all(request: Request, *queries: tuple[str, dict[str, Any]]) -> list[Rows]:
    """Return the rows of several queries, each given with its parameters, that run side by side."""
    await request.body()  # each query waits for a disconnect, which comes after the body
    return await asyncio.gather(*(read(request, sql, **parameters) for sql, parameters in queries))


async def artists_by_name(request: Request, text: str, limit: int) -> Rows:
    """Return the artists with a text in the name, by rank; none for no text. Raises ProblemError."""
    if not text:
        return []
    found: Rows = (await parts_of(request).artist_search.find(text, limit)).rows.to_pylist()
    return found
