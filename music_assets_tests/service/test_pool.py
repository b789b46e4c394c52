"""The worker processes under pressure: overload, keys and rates, slow readers, and what a process has given up."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from music_assets import cli
from music_assets.service.app import serve
from music_assets.service.auth import api_keys, key_name
from music_assets.settings import Settings, SettingsError
from music_assets_tests.service.conftest import World, serving

SLOW = "SELECT count(*) FROM range(100000000000) t(i) WHERE hash(i) = 1"


def test_beyond_the_queue_callers_are_told_to_come_back(world: World) -> None:
    with serving(world.root, query_workers=1, query_queue=2, timeout_ms=800) as service:

        async def crowd() -> list[httpx.Response]:
            async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
                return await asyncio.gather(*(http.post("/query", json={"query": SLOW}) for _ in range(12)))

        responses = asyncio.run(crowd())
        statuses = sorted(response.status_code for response in responses)
        assert statuses == [408] * 3 + [503] * 9
        for response in responses:
            if response.status_code == 503:
                assert response.headers["retry-after"] == "1"
                assert response.json()["type"].endswith(":busy")
        assert service.rows("SELECT 1") == [[1]]


def test_five_hundred_callers_at_once(world: World) -> None:
    with serving(world.root, query_queue=16) as service:

        async def crowd() -> list[int]:
            limits = httpx.Limits(max_connections=500)
            async with httpx.AsyncClient(base_url=service.url, timeout=60, limits=limits) as http:
                asks = (http.post("/query", json={"query": "SELECT count(*) FROM range(300000)"}) for _ in range(500))
                return [response.status_code for response in await asyncio.gather(*asks)]

        statuses = asyncio.run(crowd())
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) >= 16
        assert service.rows("SELECT 1") == [[1]]


def test_timeout_is_the_callers_up_to_the_services(world: World) -> None:
    with serving(world.root, query_workers=1, timeout_ms=600) as service:
        for asked, longest in ((100, 0.5), (60_000, 1.5)):
            response = service.query(SLOW, timeout_ms=asked)
            assert response.status_code == 408
            assert response.elapsed.total_seconds() < longest + 1


def test_a_killed_worker_is_replaced(world: World) -> None:
    with serving(world.root, query_workers=1, timeout_ms=500) as service:
        response = service.query("SELECT levenshtein(repeat('a', 100000), repeat('b', 100000))")
        assert response.status_code == 408
        assert service.rows("SELECT 1") == [[1]]
        assert "music_assets_worker_restarts 1.0" in service.http.get("/metrics").text


def test_a_large_answer_streams_and_is_whole(world: World) -> None:
    with serving(world.root, row_limit=500_000, timeout_ms=10_000) as service:
        sql = "SELECT i, repeat('x', 50) AS t FROM range(300000) r(i)"
        for form, expected in (("csv", 300_001), ("ndjson", 300_000)):
            with service.http.stream("POST", f"/query?format={form}", json={"query": sql}) as response:
                assert "content-length" not in response.headers
                assert response.headers["x-row-count"] == "300000"
                assert sum(1 for _ in response.iter_lines()) == expected
        assert len(service.rows(sql)) == 300_000


def test_a_caller_who_does_not_read_on_keeps_no_worker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("music_assets.service.responses.TRANSFER_TIMEOUT_SECONDS", 1.0)
    with serving(world.root, query_workers=1, row_limit=10**6) as service:
        body = json.dumps({"query": "SELECT i, repeat('x', 100) FROM range(300000) r(i)"}).encode()
        head = b"POST /query?format=csv HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as connection:
            connection.sendall(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            started = time.monotonic()
            assert service.rows("SELECT 1") == [[1]]
            assert time.monotonic() - started < 15


def test_rate_limit_per_key(world: World) -> None:
    keys = {"ann": "a-key", "bob": "b-key"}
    entries = ",".join(f"{name}:{sha256(key.encode()).hexdigest()}" for name, key in keys.items())
    with serving(world.root, api_keys=entries, rate_limit="3/hour", query_workers=1) as service:

        def status(key: str) -> int:
            return service.http.get("/tables", headers={"Authorization": f"Bearer {key}"}).status_code

        assert [status("a-key") for _ in range(5)] == [200, 200, 200, 429, 429]
        assert status("b-key") == 200
        refused = service.http.get("/tables", headers={"Authorization": "Bearer a-key"})
        assert int(refused.headers["retry-after"]) >= 1
        assert service.http.get("/healthz").status_code == 200


def test_without_a_key_only_the_open_addresses_answer(world: World) -> None:
    entry = f"ann:{sha256(b'secret').hexdigest()}"
    with serving(world.root, api_keys=entry, query_workers=1) as service:
        document = service.http.get("/openapi.json").json()
        for path, methods in document["paths"].items():
            for method in methods:
                for authorization in ("", "Bearer", "Bearer wrong", "Basic secret", f"Bearer {entry[4:]}"):
                    response = service.http.request(method, path, headers={"Authorization": authorization})
                    assert (response.status_code == 401) == (path not in ("/healthz", "/readyz")), (path, authorization)
        headers = {"Authorization": "bearer secret", "Host": "music.example"}
        assert service.http.get("/tables", headers=headers).status_code == 200


def test_keys_come_from_setting_and_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(
        f"# team\nann:{sha256(b'1').hexdigest()}\n\nbob:{sha256(b'2').hexdigest()} # left\n", encoding="utf-8"
    )
    keys = api_keys(Settings(api_keys=f"eve:{sha256(b'3').hexdigest()}", api_keys_file=file))  # type: ignore[arg-type]
    assert [key_name(keys, key) for key in "1234"] == ["ann", "bob", "eve", None]


@pytest.mark.parametrize("entry", ["ann", "ann:123", "ann:" + "g" * 64, f"a:{'0' * 64},a:{'1' * 64}", ":" + "0" * 64])
def test_wrong_key_entries_stop_the_start(world: World, entry: str) -> None:
    with pytest.raises(SettingsError, match="NAME:DIGEST") as told:
        serve(Settings(data=world.root, api_keys=entry))  # type: ignore[arg-type]
    assert entry not in str(told.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "music.example"])
def test_no_start_for_others_without_a_key(world: World, host: str) -> None:
    with pytest.raises(SettingsError, match="no API key is set"):
        serve(Settings(data=world.root, host=host))


def test_api_key_command_creates_a_valid_key() -> None:
    output = CliRunner().invoke(cli.app, ["api-key", "ann"]).stdout
    key, entry = (line.rpartition(" ")[2] for line in output.splitlines())
    assert key_name(api_keys(Settings(api_keys=entry)), key) == "ann"  # type: ignore[arg-type]
    assert CliRunner().invoke(cli.app, ["api-key", "a b"]).exit_code == 1


GIVEN_UP = """
import os, resource, socket, sys
from pathlib import Path
from music_assets.service.sandbox.limits import limit_memory, restrict_process
root = Path(sys.argv[1])
kept = restrict_process([Path(sys.prefix), Path(sys.base_prefix), Path("/usr"), Path("/proc"), root / "open"])
limit_memory(64 * 2**20)
def tried(what):
    try:
        what()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "done"
print("landlock", kept)
print("read open", tried(lambda: (root / "open" / "a").read_text()))
print("overwrite", tried(lambda: os.write(os.open(root / "open" / "a", os.O_WRONLY), b"x")))
print("memory", tried(lambda: bytes(200 * 2**20)))
if kept:
    print("read closed", tried(lambda: (root / "closed").read_text()))
    print("truncate", tried(lambda: os.truncate(root / "open" / "a", 0)))
    print("make", tried(lambda: (root / "open" / "b").touch()))
    print("remove", tried(lambda: (root / "open" / "a").unlink()))
    print("connect", tried(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[2])))))
    print("start", tried(lambda: os.execv("/usr/bin/env", ["env"])))
"""


def test_what_a_worker_process_has_given_up(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a").write_text("kept", encoding="utf-8")
    (tmp_path / "closed").write_text("closed", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        told = subprocess.run(
            [sys.executable, "-c", GIVEN_UP, str(tmp_path), port], capture_output=True, text=True, check=True
        ).stdout
    found = dict(line.rsplit(" ", 1) for line in told.splitlines())
    assert found.pop("read open") == "done"
    landlock = found.pop("landlock") == "True"
    assert found["memory"] == "MemoryError"
    assert set(found.values()) <= {"MemoryError", "OSError", "PermissionError"}
    assert len(found) == (8 if landlock else 2)
    assert (tmp_path / "open" / "a").read_text(encoding="utf-8") == "kept"


def test_memory_stays_flat(world: World) -> None:
    with serving(world.root, query_workers=1) as service:

        def resident() -> int:
            children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
            workers = {pid for child in children for pid in child.read_text().split()}
            return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in workers) * 4096

        def ask(count: int) -> None:
            for number in range(count):
                service.rows(f"SELECT artist_name, {number} FROM raw_parquet_user_top_artists WHERE rank = 1 LIMIT 3")

        ask(150)
        before = resident()
        ask(400)
        assert resident() - before < 30 * 2**20


def test_threads_end_with_the_service(world: World) -> None:
    before = threading.active_count()
    with serving(world.root, query_workers=1) as service:
        service.rows("SELECT 1")
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before
