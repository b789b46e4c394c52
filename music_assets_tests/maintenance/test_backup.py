"""Backups of data roots in use, and their restoration at another path."""

import sqlite3
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from music_assets.data_root import DataRoot, LayoutError, exclusive_lock
from music_assets.ingest.landing import Landing
from music_assets.maintenance.backup import BackupError, Report, backup, restore
from music_assets.maintenance.doctor import Level, examine
from music_assets.runtime.dagster_home import prepare_dagster_home
from music_assets.storage.published_snapshot import newest_snapshot
from music_assets.tables import RAW_TABLES, USER_DATA, USER_TOP_ARTISTS
from music_assets_tests.support.corruption import copy_root
from music_assets_tests.support.processes import BIN, clean_environment, wait_until
from music_assets_tests.support.project import Project, settings_of
from music_assets_tests.support.published import published_rows

MORE_USERS = "user_id,country,total_scrobbles\n1,Mali,91\n5,Chad,1\n"


class KilledError(Exception):
    """Ends a backup or restore as a kill does: nothing is cleaned up."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a published data root with Dagster's run history, and a file that waits."""
    project = Project(tmp_path_factory.mktemp("backup") / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_HOME", raising=False)
        project.instance = dg.DagsterInstance.from_config(str(prepare_dagster_home(project.root)))
    project.drop_both()
    assert project.refresh().success
    project.drop(USER_DATA, MORE_USERS, "more.csv")
    return project.root.path


@pytest.fixture
def project(published: Path, data_root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a copy of that data root."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    project = Project(copy_root(published, data_root))
    project.instance = dg.DagsterInstance.from_config(str(prepare_dagster_home(project.root)))
    return project


def ignore(line: str) -> None:
    """Discard a line of the report."""


def problems(root: DataRoot) -> list[str]:
    findings = examine(settings_of(root))
    return [finding.found for finding in findings if finding.level is Level.PROBLEM and finding.subject != "data root"]


@pytest.mark.parametrize("waits_for_run", [True, False], ids=["run between files and tables", "run at the same time"])
def test_backup_taken_during_a_run_is_complete(project: Project, tmp_path: Path, waits_for_run: bool) -> None:
    """The waiting file is copied first, then loaded by a run, and counts once in the restored data root."""
    run = threading.Thread(target=project.refresh)
    lines = []

    def report(line: str) -> None:
        lines.append(line)
        if line.startswith("rejected files"):
            run.start()
            if waits_for_run:
                run.join()

    before = published_rows(project.root)
    backup(project.root, tmp_path / "backup", 0, report)
    run.join()
    after = published_rows(project.root)
    assert before != after
    assert lines[0] == f"waiting files: 1 files, {len(MORE_USERS)} bytes"
    assert lines[-1].startswith(f"Backed up {project.root} to {tmp_path / 'backup'}: ")

    restore(tmp_path / "backup", DataRoot(tmp_path / "elsewhere" / "data"), ignore)
    restored = Project(tmp_path / "elsewhere" / "data")
    assert published_rows(restored.root) == (after if waits_for_run else before)
    assert problems(restored.root) == []
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(restored.root))) as instance:
        assert len(instance.get_runs()) >= 1 + waits_for_run
    assert restored.refresh().success
    assert published_rows(restored.root) == after
    restored.drop(USER_TOP_ARTISTS, "user_id,rank,artist_name,playcount,mbid\n5,1,Zaz,3,\n", "next.csv")
    assert restored.refresh().success
    assert newest_snapshot(restored.root).tables[USER_TOP_ARTISTS.full_name].rows == 7


def test_events_without_a_run_are_copied(project: Project, tmp_path: Path) -> None:
    """Dagster keeps them in a database called `.db`. A copy without what is only in its log can be damaged."""
    project.tick()
    (events,) = project.root.dagster_home.rglob("runs/.db")
    with closing(sqlite3.connect(events)) as reader:  # an open connection keeps SQLite from emptying the log
        reader.execute("SELECT count(*) FROM event_logs").fetchone()
        project.instance.report_runless_asset_event(dg.AssetObservation("seen"))
        backup(project.root, tmp_path / "backup", 0, ignore)
    (copied,) = (tmp_path / "backup").rglob("runs/.db")
    with closing(sqlite3.connect(copied)) as database:
        ((newest,),) = database.execute("SELECT asset_key FROM event_logs ORDER BY id DESC LIMIT 1").fetchall()
    assert newest == '["seen"]'


def kill_after(part: str) -> Report:
    def report(line: str) -> None:
        if line.startswith(part):
            raise KilledError

    return report


@pytest.mark.parametrize("part", ["waiting files", "tables", "published snapshot", "layout version"])
def test_unfinished_backup_is_not_restored(project: Project, tmp_path: Path, part: str) -> None:
    with pytest.raises(KilledError):
        backup(project.root, tmp_path / "backup", 0, kill_after(part))
    with pytest.raises(BackupError, match=r"has no backup\.json: it is no backup, or an unfinished one"):
        restore(tmp_path / "backup", DataRoot(tmp_path / "new"), ignore)
    assert not (tmp_path / "new").exists()


def test_backup_killed_with_sigkill_is_not_restored(project: Project, tmp_path: Path) -> None:
    """The command is killed once it has copied files, while the lock of publishing holds it up."""
    target = tmp_path / "backup"
    with exclusive_lock(project.root.publish_lock):
        process = subprocess.Popen(
            [BIN / "music-assets", "backup", target], env=clean_environment(project.root), stdout=subprocess.DEVNULL
        )
        wait_until(lambda: list(target.rglob("more.csv")), "a copied file", process=process)
        process.kill()
        process.wait()
    with pytest.raises(BackupError, match=r"has no backup\.json"):
        restore(target, DataRoot(tmp_path / "new"), ignore)


def test_unfinished_restore_is_unusable_until_it_is_repeated(project: Project, tmp_path: Path) -> None:
    backup(project.root, tmp_path / "backup", 0, ignore)
    restored = DataRoot(tmp_path / "new")
    with pytest.raises(KilledError):
        restore(tmp_path / "backup", restored, kill_after("files"))
    with pytest.raises(LayoutError, match="unfinished restore"):
        newest_snapshot(restored)
    restore(tmp_path / "backup", restored, ignore)
    assert published_rows(restored) == published_rows(project.root)
    with pytest.raises(BackupError, match="is not an empty folder"):
        restore(tmp_path / "backup", restored, ignore)


@pytest.mark.parametrize("damage", ["cut off", "missing"])
def test_damaged_backup_is_not_restored(project: Project, tmp_path: Path, damage: str) -> None:
    backup(project.root, tmp_path / "backup", 0, ignore)
    (file, *_) = (tmp_path / "backup" / USER_DATA.folder).rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-1]) if damage == "cut off" else file.unlink()
    with pytest.raises(BackupError, match=f"{file} is missing, or not"):
        restore(tmp_path / "backup", DataRoot(tmp_path / "new"), ignore)
    assert not (tmp_path / "new").exists()


def test_file_that_is_being_written_is_not_copied(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = project.root.drop_folder(USER_DATA) / "more.csv"
    monkeypatch.setattr("time.sleep", lambda _: growing.write_text(f"{MORE_USERS}6,Chad,1\n"))
    lines: list[str] = []
    backup(project.root, tmp_path / "backup", 1, lines.append)
    assert lines[0] == f"{growing}: not copied, since it is being written or was loaded meanwhile"
    restored = DataRoot(tmp_path / "new")
    restore(tmp_path / "backup", restored, ignore)
    restored.prepare()
    assert [file for table in RAW_TABLES for file in Landing(restored).files(table)] == []


def test_target_must_be_empty_and_outside_of_the_data_root(project: Project, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="is inside the data root"):
        backup(project.root, project.root.path / "backup", 0, ignore)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(BackupError, match="is not an empty folder"):
        backup(project.root, tmp_path / "used", 0, ignore)
