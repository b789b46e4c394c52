"""Error responses: every one is `application/problem+json` (RFC 9457) of one of the kinds declared here."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

from music_assets.tables import REFRESH_RANKINGS

MEDIA_TYPE = "application/problem+json"


class Kind(NamedTuple):
    """A kind of problem."""

    status: int
    title: str
    advice: str


KINDS = {
    "bad-request": Kind(400, "Invalid request", "See /docs for what the endpoint accepts."),
    "syntax": Kind(400, "SQL syntax error", "Correct the SQL at the reported position."),
    "sql": Kind(400, "SQL error", "Correct the SQL. GET /tables lists tables and columns."),
    "unknown-table": Kind(400, "Unknown table", "GET /tables lists the tables."),
    "unauthorized": Kind(401, "API key required", "Send the header 'Authorization: Bearer <key>'."),
    "not-allowed": Kind(403, "SQL not allowed", "Send one SELECT on the tables that GET /tables lists."),
    "wrong-host": Kind(403, "Host not allowed", "Use http://localhost on the machine itself, or configure API keys."),
    "other-site": Kind(403, "Cross-site request", "Send the request from a program or the command line."),
    "scope": Kind(403, "Scope missing", "Use another API key, or ask the operator for this scope."),
    "not-found": Kind(404, "Not found", "/docs lists the endpoints."),
    "method-not-allowed": Kind(405, "Method not allowed", "Use a method of the Allow header."),
    "not-acceptable": Kind(406, "Format not supported", "Request json, ndjson, csv, arrow or parquet."),
    "slow-request": Kind(408, "Request incomplete", "Send the whole request at once."),
    "timeout": Kind(408, "Query timed out", "Simplify the query, or raise timeout_ms up to the service's limit."),
    "not-trained": Kind(
        409, "No embeddings", "Start a training with POST /embedding-runs. It takes minutes; then repeat the request."
    ),
    "body-too-large": Kind(413, "Request body too large", "Send a smaller body."),
    "not-json": Kind(415, "Request body is not JSON", "Send JSON with the header 'Content-Type: application/json'."),
    "invalid": Kind(422, "Invalid values", "Correct the values listed under errors."),
    "out-of-memory": Kind(422, "Query out of memory", "Aggregate earlier, or select fewer rows and columns."),
    "result-too-large": Kind(
        422, "Result too large", "Request it in pages: ORDER BY a key and filter by the last one."
    ),
    "query-failed": Kind(422, "Query failed", "Simplify the query."),
    "head-too-large": Kind(431, "Request head too large", "Send fewer and shorter headers, and a shorter URL."),
    "rate-limited": Kind(429, "Too many requests", "Wait for the seconds in Retry-After."),
    "internal": Kind(500, "Internal error", "Report the request id to the operator."),
    "busy": Kind(503, "Service busy", "Retry after the seconds in Retry-After."),
    "nothing-published": Kind(503, "No data yet", f"Drop both CSV files, run the job {REFRESH_RANKINGS}, and retry."),
    "unreadable": Kind(503, "Data cannot be read", "Report the request id to the operator."),
    "no-dagster": Kind(
        503, "Dagster not available", "Start it with music-assets up, or correct MUSIC_ASSETS_DAGSTER_URL, then retry."
    ),
}


class ProblemError(HTTPException):
    """A request cannot be answered: the kind of problem, what happened, and further members of the error response."""

    def __init__(self, kind: str, detail: str, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(KINDS[kind].status, detail, headers)
        self.kind = kind
        self.members = {name: value for name, value in members.items() if value is not None}

    def response(self, request_id: str) -> Response:
        """Return the error response."""
        kind = KINDS[self.kind]
        content = {
            "type": f"urn:music-assets:problem:{self.kind}",
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail,
            "advice": kind.advice,
            "request_id": request_id,
            **self.members,
        }
        headers = {"Cache-Control": "no-store", **(self.headers or {})}
        return Response(orjson.dumps(content), kind.status, headers, media_type=MEDIA_TYPE)


@contextmanager
def legacy_errors() -> Iterator[None]:
    """Add the member `error`, as clients of the old system expect it, to the problems raised inside."""
    try:
        yield
    except ProblemError as problem:
        problem.members["error"] = problem.detail
        raise
