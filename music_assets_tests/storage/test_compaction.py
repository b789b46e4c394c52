"""Compaction merges small parquet files in one commit that changes no row."""

import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from music_assets.data_root import DataRoot
from music_assets.ingest.ingest import Ingest
from music_assets.storage.compaction import MAX_SMALL_FILES, compact
from music_assets.storage.delta import ConcurrentCommitError, DeltaStore
from music_assets.storage.lineage import FILES
from music_assets.storage.published_snapshot import newest_snapshot
from music_assets.tables import REJECTED_ROWS, USER_DATA
from music_assets_tests.support.ingest_harness import LOG, IngestHarness
from music_assets_tests.support.project import Project

HEADER = "user_id,country,total_scrobbles\n"
DROPS = MAX_SMALL_FILES + 1


def append(store: DeltaStore, user: int, rows: int = 1) -> Path:
    """Commit a parquet file of some users to user_data."""
    path = store.new_folder(USER_DATA) / "rows.parquet"
    schema = pa.schema([field.with_nullable(True) for field in USER_DATA.schema.to_pyarrow()])
    made = [
        {"user_id": user + row, "source_file": f"{user}.csv", "ingested_at": datetime(2024, 1, 1, microsecond=user)}
        for row in range(rows)
    ]
    pq.write_table(pa.Table.from_pylist(made, schema), path)
    store.append(USER_DATA, [path], {f"identity of {user}": user}, {FILES: [{"name": f"{user}.csv"}]})
    return path


def users(store: DeltaStore, version: int | None = None) -> list[int]:
    files = store.table_version(USER_DATA, version).files
    return [user for file in files for user in pq.read_table(file)["user_id"].to_pylist()]


@pytest.fixture
def store(data_root: DataRoot) -> DeltaStore:
    return DeltaStore(data_root)


def test_few_files_are_not_compacted(store: DeltaStore) -> None:
    assert not compact(store, USER_DATA)
    for user in range(MAX_SMALL_FILES):
        append(store, user)
    before = store.table_version(USER_DATA)
    assert not compact(store, USER_DATA)
    assert store.table_version(USER_DATA) == before


def test_many_small_files_become_one(store: DeltaStore) -> None:
    """Row order, transactions and commit metadata are preserved."""
    for user in range(DROPS):
        append(store, user)
    before = store.table_version(USER_DATA)
    assert compact(store, USER_DATA)
    after = store.table_version(USER_DATA)
    assert users(store) == list(range(DROPS))
    assert (len(after.files), after.rows, after.latest_ingest) == (1, DROPS, before.latest_ingest)
    assert after.version == before.version + 1
    assert after.size_bytes == Path(after.files[0]).stat().st_size
    assert store.transactions(USER_DATA) == {"replaced": after.version} | {
        f"identity of {user}": user for user in range(DROPS)
    }
    assert store.commit_metadata(USER_DATA, FILES) == [[{"name": f"{user}.csv"}] for user in reversed(range(DROPS))]
    assert not compact(store, USER_DATA)


def test_schema_and_statistics_are_preserved(store: DeltaStore) -> None:
    for user in range(DROPS):
        append(store, user)
    declared = DeltaTable(str(store.folder(USER_DATA))).schema()
    compact(store, USER_DATA)
    delta = DeltaTable(str(store.folder(USER_DATA)))
    assert delta.schema() == declared
    (add,) = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
    assert (add["min.user_id"], add["max.user_id"]) == (0, DROPS - 1)
    assert (add["min.ingested_at"], add["max.ingested_at"]) == (
        datetime(2024, 1, 1),
        datetime(2024, 1, 1, microsecond=DROPS - 1),
    )
    (file,) = store.table_version(USER_DATA).files
    assert pq.read_schema(file).field("ingested_at").type == pa.timestamp("us")


def test_old_version_is_readable_until_vacuum(store: DeltaStore) -> None:
    files = [append(store, user) for user in range(DROPS)]
    version = store.table_version(USER_DATA).version
    compact(store, USER_DATA)
    store.vacuum(USER_DATA, 1)
    assert sorted(users(store, version)) == list(range(DROPS))
    assert len(store.vacuum(USER_DATA, 0)) == DROPS
    assert not any(file.exists() for file in files)
    assert users(store) == list(range(DROPS))


def test_full_files_are_not_rewritten(store: DeltaStore) -> None:
    full = append(store, 1000, rows=10)
    for user in range(DROPS):
        append(store, user)
    compact(store, USER_DATA, full_rows=10)
    after = {Path(file): pq.read_metadata(file).num_rows for file in store.table_version(USER_DATA).files}
    assert sorted(after.values()) == [DROPS - 10, 10, 10]
    assert full in after
    assert sorted(users(store)) == [*range(DROPS), *range(1000, 1010)]


def test_interrupted_compaction_changes_nothing(store: DeltaStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies before the commit leaves the table unchanged, and a file for vacuum."""
    for user in range(DROPS):
        append(store, user)
    before = store.table_version(USER_DATA)

    def die(*_: Any, **__: Any) -> int:
        raise InterruptedError

    monkeypatch.setattr(store, "_commit", die)
    with pytest.raises(InterruptedError):
        compact(store, USER_DATA)
    survivor = DeltaStore(store.root)
    assert survivor.table_version(USER_DATA) == before
    assert len(survivor.vacuum(USER_DATA, 0)) == 1
    assert compact(survivor, USER_DATA)
    assert users(survivor) == list(range(DROPS))


@pytest.mark.parametrize("other", ["compacts", "appends"])
def test_concurrent_writer(store: DeltaStore, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two compactions fails; rows appended meanwhile are neither lost nor duplicated."""
    for user in range(DROPS):
        append(store, user)
    commit = store._commit

    def meanwhile(*arguments: Any, **named: Any) -> int:
        monkeypatch.undo()
        if other == "compacts":
            compact(DeltaStore(store.root), USER_DATA)
        else:
            append(DeltaStore(store.root), DROPS)
        return commit(*arguments, **named)

    monkeypatch.setattr(store, "_commit", meanwhile)
    if other == "compacts":
        with pytest.raises(ConcurrentCommitError, match="raw_parquet_user_data"):
            compact(store, USER_DATA)
    else:
        compact(store, USER_DATA)
    assert sorted(users(store)) == list(range(DROPS + (other == "appends")))


def test_concurrent_compactions_keep_every_row_once(store: DeltaStore) -> None:
    for user in range(DROPS):
        append(store, user)
    both = threading.Barrier(2)

    def compact_own() -> None:
        mine = DeltaStore(store.root)
        both.wait()
        try:
            compact(mine, USER_DATA)
        except ConcurrentCommitError:
            return

    workers = [threading.Thread(target=compact_own) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert users(store) == list(range(DROPS))


def test_ingest_after_compaction_checkpoint_and_vacuum(harness: IngestHarness) -> None:
    """Duplicates are still recognised, and the later drop still wins."""
    ingest = harness.ingest_with(retention_hours=0)
    contents = [HEADER + f"{user},Germany,1\n7777,Chad,{user}\nx,,\n" for user in range(DROPS + 2)]
    for number, content in enumerate(contents):
        harness.drop(USER_DATA, f"{number}.csv", content)
        ingest.load(USER_DATA, LOG)
    for table in (USER_DATA, REJECTED_ROWS):
        assert len(harness.store.table_version(table).files) <= 3
        DeltaTable(str(harness.store.folder(table))).create_checkpoint()
    for number, content in enumerate(contents):
        harness.drop(USER_DATA, f"again {number}.csv", content)
    assert {file.outcome for file in ingest.load(USER_DATA, LOG).files} == {"duplicate"}

    expected = [(user, "Germany", 1) for user in range(len(contents))]
    expected += [(7777, "Chad", user) for user in range(len(contents))]
    assert harness.delivered(USER_DATA) == sorted(expected, key=repr)
    assert len(harness.rejected()) == len(contents)
    latest = max(harness.rows(USER_DATA, "ingested_at", "total_scrobbles", "user_id"))
    assert latest[1:] in ((1, len(contents) - 1), (len(contents) - 1, 7777))
    for table in (USER_DATA, REJECTED_ROWS):
        on_disk = {str(path) for path in harness.store.folder(table).rglob("part-*/*.parquet")}
        assert on_disk == set(harness.store.table_version(table).files)


def test_compaction_leaves_no_work_for_the_sensor(tmp_path: Path) -> None:
    """The run that compacts also publishes, and the published views are readable."""
    project = Project(tmp_path / "data", retention_hours=0)
    project.drop_both()
    assert project.refresh().success
    for user in range(10, 10 + DROPS):
        project.drop(USER_DATA, f"user_id,country,total_scrobbles\n{user},Chad,1\n", "users.csv")
        report = project.defs.resources["ingest"].load(USER_DATA, LOG)  # type: ignore[index]
        assert [file.outcome for file in report.files] == ["loaded"]
    assert project.refresh().success
    assert len(project.store.table_version(USER_DATA).files) <= MAX_SMALL_FILES
    assert "No CSV file is waiting" in project.tick().skip_message
    assert newest_snapshot(project.root).tables[USER_DATA.full_name].rows == 4 + DROPS


# ---- Vacuum spares what is published --------------------------------------------------------------------------------


def test_vacuum_keeps_published_files(tmp_path: Path) -> None:
    """Regression: views lost their files when publication was blocked for longer than the retention."""
    project = Project(tmp_path / "data", retention_hours=0)
    project.drop_both()
    assert project.refresh().success
    shown = newest_snapshot(project.root)
    ingest: Ingest = project.defs.resources["ingest"]  # type: ignore[index]
    for user in range(10, 10 + DROPS):
        rows = "".join(f"{user},Chad,{plays}\n" for plays in range(200))
        project.drop(USER_DATA, f"user_id,country,total_scrobbles\n{rows}x,,\n", "users.csv")
        ingest.load(USER_DATA, LOG)

    kept = set(shown.tables[USER_DATA.full_name].files)
    current = set(project.store.table_version(USER_DATA).files)
    assert not kept & current
    assert all(Path(file).exists() for table in shown.tables.values() for file in table.files)
    on_disk = {str(path) for path in project.store.folder(USER_DATA).rglob("part-*/*.parquet")}
    assert on_disk == kept | current

    assert project.refresh().success
    assert project.refresh().success
    project.drop(USER_DATA, "user_id,country,total_scrobbles\n9,Chad,1\n", "users.csv")
    ingest.load(USER_DATA, LOG)
    assert not any(Path(file).exists() for file in kept)


def test_no_vacuum_while_the_pointer_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    project = Project(tmp_path / "data", retention_hours=0)
    project.drop_both()
    assert project.refresh().success
    orphan = project.store.new_folder(USER_DATA) / "orphan.parquet"
    orphan.write_bytes(b"")
    (project.root.snapshots / "current.json").write_text("garbage")
    ingest: Ingest = project.defs.resources["ingest"]  # type: ignore[index]
    ingest.load(USER_DATA, LOG)
    assert orphan.exists()
    assert "not vacuumed" in caplog.text
    assert project.refresh().success
    ingest.load(USER_DATA, LOG)
    assert not orphan.exists()
