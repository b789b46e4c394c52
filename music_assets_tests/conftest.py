"""Fixtures that every test may use."""

from collections.abc import Callable
from pathlib import Path

import pytest

from music_assets.engines.base import Engine
from music_assets.engines.duckdb import DuckDBEngine
from music_assets_tests.data_root import DataRoot


def duckdb_engine(scratch: Path) -> Engine:
    return DuckDBEngine(scratch, threads=1)


def spark_engine(scratch: Path) -> Engine:
    from dagster_pyspark import LazyPySparkResource

    from music_assets.engines.spark import SparkEngine, spark_config

    config = spark_config("local[2]", "1g", "1g", {"spark.sql.shuffle.partitions": "2"})
    return SparkEngine(LazyPySparkResource(spark_config=config), scratch, shuffle_partitions=2)


ENGINES: dict[str, Callable[[Path], Engine]] = {"duckdb": duckdb_engine, "spark": spark_engine}
"""The engines that every test with the fixture `engine` runs on."""


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Each engine in turn, started once."""
    return ENGINES[request.param](tmp_path_factory.mktemp("scratch"))


@pytest.fixture
def data_root(tmp_path: Path, engine: Engine) -> DataRoot:
    """An empty data root."""
    return DataRoot(tmp_path / "data", engine)
