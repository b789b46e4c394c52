"""The worker pool: full queue, timeouts, streaming, slow clients, replaced workers, restrictions of the process."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from music_assets_tests.service.conftest import Dataset, serving
from music_assets_tests.support.processes import wait_until

SLOW = "SELECT count(*) FROM range(100000000000) t(i) WHERE hash(i) = 1"


def test_queries_beyond_the_queue_get_503(dataset: Dataset) -> None:
    with serving(dataset.root, query_workers=1, query_queue=2, timeout_ms=60_000) as service:
        pool = service.app.state.parts.pool

        async def overload() -> list[httpx.Response]:
            async with httpx.AsyncClient(base_url=service.url, timeout=60) as http:
                running = [asyncio.create_task(http.post("/query", json={"query": SLOW})) for _ in range(3)]
                while pool.waiting < 2:
                    await asyncio.sleep(0.01)
                refused = await asyncio.gather(*(http.post("/query", json={"query": SLOW}) for _ in range(9)))
                for task in running:
                    task.cancel()
                while pool.waiting:
                    await asyncio.sleep(0.01)
                return refused

        for response in asyncio.run(overload()):
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert response.json()["type"].endswith(":busy")
        assert service.worker_answers()


def test_500_concurrent_queries(dataset: Dataset) -> None:
    with serving(dataset.root, query_queue=16) as service:

        async def send_queries() -> list[int]:
            limits = httpx.Limits(max_connections=500)
            async with httpx.AsyncClient(base_url=service.url, timeout=60, limits=limits) as http:
                requests = (
                    http.post("/query", json={"query": "SELECT count(*) FROM range(300000)"}) for _ in range(500)
                )
                return [response.status_code for response in await asyncio.gather(*requests)]

        statuses = asyncio.run(send_queries())
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) >= 16
        assert service.worker_answers()


def test_request_timeout_is_capped_by_the_service(dataset: Dataset) -> None:
    with serving(dataset.root, query_workers=1, timeout_ms=600) as service:
        for requested, allowed in ((100, 100), (60_000, 600)):
            response = service.query(SLOW, timeout_ms=requested)
            assert response.status_code == 408
            assert response.json()["detail"] == f"The query was stopped after {allowed} ms."


def test_killed_worker_is_replaced(dataset: Dataset) -> None:
    with serving(dataset.root, query_workers=1, timeout_ms=500) as service:
        response = service.query("SELECT levenshtein(repeat('a', 100000), repeat('b', 100000))")
        assert response.status_code == 408
        assert service.worker_answers()
        assert "music_assets_worker_restarts 1.0" in service.http.get("/metrics").text


def test_large_result_streams_completely(dataset: Dataset) -> None:
    with serving(dataset.root, row_limit=500_000, timeout_ms=10_000) as service:
        sql = "SELECT i, repeat('x', 50) AS t FROM range(100000) r(i)"
        for form, expected in (("csv", 100_001), ("ndjson", 100_000)):
            with service.http.stream("POST", f"/query?format={form}", json={"query": sql}) as response:
                assert "transfer-encoding" not in response.headers
                assert response.headers["x-row-count"] == "100000"
                assert sum(1 for _ in response.iter_lines()) == expected
        assert len(service.rows(sql)) == 100_000


def test_client_that_does_not_read_holds_no_worker(dataset: Dataset) -> None:
    with serving(dataset.root, query_workers=1, row_limit=10**6) as service:
        body = json.dumps({"query": "SELECT i, repeat('x', 100) FROM range(300000) r(i)"}).encode()
        head = b"POST /query?format=csv HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as connection:
            connection.sendall(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            assert service.worker_answers()
        assert service.app.state.parts.pool.restarts == 0


RESTRICTIONS = """
import os, resource, socket, sys
from pathlib import Path
from music_assets.service.sandbox.limits import limit_memory, restrict_process
root = Path(sys.argv[1])
landlock = restrict_process([Path(sys.prefix), Path(sys.base_prefix), Path("/usr"), Path("/proc"), root / "open"])
limit_memory(64 * 2**20)
def attempt(action):
    try:
        action()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "done"
print("landlock", landlock)
print("read open", attempt(lambda: (root / "open" / "a").read_text()))
print("overwrite", attempt(lambda: os.write(os.open(root / "open" / "a", os.O_WRONLY), b"x")))
print("memory", attempt(lambda: bytes(200 * 2**20)))
if landlock:
    print("read closed", attempt(lambda: (root / "closed").read_text()))
    print("truncate", attempt(lambda: os.truncate(root / "open" / "a", 0)))
    print("make", attempt(lambda: (root / "open" / "b").touch()))
    print("remove", attempt(lambda: (root / "open" / "a").unlink()))
    print("connect", attempt(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[2])))))
    print("start", attempt(lambda: os.execv("/usr/bin/env", ["env"])))
"""


def test_restrictions_of_the_worker_process(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a").write_text("kept", encoding="utf-8")
    (tmp_path / "closed").write_text("closed", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", RESTRICTIONS, str(tmp_path), str(server.getsockname()[1])]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    outcomes = dict(line.rsplit(" ", 1) for line in output.splitlines())
    assert outcomes.pop("read open") == "done"
    landlock = outcomes.pop("landlock") == "True"
    assert outcomes["memory"] == "MemoryError"
    assert set(outcomes.values()) <= {"MemoryError", "OSError", "PermissionError"}
    assert len(outcomes) == (8 if landlock else 2)
    assert (tmp_path / "open" / "a").read_text(encoding="utf-8") == "kept"


def test_worker_memory_stays_flat(dataset: Dataset) -> None:
    with serving(dataset.root, query_workers=1) as service:

        def resident() -> int:
            children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
            workers = {pid for child in children for pid in child.read_text().split()}
            return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in workers) * 4096

        def send_queries(count: int) -> None:
            for number in range(count):
                service.rows(f"SELECT artist_name, {number} FROM raw_parquet_user_top_artists WHERE rank = 1 LIMIT 3")

        send_queries(100)
        before = resident()
        send_queries(300)
        assert resident() - before < 30 * 2**20


def test_large_results_are_possible_after_queries_that_ran_out_of_memory(dataset: Dataset) -> None:
    bombs = (
        "SELECT length((repeat('1', 100000000)::BIT << 5)::VARCHAR)",
        "SELECT count(*) FROM range(100000) a(i), LATERAL (SELECT * FROM range(i * 1000)) b(j)",
        "SELECT json_valid(repeat('[', 10000000))",
        "SELECT list(i) OVER (ORDER BY i) FROM range(100000) t(i)",
    )
    with serving(dataset.root, query_workers=1, timeout_ms=30_000) as service:
        for bomb in bombs:
            service.query(bomb, timeout_ms=10_000)
        assert len(service.rows("SELECT repeat('x', 7000) FROM range(10000)")) == 10_000
        assert service.app.state.parts.pool.restarts == 0


def test_threads_end_with_the_service(dataset: Dataset) -> None:
    before = threading.active_count()
    with serving(dataset.root, query_workers=1) as service:
        service.rows("SELECT 1")
    wait_until(lambda: threading.active_count() <= before, "the end of the threads")
