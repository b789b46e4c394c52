"""New snapshots under load: no query fails, none mixes two versions, and what the old ones held is given back."""

import gc
import os
import threading
import time
from pathlib import Path

import httpx
import pytest

from music_assets.data_root import DataRoot
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import connect
from music_assets.tables import COUNTRY_RANK_PER_ARTIST, USER_DATA
from music_assets_tests.service.conftest import Service, World, make_world, publish_again, serving, write

TELLS_VERSIONS = """
SELECT
    (SELECT max(total_scrobbles) FROM raw_parquet_user_data) AS raw,
    (SELECT max(total_playcount) FROM processed_parquet_country_rank_per_artist) AS ranking
"""
SNAPSHOTS = 10


@pytest.fixture
def own(tmp_path: Path) -> World:
    return make_world(tmp_path)


def publish_marked(world: World, mark: int) -> str:
    """Publish a snapshot in which a raw table and a ranking both carry the mark; return its version."""
    store = DeltaStore(DataRoot(world.root))
    write(store, USER_DATA, world.users.assign(total_scrobbles=10**7 + mark))
    rankings = world.rankings.assign(rank=world.rankings.rank_for_artist, total_playcount=10.0**7 + mark)
    write(store, COUNTRY_RANK_PER_ARTIST, rankings)
    return publish_again(world.root).data_version


def open_snapshots(root: Path) -> int:
    """Count the handles on snapshot files in this process's workers."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    workers = {pid for child in children for pid in child.read_text().split()}
    handles = [handle for pid in workers for handle in Path(f"/proc/{pid}/fd").glob("*")]
    return sum(str(handle.readlink()).startswith(str(root / "music_db")) for handle in handles)


def test_ten_snapshots_in_a_row_under_load(own: World) -> None:
    marks = {publish_marked(own, 0): 0}
    with serving(own.root) as service:
        before = open_snapshots_settled(service, own.root)
        stop = threading.Event()
        seen: list[tuple[int, str, float, float]] = []

        def ask() -> None:
            with httpx.Client(base_url=service.url, timeout=30) as http:
                while not stop.is_set():
                    response = http.post("/query", json={"query": TELLS_VERSIONS})
                    answer = response.json()
                    raw, ranking = answer["rows"][0] if response.status_code == 200 else (0, 0)
                    seen.append((response.status_code, response.headers.get("x-data-version", ""), raw, ranking))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for mark in range(1, SNAPSHOTS + 1):
            marks[publish_marked(own, mark)] = mark
            assert service.rows(TELLS_VERSIONS)[0][0] == 10**7 + mark
        stop.set()
        for thread in threads:
            thread.join()
        assert len(seen) > SNAPSHOTS
        for status, version, raw, ranking in seen:
            assert status == 200
            assert raw == ranking == 10**7 + marks[version]
        assert open_snapshots_settled(service, own.root) == before == 2
        assert service.http.get("/readyz").json()["data_version"] == max(marks)
        assert "music_assets_worker_restarts 0.0" in service.http.get("/metrics").text
    assert len(list((own.root / "music_db").glob("*.duckdb"))) <= 4


def open_snapshots_settled(service: Service, root: Path) -> int:
    """Count the handles once idle workers have had the time to go over to the newest snapshot."""
    deadline = time.monotonic() + 10
    while (count := open_snapshots(root)) != 2 and time.monotonic() < deadline:
        service.rows("SELECT 1")
        time.sleep(0.1)
    gc.collect()
    return count


def test_a_snapshot_keeps_its_rows_to_the_end_of_an_answer(own: World) -> None:
    publish_marked(own, 1)
    sql = "SELECT a.total_scrobbles, b.user_id FROM raw_parquet_user_data a, raw_parquet_user_data b, range(10)"
    with (
        serving(own.root) as service,
        service.http.stream("POST", "/query?format=csv", json={"query": sql}) as response,
    ):
        chunks = response.iter_bytes()
        first = next(chunks)
        publish_marked(own, 2)
        text = (first + b"".join(chunks)).decode()
    lines = text.splitlines()[1:]
    assert len(lines) == len(own.users) ** 2 * 10
    assert {line.partition(",")[0] for line in lines} == {str(10**7 + 1)}


def test_bytes_of_a_served_snapshot_stand_still(own: World) -> None:
    with serving(own.root) as service:
        before = own.published.path.read_bytes()
        service.rows("SELECT count(*) FROM raw_parquet_user_data")
        assert own.published.path.read_bytes() == before
    with connect(DataRoot(own.root)) as connection:
        assert connection.execute("SELECT count(*) FROM raw_parquet_user_data").fetchone() == (len(own.users),)


def test_data_root_that_is_made_and_replaced_while_the_service_runs(tmp_path: Path) -> None:
    root = tmp_path / "later"
    with serving(root, query_workers=1) as service:
        assert service.query("SELECT 1").status_code == 503
        make_world(root)
        assert service.rows("SELECT count(*) > 0 FROM raw_parquet_user_data") == [[True]]
        root.rename(tmp_path / "aside")
        make_world(root, seed=2)
        deadline = time.monotonic() + 20
        while service.query("SELECT 1").status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert service.rows("SELECT count(*) > 0 FROM raw_parquet_user_data") == [[True]]


@pytest.mark.parametrize("damage", ["pointer", "newest snapshot"])
def test_damage_to_what_is_published_does_not_end_the_service(own: World, damage: str) -> None:
    """It answered 500 over a damaged pointer, and 503 for good over a snapshot that was cut off."""
    publish_marked(own, 1)
    newest = publish_marked(own, 2)
    with serving(own.root) as service:
        assert service.rows(TELLS_VERSIONS) == [[10**7 + 2, 10.0**7 + 2]]
        folder = own.root / "music_db"
        damaged = folder / ("current.json" if damage == "pointer" else f"music_db-{newest}.duckdb")
        damaged.write_bytes(damaged.read_bytes()[:100])
        mark = 2 if damage == "pointer" else 1
        assert service.rows("SELECT max(total_playcount) FROM processed_parquet_country_rank_per_artist") == [
            [10.0**7 + mark]
        ]
        assert service.http.get("/readyz").status_code == 200
    with serving(own.root) as restarted:
        assert restarted.http.get("/countries").status_code == 200
        publish_marked(own, 3)
        assert restarted.rows(TELLS_VERSIONS) == [[10**7 + 3, 10.0**7 + 3]]
