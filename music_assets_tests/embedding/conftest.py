"""A Spark session for the tests of what trains on it."""

import pytest


@pytest.fixture(scope="session")
def spark_session(spark_engine: "SparkEngine") -> "SparkSession":  # noqa: F821
    """The session of the engine that all tests share."""
    return spark_engine.session
