"""`music-assets rebuild`: whatever is computed comes back from the raw tables; raw tables are never touched."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from music_assets.data_root import DamagedTableError, DataRoot
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.maintenance.accept import accept
from music_assets.maintenance.doctor import Level, examine
from music_assets.maintenance.drops import list_drops
from music_assets.maintenance.rebuild import RebuildError, rebuild
from music_assets.runtime.dagster_home import DatabaseError, prepare_dagster_home
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import connect
from music_assets.tables import RANKING_TABLES, RAW_TABLES, REFRESH_RANKINGS, USER_DATA
from music_assets_tests.support.corruption import DERIVED_CORRUPTIONS, RAW_CORRUPTIONS, SNAPSHOT_CORRUPTIONS, corrupt
from music_assets_tests.support.project import RANKED_ARTISTS, Project, settings_of


@pytest.fixture(autouse=True)
def without_dagster_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


def rebuilt(root: DataRoot) -> list[str]:
    messages: list[str] = []
    rebuild(settings_of(root), messages.append)
    return messages


def ranked(root: DataRoot) -> list[tuple[object, ...]]:
    with connect(root) as connection:
        return sorted(connection.execute("FROM processed_parquet_artist_rank_in_country").fetchall())


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def raw_files(root: DataRoot) -> list[dict[Path, bytes]]:
    return [contents(root.table_folder(table)) for table in RAW_TABLES]


@pytest.mark.parametrize("cause", [*DERIVED_CORRUPTIONS, *SNAPSHOT_CORRUPTIONS])
def test_damaged_derived_data_is_recomputed(root: DataRoot, cause: str) -> None:
    raw = raw_files(root)
    damaged = corrupt(root, cause)
    messages = rebuilt(root)
    assert ranked(root) == RANKED_ARTISTS
    assert raw_files(root) == raw
    assert [each for each in examine(settings_of(root)) if each.level is Level.PROBLEM] == []
    if cause in DERIVED_CORRUPTIONS:
        assert any(line.startswith(f"Damaged: {damaged}") for line in messages)
        assert any(line.startswith("Moved ") for line in messages)
        assert any(root.damaged.rglob("*.json"))


def test_several_damaged_files_are_recomputed(root: DataRoot) -> None:
    """On S3 too, where damaged tables are moved object by object."""
    raw = [root.files_below(root.table_folder(table)) for table in RAW_TABLES]
    causes = ("ranking cut off", "rejects cut off", "snapshot cut off", "pointer garbled")
    damaged = [corrupt(root, cause) for cause in causes]
    messages = rebuilt(root)
    assert ranked(root) == RANKED_ARTISTS
    assert [root.files_below(root.table_folder(table)) for table in RAW_TABLES] == raw
    assert [each for each in examine(settings_of(root)) if each.level is Level.PROBLEM] == []
    for path in damaged[:2]:
        assert any(line.startswith(f"Damaged: {root.address(path)} is ") for line in messages), messages
    moved = [line.partition(" to ")[2] for line in messages if line.startswith("Moved ")]
    assert len(moved) == 3
    assert all(line.startswith(f"{root.address(root.damaged)}/") for line in moved)
    kept = {path.parent.name for path in root.files_below(root.damaged)}
    assert kept >= {path.parent.name for path in damaged[:2]}


def test_missing_derived_data_is_recomputed(root: DataRoot) -> None:
    for folder in (*map(root.table_folder, RANKING_TABLES), root.snapshots):
        root.remove(root.files_below(folder))
    messages = rebuilt(root)
    assert ranked(root) == RANKED_ARTISTS
    assert messages[0] == "Computing artist_rank_in_country, country_rank_per_artist, music_db"
    assert messages[-1].startswith(f"Published {root.address(root.snapshots)}/music_db-")


def test_the_rebuild_is_recorded_as_a_run(root: DataRoot) -> None:
    rebuilt(root)
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(root))) as instance:
        (run,) = instance.get_runs()
        assert (run.job_name, run.status) == (REFRESH_RANKINGS, dg.DagsterRunStatus.SUCCESS)
        keys = [dg.AssetKey(table.asset_key) for table in RANKING_TABLES] + [dg.AssetKey("music_db")]
        assert all(instance.get_latest_materialization_event(key) for key in keys)
        assert instance.get_latest_materialization_event(dg.AssetKey(USER_DATA.asset_key)) is None


def test_a_refresh_after_the_rebuild_succeeds(root: DataRoot) -> None:
    for table in RANKING_TABLES:
        shutil.rmtree(root.table_folder(table))
    rebuilt(root)
    project = Project(root)
    project.drop(USER_DATA, "user_id,country,total_scrobbles\n1,Malta,1\n")
    assert project.refresh().success
    assert ("Malta", "Can", 60.0, 1, 1) in ranked(root)


@pytest.mark.parametrize("cause", RAW_CORRUPTIONS)
def test_a_damaged_raw_table_is_reported_and_nothing_changes(root: DataRoot, cause: str) -> None:
    damaged = corrupt(root, cause)
    before = contents(root.path)
    named = damaged.parent if cause == "last log entry missing" else damaged
    for command in (rebuild, accept):
        with pytest.raises(RebuildError) as raised:
            command(settings_of(root), print)
        assert f"{named}" in str(raised.value)
        assert "Restore" in str(raised.value) and "drop all CSV files of the table again" in str(raised.value)
    with pytest.raises(DamagedTableError, match=f"{named} .*`music-assets doctor` says how"):
        list_drops(DeltaStore(root), DuckDBEngine(root.scratch))
    assert contents(root.path) == before
    assert ranked(root) == RANKED_ARTISTS


def test_the_advice_for_a_damaged_raw_table_recovers_it(root: DataRoot) -> None:
    """Move the folder away and drop all its files again: nothing is published before the last of them."""
    corrupt(root, "parquet cut off")
    root.table_folder(USER_DATA).rename(root.path / "aside")
    project = Project(root)
    project.drop(USER_DATA, "user_id,country,total_scrobbles\n1,Germany,90\n2,France,50\n3,Germany,10\n4,,7\n")
    assert not project.refresh().success
    assert ranked(root) == RANKED_ARTISTS
    project.drop(USER_DATA, "user_id,country,total_scrobbles\n5,Malta,1\n")
    assert project.refresh().success
    assert [each for each in examine(settings_of(root)) if each.level is Level.PROBLEM] == []


def test_an_empty_raw_table_is_reported(tmp_path: Path) -> None:
    root = DataRoot(tmp_path)
    root.prepare()
    with pytest.raises(RebuildError, match="raw_parquet_user_data has no rows"):
        rebuilt(root)


def test_an_unusable_run_history_is_reported(root: DataRoot) -> None:
    """A full disk ended the command with a traceback of SQLAlchemy."""
    history = prepare_dagster_home(root) / "history"
    history.mkdir()
    (history / "runs.db").write_text("no database" * 100)
    with pytest.raises(DatabaseError, match=f"The run history of {history.parent} cannot be used: file is not a data"):
        rebuilt(root)


@pytest.fixture
def running(root: DataRoot) -> Iterator[dg.DagsterRun]:
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(root))) as instance:
        job = Project(root).defs.resolve_job_def(REFRESH_RANKINGS)
        yield instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)


def test_a_rebuild_during_a_run_is_refused(root: DataRoot, running: dg.DagsterRun) -> None:
    with pytest.raises(RebuildError, match=f"Run {running.run_id} of refresh_rankings is in progress"):
        rebuilt(root)
