"""What endpoints share: the parts of the service, the result format, pages, and the OpenAPI schema of responses."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict

from music_assets.service.artist_countries import ArtistCountries
from music_assets.service.artist_search import ArtistSearch
from music_assets.service.auth import AccessControl
from music_assets.service.explorer.named_queries import NamedQuery
from music_assets.service.formats import MEDIA_TYPES
from music_assets.service.metrics import Metrics
from music_assets.service.problems import KINDS, MEDIA_TYPE
from music_assets.service.readiness import Readiness
from music_assets.service.refreshes import Refreshes
from music_assets.service.responses import QueryResponder
from music_assets.service.sandbox.pool import Pool
from music_assets.service.similarity import Similarity
from music_assets.service.snapshots import Snapshots
from music_assets.service.training_runs import TrainingRuns


@dataclass(frozen=True)
class Parts:
    """The parts of one service, in `app.state.parts`."""

    pool: Pool
    snapshots: Snapshots
    responder: QueryResponder
    similarity: Similarity
    artist_countries: ArtistCountries
    artist_search: ArtistSearch
    training_runs: TrainingRuns
    refreshes: Refreshes
    metrics: Metrics
    access: AccessControl
    named_queries: list[NamedQuery]
    readiness: Readiness


def parts_of(request: Request) -> Parts:
    """Return the parts of the service. Not a FastAPI dependency, because each costs 2 % of a cached query."""
    parts: Parts = request.app.state.parts
    return parts


Format = Annotated[
    Literal["json", "ndjson", "csv", "arrow", "parquet"] | None,
    Query(
        alias="format",
        description="Result format. Default: by the Accept header, else JSON. With `csv=spreadsheet`, CSV in which "
        "text that a spreadsheet would take for a formula starts with an apostrophe.",
    ),
]


MAX_NAME_CHARACTERS = 10_000
ArtistName = Annotated[
    str, Query(max_length=MAX_NAME_CHARACTERS, description="The artist, spelled as in the rankings.")
]
Limit = Annotated[int, Query(ge=1, le=10_000, description="Rows per page.")]
Offset = Annotated[int, Query(ge=0, le=10**9, description="Rows before the page.")]


async def respond_page(
    request: Request, result_format: str | None, limit: int, offset: int, sql: str, **params: Any
) -> Response:
    """Run a query with `$limit` and `$offset`. The `Link` header names the next page, if there is one."""
    # One row more than the page: the result is truncated if there is a next page.
    bounds = {"limit": limit + 1, "offset": offset, **params}
    response = await parts_of(request).responder.respond(request, result_format, sql, bounds, limit)
    return link_next_page(request, response, limit, offset)


def link_next_page(request: Request, response: Response, limit: int, offset: int) -> Response:
    """Return the response to a request for a page; its `Link` header names the next page if the result is truncated."""
    if response.headers.get("x-truncated") == "true":
        rows = int(response.headers["x-row-count"])  # fewer than `limit` if the service's own limit is lower
        kept = [(name, value) for name, value in request.query_params.multi_items() if name not in ("offset", "limit")]
        following = urlencode([*kept, ("offset", offset + rows), ("limit", limit)], errors="replace")
        path = quote(request.scope["raw_path"], safe="/%")  # as sent: a client would resolve a decoded `..`
        response.headers["Link"] = f'<{path}?{following}>; rel="next"'
    return response


class ResultBody(BaseModel):
    """A query result in JSON: rows as arrays, in the order of the columns."""

    columns: list[dict[str, str]]
    rows: list[list[Any]]
    row_count: int
    truncated: bool
    query_id: str
    elapsed_ms: float
    data_version: str


class Problem(BaseModel):
    """An error response (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    advice: str
    request_id: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": "; ".join(kind.title for kind in KINDS.values() if kind.status == status),
        "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
    }
    for status in sorted({kind.status for kind in KINDS.values()} - {500})
}
"""The error responses of an endpoint, for the OpenAPI document."""
RESULTS: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    200: {
        "model": ResultBody,
        "description": "The rows, in the requested format.",
        "content": {
            media_type.partition(";")[0]: {"schema": {"type": "string"}}
            for name, media_type in MEDIA_TYPES.items()
            if name != "json"
        },
    },
    304: {"description": "The client's copy (If-None-Match) is current."},
}
"""The responses of an endpoint that returns query results, for the OpenAPI document."""
