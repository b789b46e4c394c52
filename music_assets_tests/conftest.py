"""The tiers of the suite, how pytest-xdist shares it out, the hypothesis profiles, and fixtures for every test.

`make test` runs what is not `slow`, with the few examples of the profile `dev`. `make test-slow` runs the rest, and the
property tests once more with all their examples (profile `ci`).
"""

import os
import signal
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from music_assets.data_root import DataRoot
from music_assets.engines.base import Engine
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.engines.java import JavaMissingError, check_java
from music_assets.settings import settings as current_settings
from music_assets_tests.support.corruption import copy_root, publish_twice
from music_assets_tests.support.ingest_harness import IngestHarness
from music_assets_tests.support.s3_server import S3Server, s3_server

if TYPE_CHECKING:
    from music_assets.engines.spark import SparkEngine


ENGINES = ("duckdb", "spark")

SLOW = (
    "*[s3]",
    "*[s3-*]",
    "*[spark-*]",
    "*[spark]",
    "defs/assets/test_code_versions.py::*",
    "defs/assets/test_embeddings.py::test_every_artist_and_user_has_a_vector_when_spark_trains",
    "defs/assets/test_embeddings.py::test_lists_are_not_followed_during_a_training",
    "defs/assets/test_embeddings.py::test_notebook_answers_its_questions",
    "defs/assets/test_embeddings.py::test_retraction_of_lists_is_followed",
    "defs/assets/test_embeddings.py::test_training_below_a_baseline_is_published_with_a_warning",
    "defs/assets/test_embeddings.py::test_training_succeeds_though_refreshes_delete_the_rankings_it_started_with",
    "defs/assets/test_embeddings.py::test_user_of_unknown_artists_has_no_vector_until_the_next_training",
    "defs/test_checks.py::test_failed_blocking_check_prevents_publication",
    "defs/test_io_manager.py::test_ranking_whose_coverage_is_unknown_is_computed_again",
    "defs/test_io_manager.py::test_small_drop_updates_a_ranking",
    "embedding/test_word2vec_spark.py::*",
    "end_to_end/test_benchmark_cases.py::*",
    "end_to_end/test_ci_workflow.py::*",
    "end_to_end/test_commands.py::test_demo_prints_the_tables",
    "end_to_end/test_commands.py::test_dg_validates_the_definitions",
    "end_to_end/test_commands.py::test_loading_the_definitions_does_not_import_spark",
    "end_to_end/test_deployment.py::*",
    "end_to_end/test_dbt.py::*",
    "end_to_end/test_interrupted_training.py::*",
    "end_to_end/test_policies.py::*",
    "end_to_end/test_s3.py::*",
    "end_to_end/test_spark.py::test_demo_prints_the_same_as_on_duckdb",
    "end_to_end/test_spark.py::test_job_on_a_cluster_survives_a_killed_worker",
    "end_to_end/test_spark.py::test_missing_java_is_reported_before_anything_changes",
    "end_to_end/test_spark.py::test_refresh_on_s3_*",
    "end_to_end/test_spark.py::test_retraction_and_erasure_leave_the_same_rows_as_on_duckdb",
    "end_to_end/test_training_over_http.py::*",
    "end_to_end/test_up.py::test_second_up_is_refused_until_the_first_has_ended",
    "end_to_end/test_wheel.py::*",
    "engines/test_spark.py::test_engines_can_take_turns_on_one_data_root",
    "faults/test_concurrency.py::*",
    "faults/test_kills.py::*",
    "faults/test_recovery.py::*",
    "faults/test_s3_faults.py::*",
    "ingest/test_disk_full.py::test_full_disk_while_publishing_keeps_the_last_snapshot",
    "ingest/test_object_landing.py::test_four_machines_load_the_same_objects",
    "maintenance/test_backup.py::test_backup_killed_with_sigkill_is_not_restored",
    "maintenance/test_backup.py::test_backup_taken_during_a_run_is_complete*",
    "maintenance/test_forget.py::test_erasure_killed_before_the_vectors_is_repeated",
    "maintenance/test_forget.py::test_everything_works_afterwards",
    "maintenance/test_forget.py::test_killed_erasure_is_repeated*",
    "maintenance/test_forget.py::test_user_whom_nobody_knows",
    "maintenance/test_forget.py::test_vectors_of_release_0_1_are_erased_too",
    "maintenance/test_forget.py::test_waiting_file_and_archive_are_named",
    "maintenance/test_rebuild.py::test_damaged_derived_data_is_recomputed*",
    "maintenance/test_rebuild.py::test_several_damaged_files_are_recomputed",
    "maintenance/test_retract.py::test_a_file_with_other_rows_is_rewritten",
    "maintenance/test_retract.py::test_everything_is_retracted",
    "maintenance/test_retract.py::test_root_of_an_older_release",
    "maintenance/test_retract.py::test_same_bytes_can_be_dropped_again",
    "runtime/test_dagster_home.py::test_runs_are_recorded_in_postgresql",
    "runtime/test_launcher.py::test_a_code_server_*",
    "runtime/test_launcher.py::test_a_dead_idle_worker_is_replaced",
    "runtime/test_launcher.py::test_a_finished_run_is_not_terminated",
    "runtime/test_launcher.py::test_a_run_is_terminated",
    "runtime/test_launcher.py::test_a_run_of_the_command_line_is_terminated",
    "runtime/test_launcher.py::test_concurrent_runs_have_separate_workers",
    "service/explorer/test_browser.py::*",
    "service/explorer/test_music_map.py::*",
    "service/explorer/test_named_queries.py::test_examples_run*",
    "service/explorer/test_named_queries.py::test_unknown_name_is_not_found",
    "service/explorer/test_pages.py::test_changes_of_ranks_are_shown",
    "service/explorer/test_pages.py::test_home_without_data_or_countries_says_what_to_do",
    "service/explorer/test_pipeline.py::*",
    "service/explorer/test_real_names.py::*",
    "service/explorer/test_sql_console.py::*",
    "service/sandbox/test_pool.py::test_500_concurrent_queries",
    "service/sandbox/test_pool.py::test_large_results_are_possible_after*",
    "service/test_artist_countries.py::test_each_answer_is_from_the_newest_snapshot",
    "service/test_artist_search.py::*",
    "service/test_attacks.py::test_expensive_statement_is_stopped*",
    "service/test_attacks.py::test_large_statement_stays_within_the_memory_limit*",
    "service/test_client.py::test_key_and_rate_limit",
    "service/test_client.py::test_the_client_imports_only_its_libraries",
    "service/test_http_protocol.py::test_2000_silent_connections",
    "service/test_http_protocol.py::test_busy_connections_are_not_closed_for_new_ones",
    "service/test_http_protocol.py::test_forwarded_addresses_are_trusted_by_setting_only",
    "service/test_http_protocol.py::test_requests_that_do_not_arrive_are_ended*",
    "service/test_logs.py::*",
    "service/test_mcp.py::test_attacks_are_refused_as_over_query",
    "service/test_mcp.py::test_client_that_leaves_stops_its_query*",
    "service/test_mcp.py::test_key_and_rate_limit",
    "service/test_mcp.py::test_similar_artists",
    "service/test_mcp.py::test_standard_input",
    "service/test_snapshots.py::test_data_root_created_restored_and_replaced_while_serving",
    "service/test_snapshots.py::test_ten_snapshots_under_load",
    "service/test_strangers.py::test_a_result_beyond_the_spool_is_refused",
    "service/test_strangers.py::test_a_slow_reader_of_a_small_result*",
    "service/test_strangers.py::test_every_value_has_an_encoding*",
    "service/test_strangers.py::test_failing_query_is_reported_and_costs_no_worker*",
    "service/test_strangers.py::test_readiness_means_that_a_worker_answers",
    "service/test_strangers.py::test_slow_readers_hold_no_worker",
    "service/test_strangers.py::test_unfinished_requests_of_a_caller_are_bounded",
    "service/test_trino.py::test_attacks_are_refused",
    "service/test_trino.py::test_incomplete_results_are_errors",
    "service/test_trino.py::test_keys",
    "storage/test_compaction.py::test_compaction_leaves_no_work_for_the_sensor",
    "storage/test_compaction.py::test_ingest_after_compaction_checkpoint_and_vacuum",
    "storage/test_compaction.py::test_vacuum_keeps_published_files",
    "storage/test_log_upload.py::*",
    "storage/test_moved_root.py::test_root_in_a_new_bucket_*",
    "storage/test_published_snapshot.py::test_computed_tables_keep_the_published_versions_and_one_more",
    "test_cli.py::TestQuery::test_an_interrupt_ends_a_running_statement",
    "test_deploy.py::test_units_are_valid_and_hardened*",
    "test_object_store.py::test_large_file_is_copied_in_parts",
    "test_upgrade.py::test_root_of_*",
)
"""Patterns of test ids, without the folder of the tests, that belong to the slow tier; `*` and `?` are wildcards."""

ON_S3 = (
    "defs/test_checks.py::test_failed_blocking_check_prevents_publication",
    "defs/test_io_manager.py::test_slower_run_does_not_replace_newer_rankings",
    "defs/test_io_manager.py::test_small_drop_updates_a_ranking",
    "ingest/test_ingest.py::test_content_that_is_loaded_again_has_its_rejects_again",
    "ingest/test_ingest.py::test_crash_leaves_the_file_or_its_rows",
    "ingest/test_ingest.py::test_same_content_is_loaded_once",
    "ingest/test_ingest.py::test_second_ingest_is_refused_while_one_runs",
    "maintenance/test_accept.py::test_the_good_rows_are_published_as_they_are",
    "maintenance/test_backup.py::test_unfinished_restore_is_unusable_until_it_is_repeated",
    "maintenance/test_doctor.py::test_a_healthy_root_has_no_problems",
    "maintenance/test_doctor.py::test_a_missing_log_is_reported",
    "maintenance/test_doctor.py::test_several_damaged_files_are_reported",
    "maintenance/test_doctor.py::test_unused_and_foreign_files_are_reported_as_notes",
    "maintenance/test_forget.py::test_erasure_killed_before_the_vectors_is_repeated",
    "maintenance/test_forget.py::test_no_byte_below_the_data_root_has_the_user",
    "maintenance/test_rebuild.py::test_missing_derived_data_is_recomputed",
    "maintenance/test_rebuild.py::test_several_damaged_files_are_recomputed",
    "maintenance/test_retract.py::test_what_a_retracted_drop_replaced_counts_again",
    "storage/test_compaction.py::test_concurrent_compactions_keep_every_row_once",
    "storage/test_compaction.py::test_concurrent_writer",
    "storage/test_compaction.py::test_many_small_files_become_one",
    "storage/test_compaction.py::test_old_version_is_readable_until_vacuum",
    "storage/test_delta.py::test_concurrent_writers",
    "storage/test_delta.py::test_readers_see_files_only_after_their_commit",
    "storage/test_delta.py::test_replace",
    "storage/test_delta.py::test_transaction*",
    "storage/test_integrity.py::test_missing_log_stops_ingest",
    "storage/test_integrity.py::test_newest_intact_snapshot_is_used",
    "storage/test_lookup_tables.py::test_changes_compare_with_the_previous_published_ranking",
    "storage/test_published_snapshot.py::test_all_tables_are_published",
    "storage/test_published_snapshot.py::test_newest_two_snapshots_are_kept",
    "storage/test_published_snapshot.py::test_pointer_describes_the_tables",
    "storage/test_published_snapshot.py::test_raw_tables_are_published_in_the_version_of_the_rankings",
)
"""Tests that run on a data root in a folder, and once more on S3."""

FAST = (
    "engines/test_engine.py::*",
    "service/test_http_protocol.py::test_requests_that_do_not_arrive_are_ended[dripping-half a head]",
    "service/explorer/test_browser.py::test_three_clicks_lead_to_an_artist_and_its_map",
    "transforms/test_rankings.py::test_ranks_by_hand*",
)
"""Exceptions to `SLOW`."""

SPARK = (
    "*[spark]",
    "*[spark-*]",
    "defs/assets/test_embeddings.py::*_when_spark_trains",
    "embedding/test_word2vec_spark.py::*",
    "engines/test_spark.py::*",
)
"""Tests on the Spark session of `spark_engine`, which one worker of pytest-xdist runs, so that only one JVM starts."""

LONGEST = (
    "spark",
    "s3",
    "faults/test_s3_faults.py",
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
"""Files to start first, with the tests of `SPARK` and those on S3, so that all workers of pytest-xdist end at about the
same time.
"""

settings.register_profile("ci", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", settings.get_profile("ci"), max_examples=10)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: left to `make test-slow`")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in commands that end with &


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the slow tests, and move the longest groups to the front."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.getoption("lf"):
        _check_tables(items)
    for item in items:
        if _matches(item.nodeid, SLOW) and not _matches(item.nodeid, FAST):
            item.add_marker(pytest.mark.slow)
    order = {group: place for place, group in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(_group(item.nodeid), len(order)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let the tests of `ON_S3` use both kinds of data root. The id of those in a folder does not name the kind."""
    if "root_kind" in metafunc.fixturenames and _matches(metafunc.definition.nodeid, ON_S3):
        metafunc.parametrize("root_kind", [pytest.param("folder", id=pytest.HIDDEN_PARAM), "s3"])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run each group of tests in one worker. `--dist loadgroup` of pytest-xdist 3.8 has no effect with pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    config.option.loadscopereorder = False
    return GroupScheduling(config, log)


def _check_tables(items: list[pytest.Item]) -> None:
    """Raise UsageError if a test of the tables above was renamed, or one on Spark is missing. Needs all tests."""
    groups = {_group(item.nodeid) for item in items}
    patterns = (*SLOW, *FAST, *SPARK)
    unused = [pattern for pattern in patterns if not any(_matches(item.nodeid, (pattern,)) for item in items)]
    unused += [group for group in LONGEST if group not in groups]
    on_s3 = {item.nodeid.partition("[")[0] for item in items if _group(item.nodeid) == "s3"}
    unused += [pattern for pattern in ON_S3 if not any(_matches(nodeid, (pattern,)) for nodeid in on_s3)]
    if unused:
        raise pytest.UsageError(f"{__file__} names tests that do not exist: {', '.join(unused)}")
    on_spark = {item.nodeid for item in items if "spark_engine" in getattr(item, "fixturenames", ())}
    if missing := [nodeid for nodeid in on_spark if _group(nodeid) != "spark"]:
        raise pytest.UsageError(f"SPARK in {__file__} lacks {', '.join(missing)}")


def _group(nodeid: str) -> str:
    if _matches(nodeid, SPARK):
        return "spark"
    return "s3" if _matches(nodeid, ("*[s3]", "*[s3-*]")) else _test_id(nodeid).partition("::")[0]


def _test_id(nodeid: str) -> str:
    return nodeid.removeprefix("music_assets_tests/")


def _matches(nodeid: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(_test_id(nodeid), pattern.replace("[", "[[]")) for pattern in patterns)


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


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Return an S3 server on this machine."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def root_kind() -> str:
    """Return the kind of the test's data roots: "folder", for tests of `ON_S3` also "s3"."""
    return "folder"


@pytest.fixture
def data_root(request: pytest.FixtureRequest, root_kind: str, tmp_path: Path) -> DataRoot:
    """Return a new data root: in a folder, for tests of `ON_S3` also on S3."""
    if root_kind == "folder":
        return DataRoot(tmp_path / "data")
    server: S3Server = request.getfixturevalue("s3")
    return server.root(tmp_path, uuid4().hex)


@pytest.fixture
def settings_in_environment(data_root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let commands that run in this process use `data_root`, with the Dagster home in it."""
    for name, value in data_root.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    current_settings.cache_clear()
    yield
    current_settings.cache_clear()


@pytest.fixture
def harness(data_root: DataRoot, duckdb_engine: DuckDBEngine) -> IngestHarness:
    """Return an empty data root whose rankings DuckDB computes."""
    return IngestHarness(data_root, duckdb_engine)


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    """Return a data root that was published twice; read only."""
    return publish_twice(tmp_path_factory.mktemp("healthy") / "data").root


@pytest.fixture
def root(healthy: DataRoot, data_root: DataRoot) -> DataRoot:
    """Return a copy of `healthy` to corrupt."""
    return copy_root(healthy.path, data_root)
