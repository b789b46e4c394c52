"""A proxy in front of the S3 server that refuses requests, loses answers or drops conditions, as a test demands."""

import re
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import httpx

ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>refused by the test</Message></Error>"
SIGNER = re.compile(r"Credential=([^/%]+)")
HOP_BY_HOP = ("connection", "transfer-encoding", "content-length", "server", "date")


@dataclass(frozen=True)
class Refusal:
    """An answer in place of the server's; with status 0 the request is carried out, but its answer is lost."""

    status: int
    code: str = "SlowDown"

    @property
    def body(self) -> bytes:
        """The error as S3 describes it."""
        return ERROR.format(self.code).encode()


@dataclass(frozen=True)
class Answer:
    """An answer in place of the server's."""

    body: bytes
    status: int = 200
    etag: str = ""


class Silence(Enum):
    """No answer, to a request that is not carried out."""

    HANG = "hang"
    """The connection stays open."""
    CUT = "cut"
    """The connection is closed: to a GET request in the middle of the answer, else before it."""


Rule = Callable[[str, str], Refusal | Answer | Silence | None]
"""Decides by method and path."""


@contextmanager
def s3_proxy(
    target: str,
    rule: Rule = lambda method, path: None,
    ignored: Container[str] = (),
    accepts_key: Callable[[str], bool] = lambda access_key: True,
) -> Iterator[str]:
    """Run a proxy and yield its URL.

    The server does not see `ignored` conditions, each `METHOD header`. `accepts_key` decides by the access key of a
    request whether its credentials have expired.
    """
    with _Proxy(target, rule, ignored, accepts_key) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.ended.set()
            server.shutdown()


class _Proxy(ThreadingHTTPServer):
    def __init__(self, target: str, rule: Rule, ignored: Container[str], accepts_key: Callable[[str], bool]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.rule = rule
        self.ignored = ignored
        self.accepts_key = accepts_key
        self.client = httpx.Client(timeout=60)
        self.ended = Event()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        signer = SIGNER.search(f"{self.path} {self.headers.get('Authorization')}")
        is_accepted = signer is None or self.server.accepts_key(signer[1])
        refusal = self.server.rule(self.command, self.path) if is_accepted else Refusal(400, "ExpiredToken")
        if isinstance(refusal, Silence):
            self.be_silent(refusal)
        elif refusal and refusal.status:
            etag = refusal.etag if isinstance(refusal, Answer) else ""
            self.send(refusal.status, {"ETag": f'"{etag}"'} if etag else {}, refusal.body)
        else:
            self.forward(body, is_answered=not refusal)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

    def forward(self, body: bytes, is_answered: bool) -> None:
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() != "connection" and f"{self.command} {name.lower()}" not in self.server.ignored
        }
        url = f"{self.server.target}{self.path}"
        found = self.server.client.request(self.command, url, headers=headers, content=body)
        if not is_answered:
            self.close_connection = True
            return
        kept = {name: value for name, value in found.headers.items() if name.lower() not in HOP_BY_HOP}
        self.send(found.status_code, kept, found.content, found.headers.get("Content-Length"))

    def be_silent(self, silence: Silence) -> None:
        self.close_connection = True
        if silence is Silence.HANG:
            self.server.ended.wait()
        elif self.command == "GET":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<")

    def send(self, status: int, headers: dict[str, str], body: bytes, length: str | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""
