"""A proxy in front of the S3 server that refuses requests, loses answers or drops conditions, as a test demands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx

ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>refused by the test</Message></Error>"
CONDITIONS = ("if-match", "if-none-match")
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


Rule = Callable[[str, str], Refusal | Answer | None]
"""Decides by method and path."""


@contextmanager
def s3_proxy(target: str, rule: Rule = lambda method, path: None, conditions: bool = True) -> Iterator[str]:
    """Run a proxy and yield its URL. Without `conditions` the server does not see those of a request."""
    client = httpx.Client(timeout=60)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            refusal = rule(self.command, self.path)
            if refusal and refusal.status:
                self.send(refusal.status, {}, refusal.body)
                return
            dropped = ("connection",) if conditions else ("connection", *CONDITIONS)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            found = client.request(self.command, f"{target}{self.path}", headers=headers, content=body)
            if refusal:
                self.close_connection = True
                return
            kept = {name: value for name, value in found.headers.items() if name.lower() not in HOP_BY_HOP}
            self.send(found.status_code, kept, found.content, found.headers.get("Content-Length"))

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

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

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
