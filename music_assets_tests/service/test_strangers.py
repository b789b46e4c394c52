"""Callers that send hostile or unlucky requests: every reply is closed, no worker is lost, and others do not wait."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest

from music_assets.service.sandbox import pool
from music_assets_tests.service.conftest import Dataset, Service, make_dataset, serving
from music_assets_tests.support.processes import wait_until

NAMES = ["日本", "Земфира", "Sigur Rós", "فيروز", "🎸", "a/../b", "a?b&c=d", "a#b", "100 %", 'a "b" <c>', "a;b,c"]
HEAD = b"POST /query%b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
BOMB = "SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i) = 1"
FORMATS = ["json", "ndjson", "csv", "arrow", "parquet"]


def send(service: Service, sql: str, source: str = "127.0.0.1", parameters: bytes = b"") -> socket.socket:
    """Send a query from an address, and return the connection."""
    address = ("127.0.0.1", int(service.url.rpartition(":")[2]))
    connection = socket.create_connection(address, timeout=60, source_address=(source, 0))
    body = json.dumps({"query": sql}).encode()
    connection.sendall(HEAD % (parameters, len(body), body))
    return connection


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose only worker must survive every test, on rankings of names in many scripts."""
    dataset = make_dataset(tmp_path_factory.mktemp("strangers"), artists=NAMES * 2)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(pool, "ABANDONED_SECONDS", 30)  # on a busy machine half a second may be too short to stop a query
        running = stack.enter_context(serving(dataset.root, query_workers=1, query_memory_mb=256, timeout_ms=30_000))
        yield running
        assert running.app.state.parts.pool.restarts == 0
        assert running.worker_answers()


@pytest.mark.parametrize("name", NAMES)
def test_link_to_the_next_page_is_a_url(service: Service, name: str) -> None:
    address = f"/artists/{quote(name, safe='')}/countries?limit=1&format=ndjson"
    found = []
    while address:
        page = service.http.get(address)
        assert page.status_code == 200
        found += [json.loads(line)["rank"] for line in page.text.splitlines()]
        link = page.headers.get("link", "")
        assert link.isascii()
        assert " " not in link.partition(">")[0]
        address = link.partition("<")[2].partition(">")[0]
    assert found == list(range(1, len(found) + 1))
    assert len(found) > 1


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "value",
    [
        "[INTERVAL 1 DAY]",
        "{'a': INTERVAL 1 DAY}",
        "MAP {'a': INTERVAL 1 DAY}",
        "MAP {}",
        "[]",
        "{'a': NULL, 'b': [NULL]}",
        "'infinity'::TIMESTAMP_S",
        "['-infinity'::TIMESTAMP_S]",
        "'infinity'::TIMESTAMP_MS",
        "['infinity'::TIMESTAMPTZ]",
        "'24:00:00'::TIME",
        "range(9)::INT[9]",
        "NULL::INT[100]",
        "repeat('x', 70000000)",
    ],
)
def test_every_value_has_an_encoding(service: Service, form: str, value: str) -> None:
    response = service.query(f"SELECT {value} AS v", form)
    assert response.status_code == 200, response.text[:300]
    assert int(response.headers["content-length"]) == len(response.content)


@pytest.mark.parametrize(
    ("sql", "status"),
    [
        ("SELECT CASE WHEN i = 90000 THEN 'x' ELSE '1' END::INT FROM range(100000) t(i)", 400),
        ("SELECT i FROM range(1000000000000) t(i) WHERE hash(i) % 30000 = 0", 408),
        ("SELECT to_microseconds(9223372036854775807)", 400),
        ("SELECT [to_microseconds(9223372036854775807)]", 400),
        ("SELECT NULL::INT" + "[2]" * 40, 403),
        ("SELECT NULL::STRUCT(a INT[100000][100000]) IS NULL", 403),
        ("SELECT from_json('{}', '{\"a\": \"INT[100000][100000][100000][100000]\"}')", 422),
        ("SELECT repeat('x', 200000000)", 422),
    ],
)
def test_failing_query_is_reported_and_costs_no_worker(service: Service, sql: str, status: int) -> None:
    response = service.query(sql, timeout_ms=1500)
    assert response.status_code == status, response.text[:300]
    assert response.json()["detail"]
    assert service.worker_answers()


def test_a_result_beyond_the_spool_is_refused(dataset: Dataset) -> None:
    with serving(dataset.root, query_workers=1, spool_mb=4) as service:
        assert service.query("SELECT repeat('x', 3000000)").status_code == 503
        assert service.query("SELECT repeat('x', 500000)").status_code == 200
        assert service.app.state.parts.pool.restarts == 0


def test_abandoned_queries_cost_no_worker(service: Service) -> None:
    """The interrupt may reach the worker before the query does."""
    for _ in range(10):
        send(service, BOMB).close()
        assert service.worker_answers()


def test_http_1_0_gets_no_chunks(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as connection:
        connection.sendall(b"GET /countries?format=csv HTTP/1.0\r\nHost: localhost\r\n\r\n")
        received = b""
        while part := connection.recv(65536):
            received += part
    head, _, rows = received.partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert rows.startswith(b'"country","artists","total_playcount"\n')


def test_readiness_means_that_a_worker_answers(dataset: Dataset) -> None:
    with serving(dataset.root, query_workers=1) as service:
        assert service.http.get("/readyz").status_code == 200
        (worker,) = service.app.state.parts.pool._workers
        worker.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: service.http.get("/readyz").status_code == 503, "the check of the stopped worker")
        wait_until(lambda: service.http.get("/readyz").status_code == 200, "its successor")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost"}, 200),
        ({}, 200),
    ],
)
def test_pages_of_other_sites_cannot_query(service: Service, headers: dict[str, str], status: int) -> None:
    assert service.http.get("/query?query=SELECT+1", headers=headers).status_code == status
    body = b'{"query": "SELECT 1"}'
    assert service.http.post("/ApiQueryHandler", content=body, headers=headers).status_code == status


def test_data_root_that_cannot_be_read(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    with serving(dataset.root, query_workers=1) as service:
        layout = tmp_path / ".layout_version"
        layout.rename(tmp_path / "aside")
        layout.mkdir()  # reading a folder fails for every user
        dataset.published.path.with_name("current.json").touch()
        for response in (service.query("SELECT 1"), service.http.get("/readyz")):
            assert (response.status_code, response.json()["type"]) == (503, "urn:music-assets:problem:unreadable")
            assert str(tmp_path) not in response.text


def test_long_queries_of_others_do_not_hold_up_short_ones(dataset: Dataset) -> None:
    with serving(dataset.root, query_workers=2, timeout_ms=600_000) as service, ExitStack() as stack:
        bombs = [stack.enter_context(send(service, BOMB, f"127.0.9.{number}")) for number in range(1, 5)]
        for number in range(30):
            assert service.rows(f"SELECT {number}") == [[number]]
        for connection in bombs:
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(1)
        assert service.app.state.parts.pool.restarts == 0


def test_unfinished_requests_of_a_caller_are_bounded(dataset: Dataset) -> None:
    with serving(dataset.root, query_workers=1, query_queue=2, timeout_ms=600_000) as service, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(send(service, BOMB, "127.0.9.1"))
        wait_until(lambda: service.app.state.parts.pool.waiting == 2, "two waiting queries")
        assert stack.enter_context(send(service, "SELECT 1", "127.0.9.1")).recv(13) == b"HTTP/1.1 503 "
        assert service.http.get("/tables").status_code == 200


def test_slow_readers_hold_no_worker(dataset: Dataset) -> None:
    with serving(dataset.root, query_workers=1, timeout_ms=30_000) as service, ExitStack() as stack:
        for _ in range(8):
            sql = "SELECT i, repeat('x', 100) FROM range(100000) t(i)"
            connection = stack.enter_context(send(service, sql, parameters=b"?format=csv"))
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert service.worker_answers()
        assert service.app.state.parts.pool.restarts == 0


def test_a_slow_reader_of_a_small_result_gets_all_of_it_and_holds_no_worker(dataset: Dataset) -> None:
    request = b"GET /query?format=csv&query=SELECT+repeat('x',50000) HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(dataset.root, query_workers=1, request_timeout=1.0) as service, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", int(service.url.rpartition(":")[2])))
        connection.sendall(request)
        received = bytearray()
        for _ in range(20):  # two seconds, twice what a request may take
            received += connection.recv(1)
            assert service.worker_answers()
            time.sleep(0.1)
        while data := connection.recv(1024):
            received += data
        assert service.app.state.parts.pool.restarts == 0
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert received.count(b"x" * 50_000) == 1


def test_parameters_in_array_notation_are_not_ignored(service: Service) -> None:
    assert service.http.get("/artists?search[]=a").status_code == 422
    assert service.http.get("/artists?search=a").status_code == 200
