"""The definitions as Dagster loads them: what is declared, what depends on what, and which parts can be replaced."""

from pathlib import Path

import dagster as dg
import pytest

from music_assets.assets import OWNERS
from music_assets.build import build_definitions
from music_assets.checks import CHECKS
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.jobs import JOB_TAG, REFRESH_RANKINGS
from music_assets.settings import Settings

UPSTREAM = {
    "raw_parquet/user_data": set(),
    "raw_parquet/user_top_artists": set(),
    "artist_rank_in_country": {"raw_parquet/user_data", "raw_parquet/user_top_artists"},
    "country_rank_per_artist": {"artist_rank_in_country"},
    "music_db": {
        "raw_parquet/user_data",
        "raw_parquet/user_top_artists",
        "artist_rank_in_country",
        "country_rank_per_artist",
    },
}
GROUPS = {
    "raw_parquet/user_data": "raw_parquet",
    "raw_parquet/user_top_artists": "raw_parquet",
    "artist_rank_in_country": "rankings",
    "country_rank_per_artist": "rankings",
    "music_db": "published",
}


@pytest.fixture(scope="module")
def defs(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build_definitions(Settings(data=tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def graph(defs: dg.Definitions):
    return defs.resolve_asset_graph()


def test_the_definitions_can_be_loaded(defs: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(defs)


def test_the_definitions_that_dagster_loads_follow_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Loading must not touch the data root: a web server may look at the definitions before there is one."""
    from music_assets import settings as module

    monkeypatch.setenv("MUSIC_ASSETS_DATA", str(tmp_path / "data"))
    module.settings.cache_clear()
    loaded = build_definitions(module.settings())
    module.settings.cache_clear()
    assert loaded.resources["store"].root == tmp_path / "data"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", UPSTREAM)
def test_each_asset_is_declared_in_full(graph, name: str) -> None:
    node = graph.get(dg.AssetKey.from_user_string(name))
    assert {key.to_user_string() for key in node.parent_keys} == UPSTREAM[name]
    assert node.group_name == GROUPS[name]
    assert node.owners == OWNERS
    assert node.description
    assert node.kinds
    assert node.is_materializable


def test_the_job_holds_all_assets_of_a_refresh_and_their_checks(defs: dg.Definitions) -> None:
    job = defs.resolve_job_def(REFRESH_RANKINGS)
    keys = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert keys == set(UPSTREAM)
    checks = {(key.asset_key.path[-1], key.name) for key in job.asset_layer.asset_graph.asset_check_keys}
    assert checks == {(table.name, check.name) for check in CHECKS for table in check.tables}
    assert job.tags[JOB_TAG] == REFRESH_RANKINGS
    assert job.executor_def is dg.in_process_executor


def test_checks_stop_what_is_downstream_unless_they_only_warn(graph) -> None:
    mild = {"keys_delivered_once", "known_country_share"}
    for key in graph.asset_check_keys:
        assert graph.get(key).blocking == (key.name not in mild), key


def test_parts_can_be_replaced(tmp_path: Path) -> None:
    engine, thresholds = DuckDBEngine(tmp_path), object()
    variant = build_definitions(
        Settings(data=tmp_path), engine=engine, checks=CHECKS[1:2], resources={"thresholds": thresholds}
    )
    assert variant.resources["engine"] is engine
    assert variant.resources["thresholds"] is thresholds
    assert {key.name for key in variant.resolve_asset_graph().asset_check_keys} == {CHECKS[1].name}
