"""`music-assets doctor` on healthy and damaged data roots: findings and advice."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster_shared.error import SerializableErrorInfo
from typer.testing import CliRunner

from music_assets import cli
from music_assets.data_root import DataRoot
from music_assets.maintenance.doctor import Finding, Level, examine
from music_assets.runtime.dagster_home import prepare_dagster_home
from music_assets.settings import settings
from music_assets.tables import REFRESH_RANKINGS, REJECTED_ROWS, USER_DATA, USER_TOP_ARTISTS
from music_assets_tests.support.corruption import CORRUPTIONS, RAW_CORRUPTIONS, corrupt
from music_assets_tests.support.disk import small_disk
from music_assets_tests.support.project import Project, settings_of


@pytest.fixture(autouse=True)
def without_dagster_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    yield
    settings.cache_clear()


def problems(root: DataRoot) -> list[Finding]:
    return [finding for finding in examine(settings_of(root)) if finding.level is Level.PROBLEM]


def found(root: DataRoot, subject: str) -> list[Finding]:
    return [finding for finding in examine(settings_of(root)) if finding.subject == subject]


def test_a_healthy_root_has_no_problems(root: DataRoot) -> None:
    findings = examine(settings_of(root))
    assert [finding for finding in findings if finding.level is Level.PROBLEM] == []
    by_subject = {finding.subject: finding.found for finding in findings}
    assert by_subject["raw_parquet_user_data"].startswith("version 2, 5 rows, 2 parquet files, ")
    assert by_subject["rejected_rows"].startswith("version 2, 1 rows, 1 parquet file, ")
    assert all(finding.advice for finding in findings if finding.level is Level.PROBLEM)


@pytest.mark.parametrize("cause", CORRUPTIONS)
def test_a_damaged_file_is_reported(root: DataRoot, cause: str) -> None:
    damaged = corrupt(root, cause)
    named = damaged.parent if cause == "last log entry missing" else damaged
    finding, *of_the_snapshot = [finding for finding in problems(root) if str(named) in finding.found]
    assert all(each.subject == "music_db" for each in of_the_snapshot)
    assert ("Restore" in finding.advice) == (cause in RAW_CORRUPTIONS or "rejects" in cause)
    assert ("music-assets rebuild" in finding.advice) == (cause not in RAW_CORRUPTIONS)


@pytest.mark.parametrize("cause", ["parquet cut off", "parquet garbled"])
def test_the_advice_names_the_lost_csv_files(root: DataRoot, cause: str) -> None:
    corrupt(root, cause)
    (finding, *_) = problems(root)
    assert "It contained rows of second.csv." in finding.advice
    assert f"move {root.table_folder(USER_DATA)} away" in finding.advice


def test_several_damaged_files_are_reported(root: DataRoot) -> None:
    """On S3 too, by their addresses."""
    causes = ("parquet cut off", "parquet missing", "log of rejects garbled", "ranking cut off", "pointer garbled")
    damaged = [corrupt(root, cause) for cause in causes]
    found = problems(root)
    assert {finding.subject for finding in found} >= {
        "raw_parquet_user_data",
        "raw_parquet_user_top_artists",
        "rejected_rows",
        "processed_parquet_artist_rank_in_country",
    }
    for path in damaged[:-1]:
        assert any(finding.found.startswith(f"{root.address(path)} ") for finding in found), path
    assert any(finding.subject == "music_db" and "current.json is damaged" in finding.found for finding in found)


def test_a_missing_log_is_reported(root: DataRoot) -> None:
    """It must not look like a new table."""
    root.remove(root.files_below(root.table_folder(USER_TOP_ARTISTS) / "_delta_log"))
    (finding, *_) = problems(root)
    assert finding.subject == "raw_parquet_user_top_artists"
    assert "has 0 rows, but 6 were published" in finding.found


def test_unused_and_foreign_files_are_reported_as_notes(root: DataRoot) -> None:
    folder = root.table_folder(USER_DATA)
    root.write(folder / "notes.txt", b"mine")
    root.write(folder / "export.parquet", b"PAR1")
    root.write(folder / "part-0/rows.parquet", b"x" * 1000)
    findings = found(root, "raw_parquet_user_data")
    assert [finding.level for finding in findings] == [Level.OK, Level.OK, Level.NOTE, Level.NOTE]
    assert findings[1].found == "1 unused file, 1.0 kB, deleted after 24 hours"
    assert [finding.found for finding in findings[2:]] == [
        f"{root.address(folder / name)} is not a file of the table" for name in ("export.parquet", "notes.txt")
    ]
    assert problems(root) == []


def test_waiting_and_rejected_files_are_reported(root: DataRoot) -> None:
    project = Project(root)
    path = project.drop(USER_DATA, "user_id,country,total_scrobbles\n9,,\n", "late.csv")
    os.utime(path, (time.time() - 7200.5,) * 2)
    (path.parent / "link.csv").symlink_to(path)
    (path.parent / "export.txt").touch()
    project.drop(USER_TOP_ARTISTS, "nonsense\n", "bad\n1.csv")
    project.materialize_raw()
    project.drop(USER_DATA, "user_id,country,total_scrobbles\n10,,\n", "late.csv")
    findings = [finding.found for finding in found(root, "drops of user_data")]
    assert re.fullmatch(r"1 file, 37 bytes, the oldest changed 0:00:\d\d ago", findings[0])
    assert findings[1:] == [
        "ignored: export.txt: its name ends neither in .csv nor in .csv.gz: rename it if it is CSV with commas",
        "ignored: link.csv: a symbolic link, which is not followed: copy the file itself",
    ]
    (bad,) = found(root, "rejected files")
    assert bad.found.startswith("bad\ufffd1.csv: column user_id, rank, artist_name, playcount, mbid missing")
    assert any("1 rows of raw_parquet_user_data are not published" in each.found for each in found(root, "music_db"))
    assert problems(root) == []


def test_problems_of_the_data_root_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is not a folder" in found(DataRoot(tmp_path / "nowhere"), "data root")[0].found
    with small_disk(tmp_path / "disk", 4) as disk:
        (root,) = found(DataRoot(disk), "data root")
        assert root.level is Level.PROBLEM and "MB free, the next refresh writes up to " in root.found
    (tmp_path / "file").write_text("")
    assert problems(DataRoot(tmp_path / "file"))[0].subject == "data root"


def test_missing_java_is_reported_only_with_spark(
    root: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "no java"))
    assert found(root, "Java") == []
    (finding,) = [each for each in examine(settings_of(root, engine="spark")) if each.subject == "Java"]
    assert finding.level is Level.PROBLEM
    assert str(tmp_path / "no java") in finding.found and "needs Java 17 or later" in finding.advice


def test_leftovers_are_reported(root: DataRoot) -> None:
    old = time.time() - 2 * 86_400
    root.rejected.mkdir(exist_ok=True)
    names = (".x.part", "music_db/.building-1.duckdb", "rejected/.x.part", "user_data/user_data/.x.part")
    for name in names:
        (root.path / name).write_bytes(b"x" * 10)
        os.utime(root.path / name, (old, old))
    reported = sorted(each.found.removeprefix(f"{root}/") for each in found(root, "leftovers"))
    assert reported == [f"{name}, 10 bytes" for name in names]


class TestDagster:
    @pytest.fixture
    def instance(self, root: DataRoot) -> Iterator[dg.DagsterInstance]:
        with dg.DagsterInstance.from_config(str(prepare_dagster_home(root))) as instance:
            yield instance

    def test_a_new_root_has_no_history(self, root: DataRoot) -> None:
        assert "contains no run history yet" in found(root, "Dagster")[0].found

    @pytest.mark.parametrize(
        ("end", "level", "expected"),
        [
            (None, Level.NOTE, "is started"),
            (dg.DagsterInstance.report_run_failed, Level.PROBLEM, "ended with failure"),
            (dg.DagsterInstance.report_run_canceled, Level.PROBLEM, "ended with canceled"),
        ],
    )
    def test_the_last_run(
        self, root: DataRoot, instance: dg.DagsterInstance, end: Callable[..., None] | None, level: Level, expected: str
    ) -> None:
        job = Project(root).defs.resolve_job_def(REFRESH_RANKINGS)
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        if end:
            end(instance, run)
        (finding,) = found(root, REFRESH_RANKINGS)
        assert (finding.level, finding.found) == (level, f"run {run.run_id} {expected}")

    def test_a_sensor_without_evaluations(self, root: DataRoot, instance: dg.DagsterInstance) -> None:
        assert "has not been evaluated yet" in found(root, "csv_drop_sensor")[0].found

    @pytest.mark.parametrize(
        ("seconds_ago", "level", "expected"),
        [(0, Level.PROBLEM, "failed: Oops"), (3_600, Level.NOTE, "last evaluated 1:0")],
    )
    def test_an_evaluation_that_failed(
        self, root: DataRoot, instance: dg.DagsterInstance, seconds_ago: float, level: Level, expected: str
    ) -> None:
        """An hour ago it was the last one of a daemon that was stopped, which can be the cause."""
        name, kind, now = "csv_drop_sensor", InstigatorType.SENSOR, time.time()
        location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="music_assets.definitions"))
        origin = RemoteRepositoryOrigin(location, "__repository__").get_instigator_origin(name)
        state = InstigatorState(origin, kind, InstigatorStatus.RUNNING, SensorInstigatorData())
        instance.add_instigator_state(state)
        error = SerializableErrorInfo("Oops", [], None)
        ids = {"instigator_origin_id": state.instigator_origin_id, "selector_id": state.selector_id}
        instance.create_tick(
            TickData(**ids, instigator_name=name, instigator_type=kind, status=TickStatus.FAILURE,
                     timestamp=now - seconds_ago, error=error)
        )  # fmt: skip
        (finding,) = found(root, name)
        assert finding.level is level
        assert finding.found.startswith(expected)


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
