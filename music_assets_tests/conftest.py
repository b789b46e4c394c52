"""Fixtures that every test may use."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from music_assets.engines.base import Engine
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.engines.java import JavaMissingError, check_java
from music_assets_tests.support.damaged import publish_twice
from music_assets_tests.support.ingest_harness import IngestHarness

if TYPE_CHECKING:
    from music_assets.engines.spark import SparkEngine


ENGINES = ("duckdb", "spark")


def need_java() -> None:
    """Skip the test where Spark cannot run; in CI, which installs Java, that is a failure."""
    try:
        check_java()
    except JavaMissingError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def spark_engine(tmp_path_factory: pytest.TempPathFactory) -> "SparkEngine":
    """Spark in one process, started once: its compiler is not to polish what runs a few times over a few rows."""
    need_java()
    from dagster_pyspark import LazyPySparkResource

    from music_assets.engines.spark import SparkEngine, spark_config

    folder = tmp_path_factory.mktemp("spark")
    quick = {
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    pyspark = LazyPySparkResource(spark_config=spark_config("local[2]", "1g", "1g", quick))
    reader = DuckDBEngine(folder / "reading", threads=1)
    return SparkEngine(pyspark, folder / "scratch", reader, driver_bytes=0, shuffle_partitions=2)


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Each engine in turn, started once."""
    if request.param == "spark":
        return request.getfixturevalue("spark_engine")
    return DuckDBEngine(tmp_path_factory.mktemp("scratch"), threads=1)


@pytest.fixture
def harness(tmp_path: Path, engine: Engine) -> IngestHarness:
    """An empty data root."""
    return IngestHarness(tmp_path / "data", engine)


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that was published twice. To be left as it is."""
    return publish_twice(tmp_path_factory.mktemp("healthy") / "data").root


@pytest.fixture
def root(healthy: Path, tmp_path: Path) -> Path:
    """A copy of it to damage, though its views still read the original's files."""
    return shutil.copytree(healthy, tmp_path / "data")
