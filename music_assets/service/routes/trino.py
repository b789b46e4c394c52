"""The Trino protocol, through which BI tools query the service: `/v1/statement`."""

from http import HTTPStatus

import orjson
from fastapi import APIRouter, Request, Response

from music_assets.service.problems import KINDS, ProblemError
from music_assets.service.routes.deps import parts_of
from music_assets.service.sandbox.worker import TRINO

MAX_SQL_CHARACTERS = 20_000
"""Longer statements would take too long to translate."""
ERRORS = {
    "syntax": (1, "SYNTAX_ERROR", "USER_ERROR"),
    "not-allowed": (4, "PERMISSION_DENIED", "USER_ERROR"),
    "unknown-table": (46, "TABLE_NOT_FOUND", "USER_ERROR"),
    "timeout": (131075, "EXCEEDED_TIME_LIMIT", "INSUFFICIENT_RESOURCES"),
    "out-of-memory": (131079, "EXCEEDED_LOCAL_MEMORY_LIMIT", "INSUFFICIENT_RESOURCES"),
    "result-too-large": (131079, "EXCEEDED_LOCAL_MEMORY_LIMIT", "INSUFFICIENT_RESOURCES"),
}
"""Code, name and type of errors in the protocol, by kind of problem."""
OTHER_ERROR = (0, "GENERIC_USER_ERROR", "USER_ERROR")

router = APIRouter(include_in_schema=False)


@router.post("/v1/statement")
async def statement(request: Request) -> Response:
    """Run one SELECT in Trino's dialect. The response has all rows, so that no client asks for more."""
    sql = (await request.body()).decode("utf-8", "replace")
    try:
        if not 0 < len(sql) <= MAX_SQL_CHARACTERS:
            raise ProblemError("bad-request", f"A statement has 1 to {MAX_SQL_CHARACTERS} characters.")
        response = await parts_of(request).responder.respond(request, TRINO, sql)
    except ProblemError as problem:
        if problem.status_code in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            raise
        return _failure(problem, request.state.request_id)
    if response.headers["x-truncated"] == "true":
        # A BI tool would take the rows that there are for all.
        detail = f"The result has more than {response.headers['x-row-count']} rows. Aggregate, or add LIMIT."
        return _failure(ProblemError("result-too-large", detail), request.state.request_id)
    return response


def _failure(problem: ProblemError, request_id: str) -> Response:
    """Return a problem as the protocol reports it."""
    code, name, kind = ERRORS.get(problem.kind, OTHER_ERROR)
    message = f"{KINDS[problem.kind].title}: {problem.detail}"
    error = {"message": message, "errorCode": code, "errorName": name, "errorType": kind}
    content = {
        "id": request_id,
        "infoUri": "",
        "stats": {"state": "FAILED", "queued": False, "scheduled": False, "nodes": 0},
        "error": {**error, "failureInfo": {"type": name, "message": message, "suppressed": [], "stack": []}},
    }
    return Response(orjson.dumps(content), media_type="application/json")
