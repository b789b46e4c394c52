"""Damaged storage: an intact snapshot is used, and a damaged log stops ingest and vacuum."""

import logging

import pytest

from music_assets.data_root import DataRoot
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.ingest.ingest import LostHistoryError
from music_assets.service.snapshots import Snapshots
from music_assets.storage.published_snapshot import NothingPublishedError, newest_snapshot
from music_assets.tables import REJECTED_ROWS, USER_DATA, Table
from music_assets_tests.support.corruption import (
    SNAPSHOT_CORRUPTIONS,
    corrupt,
    empty,
    garble,
    log_entry,
    pointer,
    snapshot,
)
from music_assets_tests.support.ingest_harness import IngestHarness
from music_assets_tests.support.project import Project

MORE = "user_id,country,total_scrobbles\n6,Malta,1\n"


# ---- What is published ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", SNAPSHOT_CORRUPTIONS)
def test_newest_intact_snapshot_is_used(root: DataRoot, cause: str, caplog: pytest.LogCaptureFixture) -> None:
    newest = newest_snapshot(root).data_version
    older = min(path.stem for path in root.files_below(root.snapshots) if path.suffix == ".duckdb")
    damaged = corrupt(root, cause)
    expected = newest if "pointer" in cause else older.removeprefix("music_db-")
    with caplog.at_level(logging.WARNING):
        assert newest_snapshot(root).data_version == expected
    assert damaged.name in caplog.text and "music-assets rebuild" in caplog.text


@pytest.mark.parametrize("cause", SNAPSHOT_CORRUPTIONS)
def test_service_warns_once_about_damage(root: DataRoot, cause: str, caplog: pytest.LogCaptureFixture) -> None:
    """The service looks up the snapshot before every query."""
    snapshots = Snapshots(root)
    served = snapshots.newest().data_version
    corrupt(root, cause)
    with caplog.at_level(logging.WARNING):
        found = {snapshots.newest().data_version for _ in range(5)}
    assert len(found) == 1
    assert ("pointer" in cause) == (found == {served})
    assert len(caplog.records) == 1


def test_error_if_no_snapshot_is_intact(root: DataRoot) -> None:
    for number in (0, 1):
        garble(pointer(root))
        empty(snapshot(number)(root))
    with pytest.raises(
        NothingPublishedError, match=r"No published snapshot is intact: .*current\.json.*music-assets reb"
    ):
        newest_snapshot(root)


def test_any_damaged_pointer_is_skipped(root: DataRoot) -> None:
    for content in (
        b"",
        b"[]",
        b"{}",
        b'"x"',
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"file": 1}',
        b'{"tables": []}',
        b"[" * 9999,
    ):
        pointer(root).write_bytes(content)
        assert newest_snapshot(root).path.is_file()


# ---- Logs of history ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cause",
    [
        "first log entry missing",
        "log entry missing",
        "last log entry missing",
        "log entry empty",
        "last log entry empty",
    ],
)
def test_damaged_log_stops_ingest_and_vacuum(root: DataRoot, cause: str) -> None:
    """Regression: deltalake skips an empty entry silently, so that vacuum deleted the files of its rows."""
    corrupt(root, cause)
    project = Project(root, retention_hours=0)
    dropped = project.drop(USER_DATA, MORE)
    files = sorted(root.table_folder(USER_DATA).rglob("*.parquet"))
    assert not project.refresh().success
    assert dropped.exists()
    assert sorted(root.table_folder(USER_DATA).rglob("*.parquet")) == files


@pytest.mark.parametrize("table", [USER_DATA, REJECTED_ROWS], ids=lambda table: table.name)
def test_missing_log_stops_ingest(root: DataRoot, duckdb_engine: DuckDBEngine, table: Table) -> None:
    """Regression: a new table was created in the folder, and the files of the old one were vacuumed."""
    root.remove(root.files_below(root.table_folder(table) / "_delta_log"))
    harness = IngestHarness(root, duckdb_engine)
    harness.drop(USER_DATA, "more.csv", MORE)
    with pytest.raises(LostHistoryError, match=r"_delta_log has 0 rows, but \d were published.*doctor"):
        harness.load(USER_DATA)
    assert harness.waiting() == ["more.csv"]


def test_ingest_continues_after_the_log_is_restored(root: DataRoot) -> None:
    entry = log_entry(USER_DATA, -1)(root)
    kept = entry.read_bytes()
    empty(entry)
    project = Project(root)
    project.drop(USER_DATA, MORE)
    assert not project.refresh().success
    entry.write_bytes(kept)
    assert project.refresh().success
    assert project.store.table_version(USER_DATA).rows == 6
