"""From a question to an HTTP answer: the format, the ETag, the run in the pool, the headers, the stream of bytes."""

import asyncio
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from music_assets.service import formats
from music_assets.service.problems import ProblemError
from music_assets.service.sandbox.pool import Pool, Query, Reply
from music_assets.service.snapshots import Snapshots
from music_assets.settings import Settings

TRANSFER_SECONDS = 60.0
"""How long a caller may take to read an answer."""
LOGGED_SQL = 1000


@dataclass(frozen=True)
class Question:
    """What is asked: SQL with its parameters, and the bounds the caller sets (None: the service's own)."""

    sql: str
    params: Any = None
    limit: int | None = None
    timeout_ms: int | None = None


class Answers:
    """Answers questions from the newest snapshot."""

    def __init__(self, pool: Pool, snapshots: Snapshots, settings: Settings) -> None:
        self._pool = pool
        self._snapshots = snapshots
        self._row_limit = settings.row_limit
        self._timeout_ms = settings.timeout_ms

    async def answer(self, request: Request, question: Question, form: str) -> Response:
        """Answer in that format; 304 where the caller has the answer already. Raises ProblemError."""
        limit = min(question.limit or self._row_limit, self._row_limit)
        identity = orjson.dumps([question.sql, question.params, limit, form])
        known = request.headers.get("if-none-match", "")
        etag = _etag(self._snapshots.newest().data_version, identity)
        if known and etag in [tag.strip() for tag in known.split(",")]:
            return Response(status_code=304, headers={"ETag": etag, **CACHING})
        reply = await self.ask(request, question, form)
        headers = {
            "Content-Type": formats.MEDIA_TYPES.get(form, "application/json"),
            "X-Query-ID": reply.head["query_id"],
            "X-Data-Version": reply.head["data_version"],
            "X-Row-Count": str(reply.head["row_count"]),
            "X-Truncated": "true" if reply.head["truncated"] else "false",
        }
        if reply.head["volatile"]:
            headers["Cache-Control"] = "no-store"
        else:
            headers |= {"ETag": _etag(reply.head["data_version"], identity), **CACHING}
        return AnswerResponse(reply, headers)

    async def ask(self, request: Request, question: Question, form: str) -> Reply:
        """Run the question for this caller, for as long as the caller is there. Raises ProblemError."""
        notes = request.state.notes
        query = Query(
            query_id=uuid.uuid4().hex,
            sql=question.sql,
            params=question.params,
            limit=min(question.limit or self._row_limit, self._row_limit),
            timeout_ms=min(question.timeout_ms or self._timeout_ms, self._timeout_ms),
            form=form,
        )
        notes.update(query_id=query.query_id, sql=question.sql[:LOGGED_SQL])
        await request.body()
        reply = await _while_connected(request, self._pool.run(query))
        notes.update(rows=reply.head["row_count"], data_version=reply.head["data_version"])
        return reply

    async def whole(self, request: Request, question: Question, form: str) -> bytes:
        """Return the whole answer at once: for answers known to be small. Raises ProblemError."""
        reply = await self.ask(request, question, form)
        try:
            rest = [chunk async for chunk in reply.rest] if reply.rest is not None else []
            return b"".join([reply.first, *rest])
        finally:
            reply.close()


CACHING = {"Cache-Control": "no-cache", "Vary": "Accept, Authorization"}


def _etag(data_version: str, identity: bytes) -> str:
    """Return a weak ETag: query id and elapsed time differ between answers that mean the same."""
    return f'W/"{hashlib.sha256(data_version.encode() + identity).hexdigest()[:32]}"'


async def _while_connected(request: Request, work: Any) -> Reply:
    """Do the work, unless the caller, whose body has been read, hangs up before it is done."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ProblemError("timeout", "The caller hung up.")
        reply: Reply = task.result()
        return reply
    finally:
        gone.cancel()
        task.cancel()


def chosen_format(request: Request, wanted: str | None) -> str:
    """Return the format the caller wants. Raises ProblemError where there is no such format."""
    form = formats.negotiate(wanted, request.headers.get("accept", ""))
    if form is None:
        raise ProblemError("not-acceptable", "The answer does not come in the format asked for.")
    return form


class AnswerResponse(Response):
    """Sends a reply as it comes from its worker, and lets go of the worker whatever happens."""

    def __init__(self, reply: Reply, headers: Mapping[str, str]) -> None:
        self._reply = reply
        self.background = None
        self.status_code = 200
        self.init_headers({**headers, **({"Content-Length": str(len(reply.first))} if reply.rest is None else {})})

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Take the headers as they are."""
        self.raw_headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        reply = self._reply
        try:
            async with asyncio.timeout(TRANSFER_SECONDS):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": reply.first, "more_body": reply.rest is not None})
                if reply.rest is not None:
                    async for chunk in reply.rest:
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            raise ProblemError("timeout", "The answer was not read in time.") from None
        finally:
            reply.close()
