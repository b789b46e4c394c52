"""`music-assets drops` and `retract`, on a published data root, through the command line and the sensor."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner, Result

from music_assets.cli import app
from music_assets.data_root import DataRoot, exclusive_lock
from music_assets.ingest.content_hash import content_hash
from music_assets.maintenance.doctor import Level, examine
from music_assets.maintenance.rebuild import rebuild
from music_assets.settings import settings
from music_assets.storage.deletion import delete_rows
from music_assets.storage.delta import ConcurrentCommitError
from music_assets.storage.lineage import REMOVED
from music_assets.storage.published_snapshot import connect
from music_assets.tables import REJECTED_ROWS, USER_DATA, USER_TOP_ARTISTS
from music_assets_tests.support.corruption import copy_root
from music_assets_tests.support.project import Project

USERS = "user_id,country,total_scrobbles\n"
ARTISTS = "user_id,rank,artist_name,playcount,mbid\n"
FIRST = USERS + "1,Germany,90\n2,France,50\n"
SECOND = USERS + "2,Chad,50\n3,Chad,1\nx,Chad,1\n"
TOP = ARTISTS + "1,1,Can,60,\n2,1,Air,40,\n3,1,Air,2,\n"
BEFORE = [("Chad", "Air", 42.0), ("Germany", "Can", 60.0)]
AFTER = [("France", "Air", 40.0), ("Germany", "Can", 60.0)]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two drops of users, the second of which replaces a user of the first and has a bad row, and one of artists."""
    project = Project(tmp_path_factory.mktemp("retract") / "data", reject_fail_share=1.0)
    project.hashes = {}
    for name, table, text in [
        ("first.csv", USER_DATA, FIRST),
        ("top.csv", USER_TOP_ARTISTS, TOP),
        ("second.csv", USER_DATA, SECOND),
    ]:
        project.hashes[name] = content_hash(project.drop(table, text, name))
        if table is USER_DATA:
            project.materialize_raw()
    assert project.refresh().success
    return project


@pytest.fixture
def project(published: Project, data_root: DataRoot, settings_in_environment: None) -> Project:
    """Return a copy of that data root, without the run history."""
    project = Project(copy_root(published.root.path, data_root), reject_fail_share=1.0)
    project.hashes = published.hashes
    return project


def command(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=answer)


def listed() -> dict[str, Mapping[str, Any]]:
    """Return what `music-assets drops` lists, by file name."""
    result = command("drops", "--format", "json")
    assert result.exit_code == 0, result.output
    return {drop["file"]: drop for drop in json.loads(result.stdout)}


def ranked(project: Project) -> list[tuple]:
    with connect(project.root) as connection:
        return connection.execute(
            "SELECT country, artist_name, total_playcount FROM processed_parquet_artist_rank_in_country ORDER BY 1, 2"
        ).fetchall()


def users(project: Project) -> list[tuple]:
    with connect(project.root) as connection:
        return connection.execute("SELECT user_id, country FROM raw_parquet_user_data ORDER BY ALL").fetchall()


def test_drops_lists_every_file_and_its_state(project: Project) -> None:
    found = listed()
    assert {name: (d["table"], d["rows"], d["rejects"], d["state"]) for name, d in found.items()} == {
        "first.csv": ("user_data", 2, 0, "partly replaced"),
        "second.csv": ("user_data", 2, 1, "current"),
        "top.csv": ("user_top_artists", 3, 0, "current"),
    }
    assert {name: drop["content_hash"] for name, drop in found.items()} == project.hashes
    project.drop(USER_DATA, USERS + "1,Mali,1\n2,Mali,1\n", "third.csv")
    project.materialize_raw()
    assert listed()["first.csv"]["state"] == "replaced"
    assert project.hashes["first.csv"][:12] in command("drops").stdout
    header, *lines = command("drops", "--format", "csv").stdout.splitlines()
    assert header == "file,table,rows,rejects,ingested_at,content_hash,state"
    assert len(lines) == 4


def test_what_a_retracted_drop_replaced_counts_again(project: Project) -> None:
    assert ranked(project) == BEFORE
    before = project.store.table_version(USER_DATA)
    result = command("retract", project.hashes["second.csv"][:12], "--yes")
    assert result.exit_code == 0, result.output
    assert "Retracted 2 rows and 1 rejected rows." in result.stdout
    after = project.store.table_version(USER_DATA)
    assert (after.rows, after.version) == (2, before.version + 1)
    assert set(after.files) < set(before.files)
    assert project.store.table_version(REJECTED_ROWS).rows == 0
    ((removed),) = project.store.commit_metadata(USER_DATA, REMOVED)
    assert removed["rows"] == 2
    assert removed["by"]
    assert removed["at"]
    assert [drop["file"] for drop in removed["drops"]] == ["second.csv"]

    assert isinstance(project.tick(), dg.RunRequest)
    refresh = project.refresh()
    assert refresh.success
    assert ranked(project) == AFTER
    assert users(project) == [(1, "Germany"), (2, "France")]
    assert {name: (d["rows"], d["rejects"], d["state"]) for name, d in listed().items()} == {
        "first.csv": (2, 0, "current"),
        "second.csv": (2, 1, "retracted"),
        "top.csv": (3, 0, "current"),
    }


def test_same_bytes_can_be_dropped_again(project: Project) -> None:
    for _ in range(2):
        assert command("retract", project.hashes["second.csv"][:12], "--yes").exit_code == 0
        project.drop(USER_DATA, SECOND, "second.csv")
        assert project.refresh().success
        assert ranked(project) == BEFORE
        assert project.store.table_version(REJECTED_ROWS).rows == 1


def test_every_load_of_the_content_is_retracted(project: Project) -> None:
    project.drop(USER_DATA, FIRST, "again.csv")
    project.materialize_raw()
    assert [name for name, drop in listed().items() if drop["content_hash"] == project.hashes["first.csv"]] == [
        "first.csv",
        "again.csv",
    ]
    assert command("retract", project.hashes["first.csv"], "--yes").exit_code == 0
    assert project.refresh().success
    assert users(project) == [(2, "Chad"), (3, "Chad")]


def test_a_file_with_other_rows_is_rewritten(project: Project) -> None:
    """Compaction puts the rows of many drops into one parquet file. The order of the others stays."""
    for number in range(15):
        project.drop(USER_DATA, USERS + f"{number + 10},Mali,{number}\n", f"{number}.csv")
        project.materialize_raw()
    (file,) = project.store.table_version(USER_DATA).files
    assert command("retract", project.hashes["second.csv"][:12], "--yes").exit_code == 0
    assert file not in project.store.table_version(USER_DATA).files
    assert project.refresh().success
    with connect(project.root) as connection:
        rows = connection.execute("SELECT user_id FROM raw_parquet_user_data").fetchall()
    assert [user for (user,) in rows] == [1, 2, *range(10, 25)]


def test_question_is_asked_first(project: Project) -> None:
    before = project.store.table_version(USER_DATA)
    result = command("retract", project.hashes["second.csv"][:12], answer="n\n")
    assert result.exit_code == 1
    assert "second.csv" in result.output
    assert project.store.table_version(USER_DATA) == before
    assert command("retract", project.hashes["second.csv"][:12], answer="y\n").exit_code == 0
    assert project.store.table_version(USER_DATA).rows == 2
    again = command("retract", project.hashes["second.csv"][:12])
    assert again.exit_code == 0
    assert "retracted already" in again.output


@pytest.mark.parametrize(
    ("given", "message"),
    [("beef" * 3, "No drop has the content hash beefbeefbeef"), ("", "identifies no single drop")],
)
def test_unknown_hash_is_refused(project: Project, given: str, message: str) -> None:
    result = command("retract", given, "--yes")
    assert result.exit_code == 1
    assert message in result.output


def test_retraction_is_refused_while_files_are_loaded(project: Project) -> None:
    with exclusive_lock(project.root.ingest_lock):
        result = command("retract", project.hashes["second.csv"], "--yes")
    assert result.exit_code == 1
    assert "Another process is loading files" in result.output
    assert project.store.table_version(USER_DATA).rows == 4


def test_everything_is_retracted(project: Project) -> None:
    """The empty result is published too, and `rebuild` and `doctor` do not take it for damage."""
    assert command("retract", *project.hashes.values(), "--yes").exit_code == 0
    problems = [each for each in examine(project.settings) if each.level is Level.PROBLEM]
    assert problems == []
    assert isinstance(project.tick(), dg.RunRequest)
    assert project.refresh().success
    assert (ranked(project), users(project)) == ([], [])
    rebuild(project.settings, lambda _: None)
    assert (ranked(project), users(project)) == ([], [])


def test_a_damaged_log_is_still_found_after_a_retraction(project: Project) -> None:
    assert command("retract", project.hashes["second.csv"], "--yes").exit_code == 0
    assert project.refresh().success
    log = sorted((project.root.table_folder(USER_DATA) / "_delta_log").glob("*.json"))
    for entry in log[2:]:
        entry.unlink()
    log[1].write_text(log[0].read_text().replace('"CREATE TABLE"', '"WRITE"').splitlines()[0] + "\n")
    assert any("2 were published" in each.found for each in examine(project.settings))


def test_rejects_of_a_retracted_file_no_longer_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSIC_ASSETS_DATA", str(tmp_path))
    settings.cache_clear()
    project = Project(tmp_path)
    project.drop_both()
    assert project.refresh().success
    bad = project.drop(USER_DATA, USERS + "x,Chad,1\ny,Chad,1\n7,Chad,1\n", "bad.csv")
    digest = content_hash(bad)
    assert not project.refresh().success
    assert command("retract", digest[:12], "--yes").exit_code == 0
    assert isinstance(project.tick(), dg.RunRequest)
    assert project.refresh().success


def test_root_of_an_older_release(project: Project) -> None:
    """Its raw tables are append-only, and its commits name the files but not their hashes."""
    log = project.root.table_folder(USER_DATA) / "_delta_log"
    for entry in sorted(log.glob("*.json")):
        lines = []
        for line in entry.read_text().splitlines():
            action = json.loads(line)
            if "txn" in action:
                if ":" in action["txn"]["appId"]:
                    continue
                action["txn"]["version"] = 1
            if "metaData" in action:
                action["metaData"]["configuration"] = {"delta.appendOnly": "true"}
            if "protocol" in action:
                action["protocol"]["writerFeatures"].append("appendOnly")
            lines.append(json.dumps(action))
        entry.write_text("\n".join(lines) + "\n")
    assert {name: drop["content_hash"] for name, drop in listed().items()} == project.hashes
    with pytest.raises(ConcurrentCommitError):
        project.store.replace(USER_DATA, [])
    assert command("retract", project.hashes["second.csv"][:12], "--yes").exit_code == 0
    assert DeltaTable(str(project.store.folder(USER_DATA))).metadata().configuration["delta.appendOnly"] == "false"
    assert project.refresh().success
    assert ranked(project) == AFTER


@pytest.mark.parametrize("interrupted_after", [0, 1])
def test_interrupted_retraction_is_continued(
    project: Project, monkeypatch: pytest.MonkeyPatch, interrupted_after: int
) -> None:
    done = []

    def delete(*arguments: Any) -> int:
        if len(done) == interrupted_after:
            raise KeyboardInterrupt
        done.append(arguments)
        return delete_rows(*arguments)

    monkeypatch.setattr("music_assets.maintenance.retract.delete_rows", delete)
    assert command("retract", project.hashes["second.csv"], "--yes").exit_code != 0
    monkeypatch.setattr("music_assets.maintenance.retract.delete_rows", delete_rows)
    assert command("retract", project.hashes["second.csv"], "--yes").exit_code == 0
    assert project.refresh().success
    assert (ranked(project), project.store.table_version(REJECTED_ROWS).rows) == (AFTER, 0)
