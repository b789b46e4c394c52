"""New snapshots while queries run: no query fails or mixes two versions, and old snapshots are closed."""

import asyncio
import gc
import os
import threading
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

import httpx
import pytest

from music_assets.data_root import DataRoot
from music_assets.maintenance.backup import UNFINISHED_RESTORE
from music_assets.service.snapshots import InMemory, Snapshots
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import PublishedSnapshot, connect
from music_assets.tables import COUNTRY_RANK_PER_ARTIST, USER_DATA
from music_assets_tests.service.conftest import Dataset, Service, make_dataset, publish_tables, serving, write
from music_assets_tests.service.test_similarity import embed
from music_assets_tests.support.processes import wait_until

VERSIONS = """
SELECT
    (SELECT max(total_scrobbles) FROM raw_parquet_user_data) AS raw,
    (SELECT max(total_playcount) FROM processed_parquet_country_rank_per_artist) AS ranking
"""
SNAPSHOTS = 10


@pytest.fixture
def fresh_dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path)


def publish_marked(dataset: Dataset, mark: int) -> str:
    """Publish a snapshot with the mark in a raw table and in a ranking; return its data version."""
    store = DeltaStore(DataRoot(dataset.root))
    write(store, USER_DATA, dataset.users.assign(total_scrobbles=10**7 + mark))
    rankings = dataset.rankings.assign(rank=dataset.rankings.rank_for_artist, total_playcount=10.0**7 + mark)
    write(store, COUNTRY_RANK_PER_ARTIST, rankings)
    return publish_tables(dataset.root).data_version


def open_snapshots(root: Path) -> int:
    """Count the open snapshot files of the worker processes."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    workers = {pid for child in children for pid in child.read_text().split()}
    handles = [handle for pid in workers for handle in Path(f"/proc/{pid}/fd").glob("*")]
    return sum(str(handle.readlink()).startswith(str(root / "music_db")) for handle in handles)


def test_ten_snapshots_under_load(fresh_dataset: Dataset) -> None:
    marks = {publish_marked(fresh_dataset, 0): 0}
    with serving(fresh_dataset.root) as service:
        before = open_snapshots_settled(service, fresh_dataset.root)
        stop = threading.Event()
        seen: list[tuple[int, str, float, float]] = []

        def send_queries() -> None:
            with httpx.Client(base_url=service.url, timeout=30) as http:
                for number in count():
                    if stop.is_set():
                        break
                    response = http.post("/query", json={"query": f"{VERSIONS} -- {number}"})  # not known before
                    result = response.json()
                    raw, ranking = result["rows"][0] if response.status_code == 200 else (0, 0)
                    seen.append((response.status_code, response.headers.get("x-data-version", ""), raw, ranking))

        threads = [threading.Thread(target=send_queries) for _ in range(3)]
        for thread in threads:
            thread.start()
        for mark in range(1, SNAPSHOTS + 1):
            marks[publish_marked(fresh_dataset, mark)] = mark
            assert service.rows(VERSIONS)[0][0] == 10**7 + mark
        stop.set()
        for thread in threads:
            thread.join()
        assert len(seen) > SNAPSHOTS
        for status, version, raw, ranking in seen:
            assert status == 200
            assert raw == ranking == 10**7 + marks[version]
        assert open_snapshots_settled(service, fresh_dataset.root) == before == 2
        assert service.http.get("/readyz").json()["data_version"] == max(marks)
        assert "music_assets_worker_restarts 0.0" in service.http.get("/metrics").text
    assert len(list((fresh_dataset.root / "music_db").glob("*.duckdb"))) <= 4


def open_snapshots_settled(service: Service, root: Path) -> int:
    """Count the open snapshot files once idle workers have moved to the newest snapshot."""
    deadline = time.monotonic() + 10
    while (found := open_snapshots(root)) != 2 and time.monotonic() < deadline:
        service.rows(f"SELECT {time.monotonic_ns()}")
        time.sleep(0.1)
    gc.collect()
    return found


def test_streamed_result_reads_one_snapshot(fresh_dataset: Dataset) -> None:
    publish_marked(fresh_dataset, 1)
    sql = "SELECT a.total_scrobbles, b.user_id FROM raw_parquet_user_data a, raw_parquet_user_data b, range(10)"
    with (
        serving(fresh_dataset.root) as service,
        service.http.stream("POST", "/query?format=csv", json={"query": sql}) as response,
    ):
        chunks = response.iter_bytes()
        first = next(chunks)
        publish_marked(fresh_dataset, 2)
        text = (first + b"".join(chunks)).decode()
    lines = text.splitlines()[1:]
    assert len(lines) == len(fresh_dataset.users) ** 2 * 10
    assert {line.partition(",")[0] for line in lines} == {str(10**7 + 1)}


def test_queries_leave_the_snapshot_file_unchanged(fresh_dataset: Dataset) -> None:
    with serving(fresh_dataset.root) as service:
        before = fresh_dataset.published.path.read_bytes()
        service.rows("SELECT count(*) FROM raw_parquet_user_data")
        assert fresh_dataset.published.path.read_bytes() == before
    with connect(DataRoot(fresh_dataset.root)) as connection:
        assert connection.execute("SELECT count(*) FROM raw_parquet_user_data").fetchone() == (
            len(fresh_dataset.users),
        )


def test_data_root_created_restored_and_replaced_while_serving(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "later"
    with serving(root, query_workers=1) as service:
        assert service.query("SELECT 1").json()["type"].endswith(":nothing-published")
        DataRoot(root).record_layout(UNFINISHED_RESTORE)
        assert service.query("SELECT 1").json()["type"].endswith(":unreadable")
        wait_until(lambda: caplog.text.count(UNFINISHED_RESTORE) > 1, "the check for a new snapshot")
        DataRoot(root).record_layout()
        embed(make_dataset(root), seed=1)
        assert service.rows("SELECT count(*) > 0 FROM raw_parquet_user_data") == [[True]]
        similar = service.http.get("/artists/Drake/similar").json()["rows"]
        root.rename(tmp_path / "aside")
        embed(make_dataset(root, seed=2), seed=2)
        wait_until(lambda: service.query("SELECT 1").status_code != 503, "the new data root")
        assert service.rows("SELECT count(*) > 0 FROM raw_parquet_user_data") == [[True]]
        assert service.http.get("/artists/Drake/similar").json()["rows"] != similar
    assert "Traceback" not in caplog.text


def test_cancelled_requests_do_not_load_at_the_same_time(dataset: Dataset) -> None:
    started, end = [], threading.Event()

    def load(snapshot: PublishedSnapshot) -> str:
        started.append(snapshot)
        end.wait()
        return snapshot.data_version

    async def request_and_leave() -> tuple[str, str]:
        held = InMemory(Snapshots(DataRoot(dataset.root)), load, lambda snapshot: snapshot.data_version)
        for _ in range(3):
            with suppress(TimeoutError):
                await asyncio.wait_for(held.current(), 0.01)
        end.set()
        return await held.current()

    assert asyncio.run(request_and_leave()) == (dataset.published.data_version,) * 2
    assert len(started) == 1


@pytest.mark.parametrize("damage", ["pointer", "newest snapshot"])
def test_service_survives_a_damaged_snapshot(fresh_dataset: Dataset, damage: str) -> None:
    publish_marked(fresh_dataset, 1)
    newest = publish_marked(fresh_dataset, 2)
    with serving(fresh_dataset.root) as service:
        assert service.rows(VERSIONS) == [[10**7 + 2, 10.0**7 + 2]]
        folder = fresh_dataset.root / "music_db"
        damaged = folder / ("current.json" if damage == "pointer" else f"music_db-{newest}.duckdb")
        damaged.chmod(0o644)
        damaged.write_bytes(damaged.read_bytes()[:100])
        mark = 2 if damage == "pointer" else 1
        assert service.rows("SELECT max(total_playcount) FROM processed_parquet_country_rank_per_artist") == [
            [10.0**7 + mark]
        ]
        assert service.http.get("/readyz").status_code == 200
    with serving(fresh_dataset.root) as restarted:
        assert restarted.http.get("/countries").status_code == 200
        publish_marked(fresh_dataset, 3)
        assert restarted.rows(VERSIONS) == [[10**7 + 3, 10.0**7 + 3]]
