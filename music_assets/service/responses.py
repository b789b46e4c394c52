"""HTTP responses with query results: limits, ETag, headers, transfer, and cancellation when the client disconnects."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from music_assets.service.formats import MEDIA_TYPES, encode, negotiate, result_of
from music_assets.service.problems import ProblemError
from music_assets.service.sandbox.pool import MAX_RESULT_BYTES, Pool, Query, QueryResult
from music_assets.service.sandbox.spool import Spool, SpooledResult
from music_assets.service.snapshots import Found, Snapshots
from music_assets.settings import Settings

TRANSFER_SECONDS = 60.0
MIN_TRANSFER_RATE = 64 * 1024
"""A client has this time to read a result, and one second more for each of so many bytes."""
SPREADSHEET = "spreadsheet"
"""The value of `?csv=` that makes CSV safe to open in a spreadsheet."""
MAX_LOGGED_SQL = 1000
FEW_ROWS = 1000
"""More rows are encoded in a thread, so that other requests need not wait."""
CACHING = {"Cache-Control": "no-cache", "Vary": "Accept, Authorization"}


class QueryResponder:
    """Runs queries on the newest snapshot, within the service's limits on rows and time."""

    def __init__(self, pool: Pool, snapshots: Snapshots, spool: Spool, settings: Settings) -> None:
        self._pool = pool
        self._snapshots = snapshots
        self._spool = spool
        self._row_limit = settings.row_limit
        self._timeout_ms = settings.timeout_ms

    async def respond(
        self,
        request: Request,
        result_format: str | None,
        sql: str,
        params: Any = None,
        limit: int | None = None,
        timeout_ms: int | None = None,
    ) -> Response:
        """Return the result of a query, or 304 if the client already has it.

        The format is by default that of the Accept header. Raises ProblemError.
        """
        result_format, variant = _requested_format(request, result_format)
        query = self._query(variant, sql, params, limit, timeout_ms)
        etag = _etag(self._snapshots.newest().data_version, query.identity)
        if _has_copy(request, etag):
            return Response(status_code=304, headers={"ETag": etag, **CACHING})
        result = await self._run(request, query)
        return ResultResponse(result, result_format, _etag(result.summary["data_version"], query.identity))

    async def respond_found(
        self, request: Request, result_format: str | None, found: Found, limit: int | None = None
    ) -> Response:
        """Return rows that were found in memory, as `respond` returns those of a query. Raises ProblemError."""
        result_format, variant = _requested_format(request, result_format)
        parameters = request.scope["query_string"] + b"\0" + await request.body()
        etag = _etag(found.data_version, f"{request.scope['path']} {variant} ".encode(errors="replace") + parameters)
        if _has_copy(request, etag):
            return Response(status_code=304, headers={"ETag": etag, **CACHING})
        return ResultResponse(await self._encode(request, variant, found, limit), result_format, etag)

    async def sample(self, request: Request, sql: str, rows: int) -> list[list[Any]]:
        """Return the first rows of a query as JSON values. Raises ProblemError."""
        sampled: list[list[Any]] = orjson.loads(await self._read(request, self._query("json", sql, limit=rows)))["rows"]
        return sampled

    async def rows(self, request: Request, sql: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of a query as objects of JSON values. Raises ProblemError."""
        found: list[dict[str, Any]] = orjson.loads(await self._read(request, self._query("objects", sql, params)))
        return found

    async def _read(self, request: Request, query: Query) -> bytes:
        result = await self._run(request, query)
        return b"".join([chunk async for chunk in result.data.chunks()])

    def _query(
        self, result_format: str, sql: str, params: Any = None, limit: int | None = None, timeout_ms: int | None = None
    ) -> Query:
        return Query(
            query_id=uuid.uuid4().hex,
            sql=sql,
            params=params,
            limit=min(limit or self._row_limit, self._row_limit),
            timeout_ms=min(timeout_ms or self._timeout_ms, self._timeout_ms),
            format=result_format,
        )

    async def _encode(self, request: Request, result_format: str, found: Found, limit: int | None) -> QueryResult:
        rows = found.rows.slice(0, min(limit or self._row_limit, self._row_limit))
        if rows.nbytes > MAX_RESULT_BYTES:
            raise ProblemError("result-too-large", f"The result exceeds {MAX_RESULT_BYTES // 2**20} MB.")
        summary = {
            "row_count": rows.num_rows,
            "truncated": rows.num_rows < found.rows.num_rows,
            "query_id": uuid.uuid4().hex,
            "elapsed_ms": round((time.perf_counter() - request.state.started) * 1000, 3),
            "data_version": found.data_version,
        }
        data = SpooledResult(self._spool, request.state.caller.account)
        request.state.cleanup.callback(data.close)
        pieces = encode(replace(result_of(rows), metadata=summary), result_format)
        for piece in pieces if rows.num_rows <= FEW_ROWS else await asyncio.to_thread(list, pieces):
            await data.write(piece)
        return _logged(request, QueryResult({**summary, "volatile": False}, data))

    async def _run(self, request: Request, query: Query) -> QueryResult:
        request.state.log_fields.update(query_id=query.query_id, sql=query.sql[:MAX_LOGGED_SQL])
        await request.body()
        caller = request.state.caller.account
        result = await self._pool.known_result(query, caller)
        if result is None:
            result = await _cancel_on_disconnect(request, self._pool.run(query, caller))
        request.state.cleanup.callback(result.data.close)
        return _logged(request, result)


def _logged(request: Request, result: QueryResult) -> QueryResult:
    request.state.log_fields.update(
        query_id=result.summary["query_id"],  # that of an earlier query, if the result was known
        rows=result.summary["row_count"],
        data_version=result.summary["data_version"],
    )
    return result


def _requested_format(request: Request, result_format: str | None) -> tuple[str, str]:
    """Return the format, and its variant for the encoder. Raises ProblemError."""
    if arrays := [name for name in request.query_params if "[" in name]:
        raise ProblemError("invalid", f"The parameter {arrays[0]!r} does not exist: parameters are not arrays.")
    variant = request.query_params.get("csv")
    if variant not in (None, SPREADSHEET):
        raise ProblemError("invalid", f"The parameter csv can only be {SPREADSHEET}.")
    chosen = result_format or ("csv" if variant else _accepted_format(request))
    return chosen, variant if variant and chosen == "csv" else chosen


def _accepted_format(request: Request) -> str:
    accepted = negotiate(request.headers.get("accept", ""))
    if accepted is None:
        raise ProblemError("not-acceptable", "The Accept header names no supported format.")
    return accepted


def _etag(data_version: str, identity: bytes) -> str:
    """Return a weak ETag: equivalent responses differ in query id and elapsed time."""
    return f'W/"{hashlib.sha256(data_version.encode() + identity).hexdigest()[:32]}"'


def _has_copy(request: Request, etag: str) -> bool:
    return etag in [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]


async def _cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, QueryResult]) -> QueryResult:
    """Await the work, unless the client disconnects first. The request body must have been read."""
    task = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        disconnect.cancel()
        task.cancel()


class ResultResponse(Response):
    """Sends a query result from the spool."""

    def __init__(self, result: QueryResult, result_format: str, etag: str) -> None:
        self._data = result.data
        headers = {
            "Content-Type": MEDIA_TYPES.get(result_format, "application/json"),
            "Content-Length": str(result.data.size),
            "X-Query-ID": result.summary["query_id"],
            "X-Data-Version": result.summary["data_version"],
            "X-Row-Count": str(result.summary["row_count"]),
            "X-Truncated": "true" if result.summary["truncated"] else "false",
            **({"Cache-Control": "no-store"} if result.summary["volatile"] else {"ETag": etag, **CACHING}),
        }
        self.background = None
        self.status_code = 200
        self.raw_headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if self._data.in_memory:
            await send({"type": "http.response.body", "body": self._data.content()})
            return
        unsent = self._data.size
        try:
            async with asyncio.timeout(TRANSFER_SECONDS + unsent / MIN_TRANSFER_RATE):
                async for chunk in self._data.chunks():
                    unsent -= len(chunk)
                    await send({"type": "http.response.body", "body": chunk, "more_body": unsent > 0})
        except TimeoutError:
            raise ProblemError("timeout", "The client did not read the result in time.") from None
