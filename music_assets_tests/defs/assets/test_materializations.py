"""The metadata that a real run shows in the web UI."""

import re
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest

from music_assets.storage.published_snapshot import newest_snapshot
from music_assets.tables import PUBLISHED_TABLES, RANKING_TABLES, RAW_TABLES, TABLES, USER_DATA, USER_TOP_ARTISTS
from music_assets_tests.support.project import TOP_ARTISTS, USERS, Project

ROWS = {
    "raw_parquet/user_data": 4,
    "raw_parquet/user_top_artists": 6,
    "artist_rank_in_country": 5,
    "country_rank_per_artist": 5,
    "music_db": 4 + 6 + 5 + 5 + 3,
}
BAD_TOP_ARTISTS = "1,51,Can,1,\n1,x,Can,1,\n1,x|y,Can,1,\n"


def bar(name: str, plays: int, length: int) -> str:
    return f"| {name} | {plays} | {'█' * length} |"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"), reject_fail_share=0.5)


@pytest.fixture(scope="module")
def shown(project: Project) -> Mapping[str, Mapping[str, Any]]:
    """Return the metadata of a run that loads good files, a bad one, and a duplicate."""
    project.drop(USER_DATA, USERS, "a.csv")
    project.drop(USER_DATA, USERS, "b.csv")
    project.drop(USER_DATA, "name,age\nx,1\n", "c.csv")
    project.drop(USER_TOP_ARTISTS, TOP_ARTISTS + BAD_TOP_ARTISTS, "top|artists.csv")
    run = project.refresh()
    assert run.success
    return {
        event.asset_key.to_user_string(): {name: value.value for name, value in event.materialization.metadata.items()}
        for event in run.get_asset_materialization_events()
    }


@pytest.mark.parametrize("name", ROWS)
def test_common_metadata(shown, name: str) -> None:
    metadata = shown[name]
    assert metadata["dagster/row_count"] == ROWS[name]
    assert metadata["dagster/column_schema"].columns
    assert isinstance(metadata["dagster/column_lineage"], dg.TableColumnLineage)
    assert metadata["dagster/table_name"].startswith("music_db")
    assert metadata["size (bytes)"] > 0
    assert metadata["duration (s)"] > 0
    assert metadata["table version"] is not None


@pytest.mark.parametrize("table", [*RAW_TABLES, *RANKING_TABLES], ids=lambda table: table.name)
def test_schema_is_the_declared_one(shown, table) -> None:
    columns = shown["/".join(table.asset_key)]["dagster/column_schema"].columns
    assert [(column.name, column.type, column.description) for column in columns] == [
        (column.name, column.type, column.description) for column in table.columns
    ]
    assert [column.constraints.nullable for column in columns] == [column.nullable for column in table.columns]


@pytest.mark.parametrize("table", RANKING_TABLES, ids=lambda table: table.name)
def test_lineage_of_rankings(shown, table) -> None:
    lineage = shown["/".join(table.asset_key)]["dagster/column_lineage"].deps_by_column
    assert set(lineage) == {column.name for column in table.columns}
    existing = {(dg.AssetKey(other.asset_key), column.name) for other in TABLES for column in other.columns}
    for origins in lineage.values():
        assert origins
        assert {(origin.asset_key, origin.column_name) for origin in origins} <= existing


def test_schema_and_lineage_of_the_published_snapshot(shown) -> None:
    metadata = shown["music_db"]
    names = [column.name for column in metadata["dagster/column_schema"].columns]
    assert names == [f"{table.full_name}.{column.name}" for table in PUBLISHED_TABLES for column in table.columns]
    lineage = metadata["dagster/column_lineage"].deps_by_column
    origin = lineage["processed_parquet_artist_rank_in_country.rank"][0]
    assert (origin.asset_key.to_user_string(), origin.column_name) == ("artist_rank_in_country", "rank")
    assert set(lineage) == {name for name in names if not name.startswith("rejected_rows.")}


def test_version_and_tables_of_the_published_snapshot(shown, project: Project) -> None:
    assert shown["music_db"]["table version"] == newest_snapshot(project.root).data_version
    assert "| processed_parquet_artist_rank_in_country | 1 | 5 |" in shown["music_db"]["tables"]


def test_raw_tables_list_the_files(shown) -> None:
    lines = shown["raw_parquet/user_data"]["files loaded"].splitlines()
    assert lines[0] == "| name | outcome | bytes | rows | rejects | duplicates | note |"
    outcomes = {line.split(" | ")[0][2:]: line.split(" | ")[1:6] for line in lines[2:]}
    size = str(len(USERS))
    assert outcomes == {
        "a.csv": ["loaded", size, "4", "0", "0"],
        "b.csv": ["duplicate", size, "0", "0", "0"],
        "c.csv": ["rejected", "13", "0", "0", "0"],
    }
    assert shown["raw_parquet/user_data"]["reject reasons"] == "none"
    top = shown["raw_parquet/user_top_artists"]
    assert (top["number of files"], top["rows loaded"], top["rows rejected"]) == (1, 6, 3)
    assert re.search(r"\| top\\\|artists.csv \| loaded \| \d+ \| 6 \| 3 \| 0 \|", top["files loaded"])


def test_raw_tables_list_the_reject_reasons(shown) -> None:
    reasons = shown["raw_parquet/user_top_artists"]["reject reasons"].splitlines()
    assert reasons == ["| reason | rows |", "| --- | --- |", "| not an integer | 2 |", "| rank outside 1 to 50 | 1 |"]


@pytest.mark.parametrize(
    ("name", "preview", "picture", "rows"),
    [
        (
            "artist_rank_in_country",
            "preview: top artist of the largest countries",
            "largest countries",
            ["| country | plays |  |", "| --- | --- | --- |", bar("Germany", 100, 40), bar("France", 50, 20)],
        ),
        (
            "country_rank_per_artist",
            "preview: top country of the most played artists",
            "most played artists",
            [
                "| artist_name | plays |  |",
                "| --- | --- | --- |",
                bar("Can", 70, 40),
                bar("Air", 40, 23),
                bar("Earth, Wind & Fire", 30, 17),
                bar("Neu!", 10, 6),
            ],
        ),
    ],
)
def test_rankings_show_a_preview_and_bars(shown, name: str, preview: str, picture: str, rows: list[str]) -> None:
    """The longest bar has 40 characters; the others are proportional, rounded."""
    metadata = shown[name]
    assert metadata[preview]
    assert metadata[picture].splitlines() == rows
    assert metadata["computed from"]


def test_preview_of_countries(shown) -> None:
    preview = shown["artist_rank_in_country"]["preview: top artist of the largest countries"].splitlines()
    assert preview[2:] == ["| Germany | Can | 60.0 | 1 | 1 |", "| France | Air | 40.0 | 1 | 1 |"]


def test_preview_of_artists(shown) -> None:
    preview = shown["country_rank_per_artist"]["preview: top country of the most played artists"].splitlines()
    assert preview[2] == "| Germany | Can | 60.0 | 0.6 | 1 | 1 |"
    assert len(preview) == 2 + 4


def test_run_without_a_drop_changes_nothing(project: Project, shown) -> None:
    run = project.refresh()
    assert run.success
    metadata = next(
        event.materialization.metadata
        for event in run.get_asset_materialization_events()
        if event.asset_key.path[-1] == "user_data"
    )
    assert (metadata["files loaded"].value, metadata["dagster/row_count"].value) == ("none", 4)
    assert project.store.table_version(USER_DATA).version == 1
