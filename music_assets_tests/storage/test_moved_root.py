"""A data root that was copied to another path: queries, drops and repairs work there."""

import json
import shutil
from pathlib import Path

import duckdb
import pytest

from music_assets.data_root import DataRoot
from music_assets.maintenance.doctor import Level, examine
from music_assets.service.query_command import query_snapshot
from music_assets.storage.published_snapshot import newest_snapshot
from music_assets.storage.publisher import Publisher
from music_assets.tables import RAW_TABLES, USER_DATA, USER_TOP_ARTISTS
from music_assets_tests.service.conftest import serving
from music_assets_tests.support.corruption import copy_root
from music_assets_tests.support.project import RANKED_ARTISTS, Project, settings_of
from music_assets_tests.support.s3_server import S3Server

COUNTS = (
    "SELECT (SELECT count(*) FROM raw_parquet_user_data), (SELECT count(*) FROM raw_parquet_user_top_artists), "
    "(SELECT count(*) FROM current_user_data)"
)
NEW_PATHS = ["elsewhere", "o'clock, [new]*"]


@pytest.fixture
def original(tmp_path: Path) -> DataRoot:
    """A published data root of four users and six top artists; user 1 was delivered twice."""
    project = Project(tmp_path / "original")
    project.drop_both()
    assert project.refresh().success
    project.drop(USER_DATA, "user_id,country,total_scrobbles\n1,Germany,95\n", "again.csv")
    assert project.refresh().success
    return project.root


def move(root: DataRoot, target: Path) -> DataRoot:
    shutil.copytree(root.path, target)
    shutil.rmtree(root.path)
    return DataRoot(target)


def ask(root: DataRoot, sql: str) -> list[tuple]:
    with query_snapshot(root, sql) as result:
        return [tuple(row.values()) for batch in result.batches for row in batch.to_pylist()]


def problems(root: DataRoot) -> list[str]:
    findings = examine(settings_of(root))
    return [finding.found for finding in findings if finding.level is Level.PROBLEM and finding.subject != "data root"]


@pytest.mark.parametrize("name", NEW_PATHS)
def test_moved_root_answers_queries_and_loads_drops(original: DataRoot, tmp_path: Path, name: str) -> None:
    project = Project(move(original, tmp_path / name))
    assert ask(project.root, COUNTS) == [(5, 6, 4)]
    assert problems(project.root) == []
    with serving(project.root.path, query_workers=1) as service:
        assert service.rows(COUNTS) == [[5, 6, 4]]
        assert service.query("SELECT getvariable('data_root')").status_code == 403

        project.drop(USER_DATA, "user_id,country,total_scrobbles\n5,Mali,1\n", "five.csv")
        assert project.refresh().success
        assert service.rows(COUNTS) == [[6, 6, 5]]
    assert problems(project.root) == []
    ranked = ask(project.root, "FROM processed_parquet_artist_rank_in_country ORDER BY country, rank")
    assert ranked == RANKED_ARTISTS


def test_root_in_a_new_bucket_answers_queries_and_loads_drops(original: DataRoot, s3: S3Server, tmp_path: Path) -> None:
    """It is copied from a folder, then from one prefix to another."""
    first = copy_root(original.path, s3.root(tmp_path, f"{tmp_path.name}-first"))
    shutil.rmtree(original.path)
    assert ask(first, COUNTS) == [(5, 6, 4)]
    root = s3.root(tmp_path / "elsewhere", f"{tmp_path.name}-second")
    for path in first.files_below(first.path):
        root.write(root.path / first.relative(path), first.read(path))
    first.remove(first.files_below(first.path))
    assert ask(root, COUNTS) == [(5, 6, 4)]
    project = Project(root)
    project.drop(USER_DATA, "user_id,country,total_scrobbles\n5,Mali,1\n", "five.csv")
    assert project.refresh().success
    assert ask(root, COUNTS) == [(6, 6, 5)]
    assert problems(root) == []
    ranked = ask(root, "FROM processed_parquet_artist_rank_in_country ORDER BY country, rank")
    assert ranked == RANKED_ARTISTS


def test_no_stored_file_contains_the_path_of_the_root(original: DataRoot) -> None:
    """Except where deltalake records for information only at which location it created a table."""
    found = [
        line
        for path in original.path.rglob("*")
        if path.is_file()
        for line in path.read_bytes().splitlines()
        if str(original).encode() in line and b'"operation":"CREATE TABLE"' not in line
    ]
    assert found == []


def make_layout_1(root: DataRoot) -> None:
    """Rewrite the newest snapshot as release 0.1 published it: with absolute paths."""
    snapshot = newest_snapshot(root)
    snapshot.path.chmod(0o644)
    with duckdb.connect(str(snapshot.path)) as connection:
        for table in RAW_TABLES:
            files = list(snapshot.tables[table.full_name].files)
            columns = ", ".join(table.schema.names)
            connection.execute(
                f"CREATE OR REPLACE VIEW {table.full_name} AS SELECT {columns} FROM read_parquet({files})"
            )
    for pointer in (root.snapshots / "current.json", snapshot.path.with_suffix(".json")):
        content = json.loads(pointer.read_text())
        content["size_bytes"] = snapshot.path.stat().st_size
        for name, table in content["tables"].items():
            table["files"] = list(snapshot.tables[name].files)
        pointer.write_text(json.dumps(content))
    (root.path / ".layout_version").write_text("1\n")


def test_root_of_layout_1_works_in_place_and_can_be_moved_after_the_next_publication(
    original: DataRoot, tmp_path: Path
) -> None:
    make_layout_1(original)
    assert ask(original, COUNTS) == [(5, 6, 4)]
    assert problems(original) == []
    with serving(original.path, query_workers=1) as service:
        assert service.rows(COUNTS) == [[5, 6, 4]]

    project = Project(original)
    Publisher(project.store, "200MB", 1).publish()
    assert (original.path / ".layout_version").read_text() == "2\n"
    moved = move(original, tmp_path / "moved")
    assert ask(moved, COUNTS) == [(5, 6, 4)]


def test_moved_root_of_layout_1_is_repaired_by_the_next_refresh(original: DataRoot, tmp_path: Path) -> None:
    make_layout_1(original)
    project = Project(move(original, tmp_path / "moved"))
    with pytest.raises(duckdb.IOException):
        ask(project.root, COUNTS)
    project.drop(USER_TOP_ARTISTS, "user_id,rank,artist_name,playcount,mbid\n3,2,Can,1,\n", "more.csv")
    assert project.refresh().success
    assert ask(project.root, COUNTS) == [(5, 7, 4)]
