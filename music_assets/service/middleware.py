"""What applies to every request: its id, access control, limits on its body, error responses, access log, metrics.

A plain ASGI middleware, because it has to act before the body is read and to see the last byte of a streamed response.
"""

import asyncio
import logging
import re
import time
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from music_assets.service.auth import AccessControl, check_origin, is_public
from music_assets.service.explorer.errors import error_page, is_page
from music_assets.service.logs import ACCESS_LOG
from music_assets.service.metrics import Metrics
from music_assets.service.problems import ProblemError
from music_assets.service.sandbox.pool import Pool

MAX_BODY_BYTES = 256 * 1024
BUSY_DELAY_SECONDS = 0.5
"""Delay of a `busy` response, so that clients which retry immediately do not crowd out the others."""
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = logging.getLogger(__name__)
access_log = logging.getLogger(ACCESS_LOG)


class RequestMiddleware:
    """Wraps the application. Endpoints add fields to the access log through `request.state.log_fields`."""

    def __init__(
        self, app: ASGIApp, access: AccessControl, pool: Pool, metrics: Metrics, request_timeout: float
    ) -> None:
        self._app = app
        self._access = access
        self._pool = pool
        self._metrics = metrics
        self._request_timeout = request_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "caller" in scope.get("state", {}):
            await self._answer_inner(scope, receive, send)
            return
        channel = _Channel(scope, receive, send, self._request_timeout)
        try:
            await self._answer(scope, channel)
        except ProblemError as problem:
            if problem.kind == "busy":
                await asyncio.sleep(BUSY_DELAY_SECONDS)
            await channel.send_problem(problem)
        except ClientDisconnect:
            pass  # the access log says so
        except Exception:
            log.exception("Request %s failed", channel.request_id)
            await channel.send_problem(ProblemError("internal", "An unexpected error occurred."))
        finally:
            self._record(scope, channel)

    async def _answer_inner(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that the service sends to itself, as part of one that was admitted."""
        try:
            await self._app(scope, receive, send)
        except ProblemError as problem:
            if problem.kind == "busy":
                await asyncio.sleep(BUSY_DELAY_SECONDS)
            await problem.response(scope["state"]["request_id"])(scope, receive, send)

    async def _answer(self, scope: Scope, channel: "_Channel") -> None:
        channel.check_content_length()
        caller = await self._access.identify(HTTPConnection(scope))
        scope["state"]["caller"] = caller
        if is_public(scope["path"]):
            await self._app(scope, channel.receive, channel.send)
            return
        channel.log_fields["caller"] = caller.name
        if not _is_link_to_page(scope, channel.headers):
            check_origin(channel.headers)
        with self._pool.request(caller.account), ExitStack() as cleanup:
            scope["state"]["cleanup"] = cleanup
            await self._app(scope, channel.receive, channel.send)

    def _record(self, scope: Scope, channel: "_Channel") -> None:
        route = getattr(scope.get("route"), "path", "other")
        seconds = time.perf_counter() - channel.started
        self._metrics.requests.labels(channel.method, route, channel.status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        self._metrics.rows.inc(channel.log_fields.get("rows", 0))
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": channel.request_id,
            "method": channel.method,
            "route": route,
            "status": channel.status,
            "outcome": channel.outcome,
            "duration_ms": round(seconds * 1000, 2),
            "bytes": channel.sent_bytes,
            **channel.log_fields,
        }
        access_log.info(orjson.dumps(entry).decode())


class _Channel:
    """The `receive` and `send` of one request, with its limits and what the access log needs."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_timeout: float) -> None:
        self.started = time.perf_counter()
        self._scope = scope
        self._request_timeout = request_timeout
        self._receive = receive
        self._send = send
        self.headers = Headers(scope=scope)
        self._received_bytes = 0
        self._body_complete = False
        self._response_complete = False
        self._disconnected = False
        self.method = scope["method"] if scope["method"] in METHODS else "other"
        sent_id = self.headers.get("x-request-id", "")
        self.request_id = sent_id if REQUEST_ID.fullmatch(sent_id) else uuid.uuid4().hex
        self.log_fields: dict[str, Any] = {}
        self.status = 0
        self.sent_bytes = 0
        scope.setdefault("state", {}).update(
            request_id=self.request_id, log_fields=self.log_fields, started=self.started
        )

    def check_content_length(self) -> None:
        length = self.headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or len(length) > 18:
            raise ProblemError("bad-request", "Content-Length is not a number.")
        _check_size(int(length))

    async def receive(self) -> Message:
        """Receive the next part of the request body, within the limits on size and time."""
        if self.status or self._body_complete:
            message = await self._receive()
        else:
            message = await self._receive_body()
        self._disconnected |= message["type"] == "http.disconnect" and not self._response_complete
        return message

    async def _receive_body(self) -> Message:
        try:
            async with asyncio.timeout(self.started + self._request_timeout - time.perf_counter()):
                message = await self._receive()
        except TimeoutError:
            detail = f"The request body did not arrive within {self._request_timeout:g} s."
            raise ProblemError("slow-request", detail, {"Connection": "close"}) from None
        self._received_bytes += len(message.get("body", b""))
        _check_size(self._received_bytes)
        self._body_complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send the next part of the response."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.request_id
            headers["X-Content-Type-Options"] = "nosniff"
        else:
            self.sent_bytes += len(message.get("body", b""))
            self._response_complete = not message.get("more_body", False)
        await self._send(message)

    async def send_problem(self, problem: ProblemError) -> None:
        """Send the error response, unless a response has begun: then the server closes the connection."""
        if self.status:
            return
        response = self._problem_response(problem)
        await self.send(
            {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        )
        await self.send({"type": "http.response.body", "body": response.body})

    def _problem_response(self, problem: ProblemError) -> Response:
        request = Request(self._scope)
        if is_page(request.url.path):
            return error_page(request, problem, self.request_id)
        return problem.response(self.request_id)

    @property
    def outcome(self) -> str:
        """How the request ended: ok, refused, failed, or cut (incomplete response, or the client hung up)."""
        if self._disconnected or not self._response_complete:
            return "cut"
        return "ok" if self.status < 400 else "refused" if self.status < 500 else "failed"


def _is_link_to_page(scope: Scope, headers: Headers) -> bool:
    """Return whether a person follows a link to a page, which another site may show."""
    navigates = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    return navigates and scope["method"] == "GET" and is_page(scope["path"])


def _check_size(size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise ProblemError("body-too-large", f"The limit is {MAX_BODY_BYTES} bytes.")
