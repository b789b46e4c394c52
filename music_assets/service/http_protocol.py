"""uvicorn's HTTP protocol with bounds on what a client may send before a request reaches the application.

uvicorn has no bounds on the size of a head with httptools, and none on the time of a request or the number of
connections with any parser. See docs/decisions/0008-http-server.md.
"""

import asyncio
from http import HTTPStatus
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from music_assets.service.problems import ProblemError

MAX_HEAD_BYTES = 64 * 1024
"""Bytes of the URL and the headers."""
MAX_HEADERS = 100
MAX_MESSAGE_BYTES = 2**20
"""Bytes of a whole request, with the framing of its body and trailers."""
CHECK_SECONDS = 0.5
FLUSH_SECONDS = 60.0
"""Time in which a client has to read what is left after a response has been written."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    max_connections: int
    request_timeout: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to watch the connection. If there are too many, close the one that has waited for longest."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._in_head, self._in_message, self._too_large = True, False, False
        self._received = 0
        self._written_since: float | None = None
        self._check = self.loop.call_later(CHECK_SECONDS, self._check_time)
        if len(self.connections) > self.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to watch the connection."""
        self._check.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data. The parser itself keeps at most this data and the unfinished head."""
        super().data_received(data)
        self._received += len(data)
        too_long = self._received > (MAX_HEAD_BYTES if self._in_head else MAX_MESSAGE_BYTES)
        if self._too_large or (self._is_incomplete and too_long):
            self._refuse("head-too-large" if self._in_head else "body-too-large", "The request is too large.")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, as other requests are refused."""
        self._refuse("bad-request", msg)

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._since = self.loop.time()
        self._in_head = self._in_message = True
        self._received = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Receive a header. Trailers are ignored."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the application, unless the head is too large."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        self._too_large = size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS
        if not self._too_large:
            super().on_headers_complete()
            self._in_head = False

    def on_body(self, body: bytes) -> None:
        """Receive a part of the body."""
        if not self._too_large:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        if not self._too_large:
            super().on_message_complete()
            self._in_message = False

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if not self._in_message:
            self._since, self._in_head = self.loop.time(), True

    @property
    def _is_idle(self) -> bool:
        """Whether no response is owed."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _is_incomplete(self) -> bool:
        """Whether the client has not finished its request, or not begun one."""
        return self._in_message or (self._in_head and self._is_idle)

    def _make_room(self) -> None:
        waiting = [one for one in self.connections if isinstance(one, BoundedProtocol) and one is not self]
        waiting = [one for one in waiting if one._in_head and one._is_idle]
        if waiting:
            oldest = min(waiting, key=lambda one: one._since)
            self.connections.discard(oldest)
            oldest.transport.abort()
        else:
            self._refuse("busy", "There are too many connections.")

    def _check_time(self) -> None:
        """Close the connection if the request takes too long to arrive, or the response to be read."""
        now = self.loop.time()
        self._check = self.loop.call_later(CHECK_SECONDS, self._check_time)
        self._abort_if_unread(now)
        seconds = now - self._since
        if self._in_head and self._is_idle and seconds > self.request_timeout and not self.transport.is_closing():
            self._refuse("slow-request", f"The request did not arrive within {self.request_timeout:g} s.")
        elif self._in_message and seconds > 2 * self.request_timeout:
            self.transport.abort()  # the application answers a slow body before

    def _abort_if_unread(self, now: float) -> None:
        if not self.transport.get_write_buffer_size() or not (self._is_idle or self.transport.is_closing()):
            self._written_since = None
        elif self._written_since is None:
            self._written_since = now
        elif now - self._written_since > FLUSH_SECONDS:
            self.transport.abort()

    def _refuse(self, kind: str, detail: str) -> None:
        """Send an error response, unless a response has begun, and close the connection."""
        self._too_large = True
        if self.transport.is_closing():
            return
        if self._is_idle or not self.cycle.response_started:
            response = ProblemError(kind, detail).response(uuid4().hex)
            head = [f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}\r\n".encode()]
            head += [b"%b: %b\r\n" % header for header in response.raw_headers]
            self.transport.write(b"".join([*head, b"connection: close\r\n\r\n", bytes(response.body)]))
        self.transport.close()


def bounded_protocol(max_connections: int, request_timeout: float) -> type[BoundedProtocol]:
    """Return the protocol with these bounds; `request_timeout` is in seconds."""
    bounds = {"max_connections": max_connections, "request_timeout": request_timeout}
    return type("BoundedProtocol", (BoundedProtocol,), bounds)
