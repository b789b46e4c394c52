"""The tiers of the suite, how pytest-xdist shares it out, the hypothesis profiles, and fixtures for every test.

`make test` runs what is not `slow`, with the few examples of the profile `dev`. `make test-slow` runs the rest, and the
property tests once more with all their examples (profile `ci`).
"""

import os
import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from music_assets.data_root import DataRoot
from music_assets.engines.base import Engine
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.engines.java import JavaMissingError, check_java
from music_assets_tests.support.corruption import publish_twice
from music_assets_tests.support.ingest_harness import IngestHarness

if TYPE_CHECKING:
    from music_assets.engines.spark import SparkEngine


ENGINES = ("duckdb", "spark")

SLOW = (
    "*[spark]",
    "*[spark-*]",
    "defs/assets/test_embeddings.py::test_every_artist_and_user_has_a_vector_when_spark_trains",
    "defs/test_checks.py::test_failed_blocking_check_prevents_publication",
    "embedding/test_word2vec_spark.py::*",
    "end_to_end/test_ci_workflow.py::*",
    "end_to_end/test_commands.py::test_demo_prints_the_tables",
    "end_to_end/test_interrupted_training.py::*",
    "end_to_end/test_spark.py::test_demo_prints_the_same_as_on_duckdb",
    "end_to_end/test_spark.py::test_job_on_a_cluster_survives_a_killed_worker",
    "end_to_end/test_training_over_http.py::*",
    "end_to_end/test_up.py::test_second_up_is_refused_until_the_first_has_ended",
    "end_to_end/test_wheel.py::*",
    "faults/test_concurrency.py::*",
    "faults/test_kills.py::test_run_recovers_from_kills_at_a_point[all]",
    "faults/test_kills.py::test_run_recovers_from_kills_at_any_time",
    "faults/test_recovery.py::*",
    "maintenance/test_rebuild.py::test_damaged_derived_data_is_recomputed*",
    "runtime/test_launcher.py::test_a_dead_idle_worker_is_replaced",
    "runtime/test_launcher.py::test_a_finished_run_is_not_terminated",
    "runtime/test_launcher.py::test_a_run_of_the_command_line_is_terminated",
    "service/sandbox/test_pool.py::test_500_concurrent_queries",
    "service/test_attacks.py::test_expensive_statement_is_stopped*",
    "service/test_attacks.py::test_large_statement_stays_within_the_memory_limit*",
    "storage/test_compaction.py::test_vacuum_keeps_published_files",
    "end_to_end/test_benchmark_cases.py::*",
)
"""Patterns of test ids, without the folder of the tests, that belong to the slow tier; `*` and `?` are wildcards."""

FAST = (
    "engines/test_engine.py::*",
    "transforms/test_current_rows.py::test_keys_are_found_among_all_ranks*",
    "transforms/test_rankings.py::test_ranks_by_hand*",
)
"""Exceptions to `SLOW`."""

LONGEST_GROUPS = (
    "spark",
    "faults/test_concurrency.py",
    "end_to_end/test_spark.py",
    "end_to_end/test_benchmark_cases.py",
    "faults/test_kills.py",
    "end_to_end/test_up.py",
    "maintenance/test_rebuild.py",
    "faults/test_model.py",
    "end_to_end/test_interrupted_training.py",
    "faults/test_recovery.py",
    "runtime/test_launcher.py",
)
"""Groups of tests to start first, so that all workers of pytest-xdist end at about the same time."""

settings.register_profile("ci", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", settings.get_profile("ci"), max_examples=10)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: left to `make test-slow`")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the slow tests. Run each file in one worker, and everything on the session's Spark in one."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        _check_patterns([_test_id(item) for item in items])
    order = {group: place for place, group in enumerate(LONGEST_GROUPS)}
    groups = {}
    for item in items:
        test = _test_id(item)
        if _matches(test, SLOW) and not _matches(test, FAST):
            item.add_marker(pytest.mark.slow)
        groups[item] = "spark" if _uses_spark(item) else test.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    items.sort(key=lambda item: order.get(groups[item], len(order)))


def _check_patterns(tests: list[str]) -> None:
    """Raise an error if a test of the tables above was renamed. Needs the ids of all tests."""
    files = {test.partition("::")[0] for test in tests} | {"spark"}
    unused = [pattern for pattern in (*SLOW, *FAST) if not any(_matches(test, (pattern,)) for test in tests)]
    unused += [group for group in LONGEST_GROUPS if group not in files]
    if unused:
        raise pytest.UsageError(f"{__file__} names tests that do not exist: {', '.join(unused)}")


def _test_id(item: pytest.Item) -> str:
    return item.nodeid.removeprefix("music_assets_tests/")


def _matches(test: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(test, pattern.replace("[", "[[]")) for pattern in patterns)


def _uses_spark(item: pytest.Item) -> bool:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    chosen = (parameters.get("engine"), parameters.get("trainer"))
    return "spark" in chosen or "spark_engine" in getattr(item, "fixturenames", ())


def need_java() -> None:
    """Skip the test where Spark cannot run. Under CI=true raise JavaMissingError instead."""
    try:
        check_java()
    except JavaMissingError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def spark_engine(tmp_path_factory: pytest.TempPathFactory) -> "SparkEngine":
    """Return a Spark engine in this process that starts fast."""
    need_java()
    from dagster_pyspark import LazyPySparkResource

    from music_assets.engines.spark import SparkEngine, spark_config
    from music_assets_tests.support.spark_cluster import FAST_START

    folder = tmp_path_factory.mktemp("spark")
    conf = {
        "spark.driver.extraJavaOptions": FAST_START,
        "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    pyspark = LazyPySparkResource(spark_config=spark_config("local[2]", "1g", "1g", conf))
    return SparkEngine(pyspark, shuffle_partitions=2)


@pytest.fixture(scope="session")
def duckdb_engine(tmp_path_factory: pytest.TempPathFactory) -> DuckDBEngine:
    """Return a DuckDB engine that the whole session shares."""
    return DuckDBEngine(tmp_path_factory.mktemp("scratch"), threads=1)


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Return each engine in turn: for what differs between engines, which is reading, writing and computing tables."""
    return request.getfixturevalue(f"{request.param}_engine")


@pytest.fixture
def harness(tmp_path: Path, duckdb_engine: DuckDBEngine) -> IngestHarness:
    """Return an empty data root whose rankings DuckDB computes."""
    return IngestHarness(tmp_path / "data", duckdb_engine)


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    """Return a data root that was published twice; read only."""
    return publish_twice(tmp_path_factory.mktemp("healthy") / "data").root


@pytest.fixture
def root(healthy: DataRoot, tmp_path: Path) -> DataRoot:
    """Return a copy of `healthy` to corrupt. Its views still read the files of the original."""
    return DataRoot(shutil.copytree(healthy.path, tmp_path / "data"))
