"""Drop folders on S3: what waits, what is ignored, and several machines that load the same objects."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from music_assets.data_root import DataRoot
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.ingest.object_landing import open_landing
from music_assets.storage.delta import ConcurrentCommitError
from music_assets.tables import USER_DATA
from music_assets_tests.support.ingest_harness import IngestHarness
from music_assets_tests.support.s3_server import S3Server

HEADER = "user_id,country,total_scrobbles\n"


@pytest.fixture
def root(s3: S3Server, tmp_path: Path) -> DataRoot:
    return s3.root(tmp_path, tmp_path.name)


def put(root: DataRoot, name: str, content: str = HEADER) -> None:
    root.write(root.drop_folder(USER_DATA) / name, content.encode())


def test_objects_are_complete_when_listed(s3: S3Server, root: DataRoot) -> None:
    for name in ("b.csv", "a.CSV", "c.csv.gz", ".hidden.csv", "d.csv.tmp", "e.zip", "below/f.csv"):
        put(root, name)
    put(root, "empty.csv", "")
    drops = root.address(root.drop_folder(USER_DATA)).removeprefix("s3://")
    for folder in ("", "folder/", "export.csv/"):  # as consoles and Hadoop mark them
        httpx.put(f"{s3.url}/{drops}/{folder}").raise_for_status()
    landing = open_landing(root, settle_seconds=100)
    assert [file.name for file in landing.complete_files()[USER_DATA]] == ["b.csv", "a.CSV", "c.csv.gz", "empty.csv"]
    assert [entry.partition(":")[0] for entry in landing.ignored(USER_DATA)] == ["below/f.csv", "e.zip"]


def test_replaced_object_is_neither_read_nor_deleted(root: DataRoot) -> None:
    put(root, "a.csv")
    (listed,) = open_landing(root).files(USER_DATA)
    put(root, "a.csv", HEADER + "1,Mali,1\n")
    assert not listed.is_unchanged()
    with pytest.raises(FileNotFoundError, match="replaced by another object"):
        listed.stage()
    assert not listed.delete()
    (found,) = open_landing(root).files(USER_DATA)
    found.stage()
    assert found.path.read_text() == HEADER + "1,Mali,1\n"
    assert found.delete()
    assert open_landing(root).files(USER_DATA) == []


def test_placed_file_overwrites_nothing(root: DataRoot, tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    file.write_text(HEADER + "1,Mali,1\n")
    placed = [open_landing(root).place(file) for _ in range(2)]
    assert [path.name for path in placed] == ["users.csv", "users-2.csv"]
    assert [found.name for found in open_landing(root).files(USER_DATA)] == ["users.csv", "users-2.csv"]


def test_four_machines_load_the_same_objects(s3: S3Server, tmp_path: Path) -> None:
    """Each has a work folder of its own. Some fail, but every row is in the table once."""
    machines = [
        IngestHarness(s3.root(tmp_path / f"machine {number}", tmp_path.name), DuckDBEngine(tmp_path, threads=1))
        for number in range(4)
    ]
    for user in range(1, 4):
        put(machines[0].root, f"{user}.csv", HEADER + f"{user},Mali,{user}\n")

    def load(machine: IngestHarness) -> bool:
        try:
            machine.load(USER_DATA)
        except ConcurrentCommitError:
            return False
        return True

    with ThreadPoolExecutor(len(machines)) as threads:
        assert any(threads.map(load, machines))
    machines[0].load(USER_DATA)
    assert machines[1].delivered(USER_DATA) == [(user, "Mali", user) for user in range(1, 4)]
    assert machines[2].waiting() == []
