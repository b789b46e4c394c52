"""Fixtures that every test may use."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from music_assets.engines.base import Engine
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.engines.java import JavaMissingError, check_java
from music_assets_tests.data_root import DataRoot


def duckdb_engine(scratch: Path) -> Engine:
    return DuckDBEngine(scratch, threads=1)


def spark_engine(scratch: Path) -> Engine:
    """Spark in one process, made for thousands of jobs of a few rows: its compiler must not polish what runs once."""
    need_java()
    from dagster_pyspark import LazyPySparkResource

    from music_assets.engines.spark import SparkEngine, spark_config

    quick = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
    config = spark_config("local[2]", "1g", "1g", quick)
    return SparkEngine(LazyPySparkResource(spark_config=config), scratch, shuffle_partitions=2)


def need_java() -> None:
    """Skip the test where Spark cannot run; in CI, which installs Java, that is a failure."""
    try:
        check_java()
    except JavaMissingError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


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
