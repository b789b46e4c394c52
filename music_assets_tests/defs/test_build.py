"""The definitions that Dagster loads: declarations, dependencies, replaceable resources."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from music_assets.data_root import DataRoot
from music_assets.defs.assets import OWNERS
from music_assets.defs.build import build_definitions
from music_assets.defs.checks import CHECKS
from music_assets.defs.jobs import JOB_TAG
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.settings import Settings
from music_assets.tables import EMBEDDING_TABLES, RAW_TABLES, REFRESH_RANKINGS, TRAIN_EMBEDDINGS, Table
from music_assets_tests.conftest import need_java

UPSTREAM = {
    "raw_parquet/user_data": {"user_data/user_data"},
    "raw_parquet/user_top_artists": {"user_data/user_top_artists"},
    "artist_rank_in_country": {"raw_parquet/user_data", "raw_parquet/user_top_artists"},
    "country_rank_per_artist": {"artist_rank_in_country"},
    "artist_embedding": {"raw_parquet/user_top_artists", "country_rank_per_artist"},
    "user_embedding": {"raw_parquet/user_top_artists", "country_rank_per_artist"},
    "music_db": {
        "raw_parquet/user_data",
        "raw_parquet/user_top_artists",
        "artist_rank_in_country",
        "country_rank_per_artist",
        "artist_embedding",
        "user_embedding",
    },
}
GROUPS = {
    "raw_parquet/user_data": "raw_parquet",
    "raw_parquet/user_top_artists": "raw_parquet",
    "artist_rank_in_country": "rankings",
    "country_rank_per_artist": "rankings",
    "artist_embedding": "embeddings",
    "user_embedding": "embeddings",
    "music_db": "published",
}
EMBEDDINGS = {table.name for table in EMBEDDING_TABLES}
MEASURED = ("user_embedding", "beats_baselines")
"""The check that the training itself evaluates."""


@pytest.fixture(scope="module")
def defs(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build_definitions(Settings(data=tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def graph(defs: dg.Definitions):
    return defs.resolve_asset_graph()


def test_definitions_are_loadable(defs: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(defs)


def test_loaded_definitions_use_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Loading must not access the data root: the web server may load the definitions before it exists."""
    from music_assets import settings as module

    monkeypatch.setenv("MUSIC_ASSETS_DATA", str(tmp_path / "data"))
    module.settings.cache_clear()
    loaded = build_definitions(module.settings())
    module.settings.cache_clear()
    assert loaded.resources["store"].root == DataRoot(tmp_path / "data")
    assert not (tmp_path / "data").exists()


HEAVY = {
    *("pandas", "scipy.sparse", "matplotlib", "gensim", "sklearn", "pyarrow.dataset"),
    *("requests", "httpx", "fastapi", "uvicorn", "typer", "pyspark"),
}


def test_rarely_used_packages_are_not_imported() -> None:
    """Every run starts a process that loads the definitions."""
    listing = "import sys, music_assets.definitions; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(loaded.split())


@pytest.mark.parametrize("name", UPSTREAM)
def test_asset_declaration(graph, name: str) -> None:
    node = graph.get(dg.AssetKey.from_user_string(name))
    assert {key.to_user_string() for key in node.parent_keys} == UPSTREAM[name]
    assert node.group_name == GROUPS[name]
    assert node.owners == OWNERS
    assert node.description
    assert node.kinds
    assert node.is_materializable
    assert node.code_version


@pytest.mark.parametrize("table", RAW_TABLES, ids=lambda table: table.name)
def test_drop_folders_are_external_assets(defs: dg.Definitions, graph, table: Table) -> None:
    node = graph.get(dg.AssetKey(["user_data", table.name]))
    assert not node.is_materializable
    assert not node.parent_keys
    assert node.group_name == "drops"
    assert node.metadata["path"].value == str(defs.resources["store"].root.drop_folder(table))


def test_music_db_is_overdue_by_setting(defs: dg.Definitions, tmp_path: Path) -> None:
    def policies(definitions: dg.Definitions) -> dict[str, dg.FreshnessPolicy | None]:
        return {spec.key.to_user_string(): spec.freshness_policy for spec in definitions.resolve_all_asset_specs()}

    assert set(policies(defs).values()) == {None}
    found = policies(build_definitions(Settings(data=tmp_path, freshness_hours=36)))
    assert found.pop("music_db") == dg.FreshnessPolicy.time_window(timedelta(hours=36))
    assert set(found.values()) == {None}
    shortest = Settings.model_fields["freshness_hours"].metadata[0].ge
    assert policies(build_definitions(Settings(data=tmp_path, freshness_hours=shortest)))["music_db"]


@pytest.mark.parametrize(
    ("name", "wanted"), [(REFRESH_RANKINGS, set(UPSTREAM) - EMBEDDINGS), (TRAIN_EMBEDDINGS, EMBEDDINGS | {"music_db"})]
)
def test_job_selects_its_assets_and_all_their_checks(defs: dg.Definitions, name: str, wanted: set[str]) -> None:
    job = defs.resolve_job_def(name)
    keys = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert keys == wanted
    checks = {(key.asset_key.path[-1], key.name) for key in job.asset_layer.asset_graph.asset_check_keys}
    declared = {(table.name, check.name) for check in CHECKS for table in check.tables} | {MEASURED}
    tables = {key.split("/")[-1] for key in wanted}
    assert checks == {(table, check) for table, check in declared if table in tables}
    assert job.tags[JOB_TAG] == name
    assert job.executor_def is dg.in_process_executor


def test_only_warning_checks_are_not_blocking(graph) -> None:
    mild = {"country_names", "keys_delivered_once", "known_country_share", "unknown_share", MEASURED[1]}
    for key in graph.asset_check_keys:
        assert graph.get(key).blocking == (key.name not in mild), key


def test_reader_is_duckdb_when_spark_computes(tmp_path: Path) -> None:
    need_java()
    resources = build_definitions(Settings(data=tmp_path, engine="spark")).resources
    assert resources["engine"].name == "spark"
    assert resources["reader"] is resources["io_manager"].reader
    assert resources["reader"].name == "duckdb"


def test_assets_link_to_their_pages_in_the_explorer(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, service_url="https://music.example/")
    specs = build_definitions(settings).resolve_all_asset_specs()
    assert {spec.key.to_user_string(): spec.metadata["explorer"].value for spec in specs} == {
        "user_data/user_data": "https://music.example/pipeline",
        "user_data/user_top_artists": "https://music.example/pipeline",
        "raw_parquet/user_data": "https://music.example/pipeline",
        "raw_parquet/user_top_artists": "https://music.example/pipeline",
        "artist_rank_in_country": "https://music.example/",
        "country_rank_per_artist": "https://music.example/",
        "artist_embedding": "https://music.example/explore/map",
        "user_embedding": "https://music.example/explore/map",
        "music_db": "https://music.example/",
    }


def test_resources_can_be_replaced(tmp_path: Path) -> None:
    engine, thresholds = DuckDBEngine(tmp_path), object()
    variant = build_definitions(
        Settings(data=tmp_path), engine=engine, checks=CHECKS[1:2], resources={"thresholds": thresholds}
    )
    assert variant.resources["engine"] is variant.resources["io_manager"].engine is engine
    assert variant.resources["thresholds"] is thresholds
    assert {key.name for key in variant.resolve_asset_graph().asset_check_keys} == {CHECKS[1].name, MEASURED[1]}
