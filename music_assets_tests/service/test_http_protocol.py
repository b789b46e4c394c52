"""What a client may send before the application sees a request, and how slowly: bounds on bytes, count and time."""

import json
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from music_assets_tests.service.conftest import Dataset, Service, serving
from music_assets_tests.support.processes import wait_until

CHUNKED = (
    b"POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)


@pytest.fixture(scope="module")
def service(dataset: Dataset) -> Iterator[Service]:
    with serving(dataset.root, query_workers=1, request_timeout=1.0, max_connections=20) as running:
        yield running


def connect(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), timeout=30)


def send_until_refused(service: Service, begin: bytes, part: bytes, most: int) -> tuple[int, bytes]:
    """Send `part` again and again, until the service hangs up; return the bytes sent, and what it answered."""
    received = bytearray()

    def read(connection: socket.socket) -> None:
        try:
            while data := connection.recv(65536):
                received.extend(data)
        except OSError:
            pass

    with connect(service) as connection:
        reader = threading.Thread(target=read, args=[connection])
        reader.start()
        sent = 0
        try:
            connection.sendall(begin)
            while sent < most:
                connection.sendall(part)
                sent += len(part)
        except OSError:
            pass
        else:
            pytest.fail(f"{sent} bytes were accepted")
        reader.join()
    return sent, bytes(received)


@pytest.mark.parametrize(
    ("begin", "part"),
    [
        (b"GET /", b"a" * 65536),
        (b"GET /?", b"a=b&" * 16384),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ", b"x" * 65536),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n" * 10_000),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX", b"x" * 65536),
        (CHUNKED, b"1\r\n{\r\n" * 10_000),
        (CHUNKED, b"1;" + b"x" * 65536),
        (CHUNKED + b"0\r\n", b"X: y\r\n" * 10_000),
        (CHUNKED + b"0\r\nX: ", b"y" * 65536),
    ],
    ids=["path", "query", "header value", "headers", "header name", "chunks", "extension", "trailers", "trailer"],
)
def test_requests_without_end_are_refused(service: Service, begin: bytes, part: bytes) -> None:
    sent, received = send_until_refused(service, begin, part, most=50 * 2**20)
    assert sent < 20 * 2**20  # socket buffers hold some of it
    assert b" 200 " not in received.partition(b"\r\n")[0]
    assert service.http.get("/healthz").status_code == 200


@pytest.mark.parametrize("head", [b"X: y\r\n" * 101, b"X: " + b"y" * 66_000 + b"\r\n"])
def test_head_in_one_packet_is_bounded(service: Service, head: bytes) -> None:
    with connect(service) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 431 ")
    with connect(service) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 90 + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("line", [b"GET /\xff HTTP/1.1", b"GET / HTTP/9", b"\x16\x03\x01 TLS"])
def test_what_is_not_http_is_answered_as_other_errors(service: Service, line: bytes) -> None:
    with connect(service) as connection:
        connection.sendall(line + b"\r\nHost: localhost\r\n\r\n")
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["detail"] == "Invalid HTTP request received."


def test_trailers_are_no_headers(dataset: Dataset) -> None:
    with serving(dataset.root, query_workers=1) as service, connect(service) as connection:
        body = b'{"query": "SELECT 1"}'
        connection.sendall(
            CHUNKED + b"%x\r\n%b\r\n0\r\nAccept: text/csv\r\nX-Request-ID: trailer\r\n\r\n" % (len(body), body)
        )
        received = connection.recv(65536)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"application/json" in received
    assert b"trailer" not in received


@pytest.mark.parametrize(
    ("begin", "part", "answer"),
    [
        (b"", b"", b"HTTP/1.1 408 "),
        (b"GET /healthz HTTP/1.1\r\nHost: local", b"x", b"HTTP/1.1 408 "),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"x", b"HTTP/1.1 408 "),
        (CHUNKED, b"1\r\n{\r\n", b"HTTP/1.1 408 "),
        (CHUNKED.replace(b"Transfer-Encoding: chunked", b"Content-Length: 100"), b"x", b"HTTP/1.1 408 "),
        (CHUNKED.replace(b"POST /query", b"GET /healthz"), b"1\r\n{\r\n", b"HTTP/1.1 200 "),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"x", b"HTTP/1.1 "),
    ],
    ids=["nothing", "half a header", "half a head", "no chunk", "no body", "body nobody reads", "no end of trailers"],
)
@pytest.mark.parametrize("drips", [False, True], ids=["silent", "dripping"])
def test_requests_that_do_not_arrive_are_ended(
    service: Service, begin: bytes, part: bytes, answer: bytes, drips: bool
) -> None:
    with connect(service) as connection:
        connection.sendall(begin)
        received = b""
        connection.settimeout(0.1)
        for _ in range(300):  # 30 s; the bound is 1 s for the head, and as much for the body
            try:
                if drips:
                    connection.sendall(part)
                data = connection.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            if not data:
                break
            received += data
        else:
            pytest.fail("the connection was left open")
    assert received.startswith(answer) or (drips and not received)  # a late part makes the kernel drop the answer


def test_silent_connections_leave_room(service: Service) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(service)).sendall(b"GET /")
        assert service.query("SELECT 1").status_code == 200
        with connect(service) as late:
            late.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert late.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_2000_silent_connections(dataset: Dataset) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    with serving(dataset.root, query_workers=1, max_connections=500) as service, ExitStack() as stack:
        for number in range(2000):
            stack.enter_context(connect(service)).sendall(b"GET / HTTP/1.1\r\nHost" if number % 2 else b"")
            if number % 200 == 0:
                assert service.query(f"SELECT {number}").status_code == 200
        assert service.query("SELECT 1").status_code == 200


def test_busy_connections_are_not_closed_for_new_ones(dataset: Dataset) -> None:
    with serving(dataset.root, query_workers=1, max_connections=2, timeout_ms=20_000) as service, ExitStack() as stack:
        sql = "SELECT count(*) FROM range(100000000000) t(i) WHERE hash(i) = 1"
        body = json.dumps({"query": sql}).encode()
        head = CHUNKED.replace(b"Transfer-Encoding: chunked", b"Content-Length: %d" % len(body))
        for _ in range(2):
            stack.enter_context(connect(service)).sendall(head + body)
        wait_until(lambda: service.app.state.parts.pool.waiting == 1, "one query that runs and one that waits")
        refused = stack.enter_context(connect(service))
        assert refused.recv(65536).startswith(b"HTTP/1.1 503 ")


def test_forwarded_addresses_are_trusted_by_setting_only(dataset: Dataset) -> None:
    def statuses(trusted: str) -> set[int]:
        with serving(dataset.root, query_workers=1, rate_limit="3/hour", trusted_proxies=trusted) as service:
            headers = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(6)]
            return {service.http.get("/tables", headers=each).status_code for each in headers}

    assert statuses("") == {200, 429}
    assert statuses("127.0.0.1") == {200}
    assert statuses("192.0.2.0/24") == {200, 429}


def test_open_addresses_are_rate_limited(dataset: Dataset) -> None:
    with serving(dataset.root, query_workers=1, rate_limit="5/hour") as service:
        assert {service.http.get("/openapi.json").status_code for _ in range(5)} == {200}
        assert service.http.get("/docs").status_code == 429
        assert service.http.get("/readyz").status_code == 429
