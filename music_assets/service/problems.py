"""What a caller is told when something is wrong: one shape everywhere, `application/problem+json` (RFC 9457)."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from music_assets.tables import REFRESH_RANKINGS

MEDIA_TYPE = "application/problem+json"
KINDS = {
    "bad-request": (400, "The request cannot be understood"),
    "syntax": (400, "The SQL cannot be parsed"),
    "sql": (400, "The SQL cannot be run"),
    "unknown-table": (400, "There is no such table"),
    "unauthorized": (401, "An API key is needed"),
    "not-allowed": (403, "The SQL does something that is not allowed here"),
    "wrong-host": (403, "The request names a host that is not served"),
    "other-site": (403, "The request comes from a page of another site"),
    "not-found": (404, "There is nothing here"),
    "method-not-allowed": (405, "The method does not fit this address"),
    "not-acceptable": (406, "The answer does not come in that format"),
    "timeout": (408, "The time for the query is over"),
    "not-trained": (409, "There are no embeddings yet"),
    "body-too-large": (413, "The body is too large"),
    "not-json": (415, "The body is not JSON"),
    "invalid": (422, "The request holds values that do not fit"),
    "out-of-memory": (422, "The query needs too much memory"),
    "result-too-large": (422, "The answer is too large"),
    "query-failed": (422, "The query broke its limits"),
    "rate-limited": (429, "Too many requests"),
    "internal": (500, "The service failed"),
    "busy": (503, "The service is busy"),
    "nothing-published": (503, "There is no data yet"),
    "no-dagster": (503, "The training cannot be started or looked at now"),
}
"""Each kind of problem: its HTTP status and its title."""

ADVICE = {
    "bad-request": "Mend the request; /docs shows what it takes.",
    "syntax": "Mend the SQL at the position told.",
    "sql": "Mend the SQL; GET /tables lists tables and columns.",
    "unknown-table": "GET /tables lists the tables.",
    "unauthorized": "Send the header 'Authorization: Bearer <key>'.",
    "not-allowed": "Send one SELECT over the tables that GET /tables lists.",
    "wrong-host": "Without API keys only this machine is served: ask for localhost.",
    "other-site": "Send it from a program, or from the command line.",
    "not-found": "/docs lists the addresses.",
    "method-not-allowed": "Use a method of the Allow header.",
    "not-acceptable": "Ask for json, ndjson, csv, arrow or parquet by Accept or ?format=.",
    "not-trained": "POST /embedding-runs trains them, which takes minutes; then ask again.",
    "timeout": "Make the query cheaper or, up to the service's limit, raise timeout_ms.",
    "body-too-large": "Send less.",
    "not-json": "Send JSON with the header 'Content-Type: application/json'.",
    "invalid": "Mend the values listed under errors.",
    "out-of-memory": "Aggregate earlier, or select fewer rows and columns.",
    "result-too-large": "Page: order by a key and ask for the rows after the last one you have.",
    "query-failed": "Make the query cheaper.",
    "rate-limited": "Wait as long as Retry-After says.",
    "internal": "Tell the operator the request id.",
    "busy": "Ask again after the seconds in Retry-After.",
    "nothing-published": f"Drop the two CSV files and run the job {REFRESH_RANKINGS}, then ask again.",
    "no-dagster": "Start the Dagster web UI (music-assets up), or mend MUSIC_ASSETS_DAGSTER_URL; then ask again.",
}
"""What to do about each kind."""


class ProblemError(Exception):
    """Something the caller is told: the kind, what exactly, and further members of the answer."""

    def __init__(self, kind: str, detail: str, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = {name: value for name, value in members.items() if value is not None}

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.kind][0]

    def response(self, request_id: str) -> Response:
        """Return the answer that tells it."""
        status, title = KINDS[self.kind]
        content = {
            "type": f"urn:music-assets:problem:{self.kind}",
            "title": title,
            "status": status,
            "detail": self.detail,
            "advice": ADVICE[self.kind],
            "request_id": request_id,
            **self.members,
        }
        headers = {"Cache-Control": "no-store", **self.headers}
        return Response(orjson.dumps(content), status, headers, media_type=MEDIA_TYPE)
