"""Builds the Dagster definitions from the settings."""

import os
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any, cast

import dagster as dg

from music_assets.data_root import DataRoot
from music_assets.defs.assets import embeddings, published_snapshot, raw_tables
from music_assets.defs.assets.rankings import ranking_assets
from music_assets.defs.assets.raw_tables import drop_folders
from music_assets.defs.checks import CHECKS, Check, Thresholds, asset_checks
from music_assets.defs.io_manager import DeltaIOManager
from music_assets.defs.jobs import refresh_rankings, train_embeddings
from music_assets.defs.metadata import DESCRIPTIONS, with_page
from music_assets.defs.sensors import RetryPolicy, csv_drop_sensor, run_failure_alert
from music_assets.embedding import word2vec_gensim
from music_assets.engines.base import Engine, repeated_users_in
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.engines.java import check_java
from music_assets.ingest.ingest import Ingest
from music_assets.ingest.object_landing import open_landing
from music_assets.ingest.parser import Parser
from music_assets.settings import Settings, http_url
from music_assets.storage.delta import DeltaStore
from music_assets.storage.publisher import Publisher
from music_assets.tables import TABLES


def build_definitions(
    settings: Settings,
    engine: Engine | None = None,
    checks: Sequence[Check] = CHECKS,
    resources: dict[str, Any] | None = None,
) -> dg.Definitions:
    """Return the definitions that Dagster loads. `engine`, `checks` and `resources` replace the default ones.

    Raises JavaMissingError if the settings choose Spark and Java is missing.
    """
    root = DataRoot.of(settings)
    computing = _computing(settings) | ({"engine": engine} if engine else {})
    engine, reader = computing["engine"], computing["reader"]
    parser = Parser(reader, root.scratch, settings.threads)
    store = DeltaStore(root)
    landing = open_landing(root, settings.settle_seconds, settings.encoding)
    retry_policy = RetryPolicy(settings.max_attempts, settings.retry_pause)
    loaded = dg.load_assets_from_modules([raw_tables, embeddings, published_snapshot])
    assets = cast("list[dg.AssetsDefinition]", [*loaded, *ranking_assets(checks), *drop_folders(root)])
    if settings.freshness_hours is not None:
        assets = list(dg.map_asset_specs(partial(_with_freshness, settings.freshness_hours), assets))
    service_url = str(settings.service_url or http_url(settings.host, settings.port))
    return dg.Definitions(
        assets=dg.map_asset_specs(partial(with_page, service_url), assets),
        asset_checks=asset_checks(checks),
        jobs=[refresh_rankings, train_embeddings],
        sensors=[
            csv_drop_sensor(landing, store, retry_policy, settings.sensor_interval),
            run_failure_alert(str(settings.alert_webhook) if settings.alert_webhook else None),
        ],
        executor=dg.in_process_executor,
        resources={
            "io_manager": DeltaIOManager(store, engine, reader, TABLES, DESCRIPTIONS, settings.retention_hours),
            "store": store,
            "trainer": partial(word2vec_gensim.train, threads=settings.threads),
            "threads": settings.threads or os.cpu_count() or 1,
            **computing,
            "ingest": Ingest(landing, store, parser, settings.retention_hours),
            "data_root": root,
            "publisher": Publisher(store, settings.memory_limit, settings.threads, partial(repeated_users_in, reader)),
            "thresholds": Thresholds(
                settings.reject_warn_share,
                settings.reject_fail_share,
                settings.unknown_warn_share,
                settings.unknown_fail_share,
            ),
            **(resources or {}),
        },
    )


def _with_freshness(hours: float, asset: dg.AssetSpec) -> dg.AssetSpec:
    """Return the asset; `music_db` with the policy that it is published again within so many hours."""
    if asset.key != published_snapshot.music_db.key:
        return asset
    return asset.replace_attributes(freshness_policy=dg.FreshnessPolicy.time_window(timedelta(hours=hours)))


def _computing(settings: Settings) -> dict[str, Any]:
    """Return the resources `engine` and `reader`; with Spark also `pyspark` (its session) and `trainer`.

    The `reader` serves CSV parsing, counts, checks and previews. It is always DuckDB, which finishes such small queries
    before Spark has distributed them. Spark is imported only if chosen, and its JVM starts on first use.
    """
    scratch = DataRoot.of(settings).scratch
    duckdb = DuckDBEngine(scratch, settings.memory_limit, settings.threads)
    if settings.engine == "duckdb":
        return {"engine": duckdb, "reader": duckdb}
    check_java()
    from dagster_pyspark import LazyPySparkResource

    from music_assets.embedding import word2vec_spark
    from music_assets.engines.spark import SparkEngine, spark_config

    config = spark_config(
        settings.spark_master, settings.spark_driver_memory, settings.spark_executor_memory, settings.spark_conf
    )
    pyspark = LazyPySparkResource(spark_config=config)
    engine = SparkEngine(pyspark, settings.spark_shuffle_partitions)
    return {
        "engine": engine,
        "reader": duckdb,
        "pyspark": pyspark,
        "trainer": partial(word2vec_spark.train, lambda: engine.session),
    }
