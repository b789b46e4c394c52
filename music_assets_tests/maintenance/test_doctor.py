"""What `music-assets doctor` finds on a healthy data root, and on damaged ones: the file, and what to do."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from music_assets import cli
from music_assets.data_root import DataRoot, exclusive_lock
from music_assets.maintenance import doctor
from music_assets.maintenance.doctor import Finding, Level, examine
from music_assets.runtime.dagster_home import prepare_dagster_home
from music_assets.settings import Settings, settings
from music_assets.tables import ARTIST_RANK_IN_COUNTRY, REFRESH_RANKINGS, REJECTED_ROWS, USER_DATA, USER_TOP_ARTISTS
from music_assets_tests.support.corruption import CORRUPTIONS, RAW_CORRUPTIONS, corrupt
from music_assets_tests.support.disk import small_disk
from music_assets_tests.support.project import Project


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    yield
    settings.cache_clear()


def problems(root: DataRoot) -> list[Finding]:
    return [finding for finding in examine(Settings(data=root.path)) if finding.level is Level.PROBLEM]


def found(root: DataRoot, subject: str) -> list[Finding]:
    return [finding for finding in examine(Settings(data=root.path)) if finding.subject == subject]


def test_all_is_well(healthy: DataRoot) -> None:
    findings = examine(Settings(data=healthy.path))
    assert [finding for finding in findings if finding.level is Level.PROBLEM] == []
    told = {finding.subject: finding.found for finding in findings}
    assert told["raw_parquet_user_data"].startswith("version 2, 5 rows, 2 parquet files of ")
    assert told["rejected_rows"].startswith("version 2, 1 rows, 1 parquet file of ")
    assert all(finding.advice for finding in findings if finding.level is Level.PROBLEM)


@pytest.mark.parametrize("cause", CORRUPTIONS)
def test_damage_is_found_and_named(root: DataRoot, cause: str) -> None:
    damaged = corrupt(root, cause)
    named = damaged.parent if cause == "last log entry missing" else damaged
    (finding,) = [finding for finding in problems(root) if str(named) in finding.found]
    assert ("Restore" in finding.advice) == (cause in RAW_CORRUPTIONS or "rejects" in cause)
    assert ("music-assets rebuild" in finding.advice) == (cause not in RAW_CORRUPTIONS)


@pytest.mark.parametrize("cause", ["parquet cut off", "parquet garbled"])
def test_what_is_lost_is_told(root: DataRoot, cause: str) -> None:
    corrupt(root, cause)
    (finding, *_) = problems(root)
    assert "It held rows of second.csv." in finding.advice
    assert f"move {root.table_folder(USER_DATA)} aside" in finding.advice


def test_a_log_that_is_gone_is_found(root: DataRoot) -> None:
    """It looked like a table that has not been made yet."""
    shutil.rmtree(root.table_folder(USER_TOP_ARTISTS) / "_delta_log")
    (finding, *_) = problems(root)
    assert finding.subject == "raw_parquet_user_top_artists"
    assert "has 0 rows, but 6 were published" in finding.found


def test_foreign_and_unused_files_are_told_and_are_no_problem(root: DataRoot) -> None:
    folder = root.table_folder(USER_DATA)
    (folder / "notes.txt").write_text("mine")
    (folder / "export.parquet").write_bytes(b"PAR1")
    (folder / "part-0").mkdir()
    (folder / "part-0/rows.parquet").write_bytes(b"x" * 1000)
    told = found(root, "raw_parquet_user_data")
    assert [finding.level for finding in told] == [Level.OK, Level.OK, Level.NOTE, Level.NOTE]
    assert told[1].found == "1 file of 1 KB out of use, vacuumed after 24 hours"
    assert [finding.found for finding in told[2:]] == [
        f"{folder / name} is no file of the table" for name in ("export.parquet", "notes.txt")
    ]
    assert problems(root) == []


def test_broken_rules_are_found(root: DataRoot) -> None:
    row = {"country": "Malta", "artist_name": "Can", "total_playcount": 1.0, "rank": 7}
    Project(root).put(ARTIST_RANK_IN_COUNTRY, [row, row])
    told = {finding.found.split(":")[0] for finding in problems(root)}
    assert told == {"keys_unique", "ranks_in_order"}


def test_drops_and_rejected_files_are_told(root: DataRoot) -> None:
    project = Project(root)
    path = project.drop(USER_DATA, "user_id,country,total_scrobbles\n9,,\n", "late.csv")
    os.utime(path, (time.time() - 7200.5,) * 2)
    (path.parent / "link.csv").symlink_to(path)
    project.drop(USER_TOP_ARTISTS, "nonsense\n", "bad\n1.csv")
    project.materialize_raw()
    project.drop(USER_DATA, "user_id,country,total_scrobbles\n10,,\n", "late.csv")
    told = [finding.found for finding in found(root, "drops of user_data")]
    assert told[0].startswith("1 file of 37 bytes, the oldest 0 seconds old")
    assert told[1] == "not looked at: link.csv, a symbolic link"
    (bad,) = found(root, "rejected files")
    assert bad.found.startswith("bad\ufffd1.csv: column user_id, rank, artist_name, playcount, mbid missing")
    assert any("1 rows of raw_parquet_user_data are not published" in each.found for each in found(root, "music_db"))
    assert problems(root) == []


def test_trouble_with_the_root_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no folder" in found(DataRoot(tmp_path / "nowhere"), "data root")[0].found
    with small_disk(tmp_path / "disk", 4) as disk:
        (root,) = found(DataRoot(disk), "data root")
        assert root.level is Level.PROBLEM and "MB free, 1.074 GB needed" in root.found
    (tmp_path / "file").write_text("")
    assert problems(DataRoot(tmp_path / "file"))[0].subject == "data root"


def test_a_file_system_without_hard_links_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables cannot be committed there."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(doctor.os, "link", refuse)
    assert "hard links (Operation not permitted)" in problems(DataRoot(tmp_path))[0].found
    assert list(tmp_path.iterdir()) == []


def test_a_java_that_is_missing_is_told_only_with_spark(
    root: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "no java"))
    assert found(root, "Java") == []
    (finding,) = [each for each in examine(Settings(data=root.path, engine="spark")) if each.subject == "Java"]
    assert finding.level is Level.PROBLEM
    assert str(tmp_path / "no java") in finding.found and "needs Java 17 or later" in finding.advice


def test_locks_and_leftovers_are_told(root: DataRoot) -> None:
    with exclusive_lock(root.ingest_lock):
        assert "is held" in found(root, "locks")[0].found
    assert found(root, "locks")[0].found == "none held"
    old = time.time() - 2 * 86_400
    for name in ("music_db/.building-1.duckdb", "user_data/user_data/.x.part"):
        (root.path / name).write_bytes(b"x" * 10)
        os.utime(root.path / name, (old, old))
    assert [each.found.removeprefix(f"{root}/") for each in found(root, "leftovers")] == [
        "user_data/user_data/.x.part, 10 bytes",
        "music_db/.building-1.duckdb, 10 bytes",
    ]


class TestDagster:
    @pytest.fixture
    def instance(self, root: DataRoot) -> Iterator[dg.DagsterInstance]:
        with dg.DagsterInstance.from_config(str(prepare_dagster_home(root))) as instance:
            yield instance

    def test_nothing_has_run(self, root: DataRoot) -> None:
        assert "nothing has run yet" in found(root, "Dagster")[0].found

    @pytest.mark.parametrize(
        ("end", "level", "told"),
        [
            (None, Level.NOTE, "has not ended yet: started"),
            (dg.DagsterInstance.report_run_failed, Level.PROBLEM, "ended as failure"),
            (dg.DagsterInstance.report_run_canceled, Level.PROBLEM, "ended as canceled"),
        ],
    )
    def test_the_last_run(
        self, root: DataRoot, instance: dg.DagsterInstance, end: Callable[..., None] | None, level: Level, told: str
    ) -> None:
        job = Project(root).defs.resolve_job_def(REFRESH_RANKINGS)
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        if end:
            end(instance, run)
        (finding,) = found(root, REFRESH_RANKINGS)
        assert (finding.level, finding.found) == (level, f"run {run.run_id} {told}")

    def test_the_sensor_has_not_looked(self, root: DataRoot, instance: dg.DagsterInstance) -> None:
        assert "the daemon has not run" in found(root, "csv_drop_sensor")[0].found


class TestCommand:
    def run(self, monkeypatch: pytest.MonkeyPatch, root: DataRoot, *options: str) -> tuple[int, str]:
        monkeypatch.setenv("MUSIC_ASSETS_DATA", str(root))
        monkeypatch.setenv("MUSIC_ASSETS_ALERT_WEBHOOK", "https://hooks.example.org/s3cret")
        monkeypatch.setenv("MUSIC_ASSETS_API_KEYS", "ann:s3cret")
        monkeypatch.setattr(cli.out, "width", 250)
        settings.cache_clear()
        result = CliRunner().invoke(cli.app, ["doctor", *options])
        assert "s3cret" not in result.output
        return result.exit_code, result.stdout

    def test_a_healthy_root(self, monkeypatch: pytest.MonkeyPatch, healthy: DataRoot) -> None:
        code, printed = self.run(monkeypatch, healthy)
        assert code == 0
        assert "raw_parquet_user_data" in printed and "version 2, 5 rows" in printed

    def test_a_damaged_root(self, monkeypatch: pytest.MonkeyPatch, root: DataRoot) -> None:
        corrupt(root, "log of rejects garbled")
        code, printed = self.run(monkeypatch, root, "--json")
        assert code == 1
        wrong = [each for each in json.loads(printed) if each["level"] == "problem"]
        assert {each["subject"] for each in wrong} >= {REJECTED_ROWS.full_name}
        assert all(set(each) == {"level", "subject", "found", "advice"} for each in wrong)
