"""Around every request: its id, admission, the bound on its body, the access log, the metrics, one shape for errors.

A plain ASGI middleware: it must see the last byte of streamed answers, and cost next to nothing.
"""

import asyncio
import logging
import re
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from music_assets.service.admission import Admission, is_open
from music_assets.service.metrics import Metrics
from music_assets.service.problems import ProblemError
from music_assets.service.sandbox.pool import Pool

MOST_BODY_BYTES = 256 * 1024
BODY_SECONDS = 15.0
BUSY_SECONDS = 0.5
"""How long a caller who is turned away waits to hear it: asking again at once must not crowd out the others."""
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
ACCESS_LOG = "music_assets.access"

log = logging.getLogger(__name__)
access = logging.getLogger(ACCESS_LOG)


class Edge:
    """Wraps the application. What handlers note in `request.state.notes` goes into the access log."""

    def __init__(self, app: ASGIApp, admission: Admission, pool: Pool, metrics: Metrics) -> None:
        self._app = app
        self._admission = admission
        self._pool = pool
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            exchange.check_length()
            if not is_open(scope["path"]):
                exchange.notes["caller"] = await self._admission.caller(HTTPConnection(scope))
                self._pool.check_queue()
            await self._app(scope, exchange.receive, exchange.send)
        except ProblemError as problem:
            if problem.kind == "busy":
                await asyncio.sleep(BUSY_SECONDS)
            await exchange.fail(problem)
        except Exception:
            log.exception("Request %s failed", exchange.request_id)
            await exchange.fail(ProblemError("internal", "The service failed to answer."))
        finally:
            self._record(scope, exchange)

    def _record(self, scope: Scope, exchange: "_Exchange") -> None:
        route = getattr(scope.get("route"), "path", "other")
        seconds = time.perf_counter() - exchange.started
        self._metrics.requests.labels(exchange.method, route, exchange.status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        self._metrics.rows.inc(exchange.notes.get("rows", 0))
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": exchange.request_id,
            "method": exchange.method,
            "route": route,
            "status": exchange.status,
            "outcome": exchange.outcome,
            "duration_ms": round(seconds * 1000, 2),
            "bytes": exchange.sent_bytes,
            **exchange.notes,
        }
        access.info(orjson.dumps(entry).decode())


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Exchange:
    """One request and what becomes of it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started = time.perf_counter()
        self._receive = receive
        self._send = send
        self._headers = Headers(scope=scope)
        self._received = 0
        self.method = scope["method"] if scope["method"] in METHODS else "other"
        given = self._headers.get("x-request-id", "")
        self.request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.notes: dict[str, Any] = {}
        self.status = 0
        self.sent_bytes = 0
        self._ended = False
        scope.setdefault("state", {}).update(request_id=self.request_id, notes=self.notes)

    def check_length(self) -> None:
        length = self._headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or len(length) > 18:
            raise ProblemError("bad-request", "Content-Length is no number.")
        self._bound(int(length))

    async def receive(self) -> Message:
        """Hand on a part of the request, within the bounds on size and, for the body, on time."""
        if self.status or self._received < 0:
            return await self._receive()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                message = await self._receive()
        except TimeoutError:
            raise ProblemError("timeout", "The body of the request did not come in time.") from None
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._bound(self._received)
            if not message.get("more_body", False):
                self._received = -1
        return message

    def _bound(self, size: int) -> None:
        if size > MOST_BODY_BYTES:
            raise ProblemError("body-too-large", f"A body may have {MOST_BODY_BYTES} bytes.")

    async def send(self, message: Message) -> None:
        """Hand on a part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.request_id
            headers["X-Content-Type-Options"] = "nosniff"
        else:
            self.sent_bytes += len(message.get("body", b""))
            self._ended = not message.get("more_body", False)
        await self._send(message)

    async def fail(self, problem: ProblemError) -> None:
        """Tell the problem, or break off where the answer has begun: a reader must not take a part for the whole."""
        if self.status:
            raise ConnectionAbortedError(problem.detail)
        response = problem.response(self.request_id)
        await self.send(
            {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        )
        await self.send({"type": "http.response.body", "body": response.body})

    @property
    def outcome(self) -> str:
        """How it ended, in a word: ok, refused, failed, or cut (the caller left or the answer broke off)."""
        if not self._ended:
            return "cut"
        return "ok" if self.status < 400 else "refused" if self.status < 500 else "failed"
