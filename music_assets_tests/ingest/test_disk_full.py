"""Full disks, read-only disks, missing permissions: no file is lost or counted twice, and messages name the path."""

import errno
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from music_assets.engines.duckdb import DuckDBEngine
from music_assets.storage.published_snapshot import connect
from music_assets.tables import USER_DATA
from music_assets_tests.support.disk import fill_disk, read_only_view, small_disk, unprivileged
from music_assets_tests.support.ingest_harness import IngestHarness
from music_assets_tests.support.project import RANKED_ARTISTS, TOP_ARTISTS, USERS, Project

HEADER = "user_id,country,total_scrobbles\n"
MANY = HEADER + "".join(f"{user},Germany,{user * 7919 % 100_003}\n" for user in range(10_000))
MIXED = HEADER + "20000,Chad,1\nx,Chad,2\n"
PAGE = 4096


def outcomes(harness: IngestHarness) -> list[tuple[str, str]]:
    return sorted((file.name, file.outcome) for file in harness.load(USER_DATA).files)


# ---- Full -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spare_pages", [0, 1, 8, 16, 24, 28, 32, 40, 64])
def test_full_disk_loses_nothing(tmp_path: Path, spare_pages: int) -> None:
    """Wherever the space ends, at a parquet file, the log, the move of a bad file: with more space, all is loaded."""
    with small_disk(tmp_path / "disk", 8) as disk:
        harness = IngestHarness(disk / "data", DuckDBEngine(disk / "scratch", threads=1))
        harness.drop(USER_DATA, "a many.csv", MANY)
        harness.drop(USER_DATA, "b mixed.csv", MIXED)
        harness.drop(USER_DATA, "c bad.csv", "name\nx\n")
        with fill_disk(disk, spare_pages * PAGE):
            try:
                harness.load(USER_DATA)
            except Exception as error:  # Each library has its own; the message must be clear.
                assert "No space left on device" in str(error) or "os error 28" in str(error), repr(error)
            left = set(harness.waiting()) | {path.name for path in (disk / "data").glob("rejected/*.csv")}
            in_table = {name for (name,) in harness.rows(USER_DATA, "source_file")}
            assert left | in_table == {"a many.csv", "b mixed.csv", "c bad.csv"}
        harness.load(USER_DATA)
        assert len(harness.rows(USER_DATA)) == 10_001
        assert harness.rejected() == [(3, "user_id", "not an integer", "x,Chad,2")]
        assert (disk / "data/rejected/c bad.csv").read_text() == "name\nx\n"
        assert harness.waiting() == []


def test_full_disk_while_publishing_keeps_the_last_snapshot(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 24) as disk:
        project = Project(disk / "data", threads=1)
        project.drop_both()
        assert project.refresh().success
        project.drop(USER_DATA, USERS + "5,Malta,1\n")
        project.drop(USER_DATA, TOP_ARTISTS + "5,1,Can,1,\n", "bad.csv")
        with fill_disk(disk, 32 * PAGE):
            assert not project.refresh().success
            assert shown(project, "SELECT * FROM processed_parquet_artist_rank_in_country") == RANKED_ARTISTS
        assert project.refresh().success
        assert shown(project, "SELECT count(*) FROM raw_parquet_user_data") == [(9,)]
        assert not list((disk / "data/music_db").glob(".building-*"))


def shown(project: Project, sql: str) -> list[tuple[object, ...]]:
    with connect(project.root) as connection:
        return sorted(connection.execute(sql).fetchall())


# ---- Read-only ------------------------------------------------------------------------------------------------------


def test_read_only_disk_can_be_queried_and_the_run_names_the_reason(tmp_path: Path) -> None:
    project = Project(tmp_path / "disk/data", threads=1)
    project.drop_both()
    assert project.refresh().success
    path = project.drop(USER_DATA, HEADER + "5,Malta,1\n")
    with read_only_view(tmp_path / "disk", tmp_path / "read-only") as view:
        closed = Project(view / "data", threads=1)
        failed = closed.refresh()
        assert not failed.success
        messages = [event.event_specific_data.error.to_string() for event in failed.get_step_failure_events()]
        assert any("Read-only file system" in text and str(closed.root) in text for text in messages), messages
        assert shown(closed, "SELECT * FROM processed_parquet_artist_rank_in_country") == RANKED_ARTISTS
    assert path.exists()
    assert project.refresh().success
    assert shown(project, "SELECT count(*) FROM raw_parquet_user_data") == [(5,)]


# ---- Missing permissions --------------------------------------------------------------------------------------------


@pytest.fixture
def rights() -> Iterator[IngestHarness]:
    """A data root of a user to whom permissions apply."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        with unprivileged():
            yield IngestHarness(Path(folder) / "data", DuckDBEngine(Path(folder) / "scratch", threads=1))
        for path in Path(folder).rglob("*"):
            path.chmod(0o700)


def test_unreadable_file_is_rejected(rights: IngestHarness) -> None:
    rights.drop(USER_DATA, "a.csv", HEADER + "1,Germany,5\n").chmod(0)
    rights.drop(USER_DATA, "b.csv", HEADER + "2,Chad,6\n")
    assert outcomes(rights) == [("a.csv", "rejected"), ("b.csv", "loaded")]
    assert "unreadable: Permission denied" in (rights.root.rejected / "a.csv.reason.txt").read_text()
    moved = rights.root.rejected / "a.csv"
    moved.chmod(0o600)
    assert moved.read_text() == HEADER + "1,Germany,5\n"


def test_unreadable_folder_raises(rights: IngestHarness) -> None:
    """It must not be mistaken for an empty one."""
    folder = rights.landing.root.drop_folder(USER_DATA)
    folder.chmod(0)
    with pytest.raises(PermissionError, match="Permission denied") as raised:
        rights.load(USER_DATA)
    assert raised.value.errno == errno.EACCES
    assert str(folder) in str(raised.value)


def test_file_that_cannot_be_deleted_is_counted_once(rights: IngestHarness, caplog: pytest.LogCaptureFixture) -> None:
    folder = rights.landing.root.drop_folder(USER_DATA)
    rights.drop(USER_DATA, "a.csv", HEADER + "1,Germany,5\n")
    rights.drop(USER_DATA, "b.csv", HEADER + "2,Chad,6\n")
    folder.chmod(0o500)
    with caplog.at_level(logging.ERROR):
        assert outcomes(rights) == [("a.csv", "loaded"), ("b.csv", "loaded")]
        assert outcomes(rights) == [("a.csv", "duplicate"), ("b.csv", "duplicate")]
    assert rights.delivered(USER_DATA) == [(1, "Germany", 5), (2, "Chad", 6)]
    assert rights.waiting() == ["a.csv", "b.csv"]
    user = os.geteuid()
    assert (
        "a.csv: rows loaded, but the file could not be deleted: Permission denied. Every run reads it again until you "
        f"delete it, or allow user {user} to delete files from {folder}"
    ) in caplog.messages
    folder.chmod(0o700)
    assert outcomes(rights) == [("a.csv", "duplicate"), ("b.csv", "duplicate")]
    assert rights.waiting() == []


def test_bad_file_that_cannot_be_moved_stays_and_others_are_loaded(
    rights: IngestHarness, caplog: pytest.LogCaptureFixture
) -> None:
    rights.drop(USER_DATA, "a.csv", "nonsense\n")
    rights.drop(USER_DATA, "b.csv", HEADER + "2,Chad,6\n")
    rights.root.rejected.mkdir(mode=0o500)
    with caplog.at_level(logging.ERROR):
        assert outcomes(rights) == [("a.csv", "rejected"), ("b.csv", "loaded")]
    assert f"a.csv: could not be moved to {rights.root.rejected}: Permission denied" in caplog.messages
    assert rights.waiting() == ["a.csv"]
    assert not list(rights.root.rejected.iterdir())


def test_bad_file_is_moved_to_another_disk(harness: IngestHarness) -> None:
    """Hard links do not work from one file system to another."""
    content = "nonsense\n" * 1000
    with small_disk(harness.root.rejected, 1) as disk:
        harness.drop(USER_DATA, "a.csv", content)
        assert outcomes(harness) == [("a.csv", "rejected")]
        assert (disk / "a.csv").read_text() == content
        assert harness.waiting() == []
        with fill_disk(disk, PAGE):
            harness.drop(USER_DATA, "b.csv", content + "\n")
            harness.drop(USER_DATA, "c.csv", HEADER + "1,Chad,1\n")
            assert outcomes(harness) == [("b.csv", "rejected"), ("c.csv", "loaded")]
            assert harness.waiting() == ["b.csv"]
        assert sorted(path.name for path in disk.iterdir()) == ["a.csv", "a.csv.reason.txt"]
