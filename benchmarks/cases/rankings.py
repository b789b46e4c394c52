"""Rankings from CSV files, from raw parquet files, after a small drop, and on a Spark cluster."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from shutil import copytree, ignore_patterns

import pyspark

from benchmarks import data
from benchmarks.contestants import CONTESTANTS, PUBLISHER, PYSPARK, Contestant, Ours, base_folder
from benchmarks.context import Context, empty_folder
from benchmarks.daemons import run_by_daemon
from benchmarks.measure import Usage, run, size_mb
from benchmarks.results import OURS, Measurement
from music_assets.settings import PREFIX

BY_DAEMON = Ours(f"{OURS}, run by the daemon")
SPARK_CLUSTER = "local-cluster[2,1,1024]"  # two executor processes of one core and 1 GB on this machine


def csv_to_rankings(context: Context) -> Iterator[Measurement]:
    """Load the two files into an empty folder."""
    drop = data.full_drop(context.work, context.users)
    for number, one in context.turns([BY_DAEMON, *CONTESTANTS, PUBLISHER]):
        folder = empty_folder(context.work, "csv", one.name)
        yield _compared(context, number, one, folder, _load(one, folder, drop))


def refresh_from_parquet(context: Context) -> Iterator[Measurement]:
    """Compute the rankings from existing raw parquet files."""
    for number, one in context.turns(CONTESTANTS):
        folder = base_folder(context.work, context.users, one)
        yield _compared(context, number, one, folder, run(one.refresh(folder), folder))


def small_drop(context: Context) -> Iterator[Measurement]:
    """Load a small drop into a folder that holds all users."""
    drop = data.small_drop(context.work, context.users)
    for number, one in context.turns([BY_DAEMON, *CONTESTANTS]):
        base = base_folder(context.work, context.users, Ours() if one is BY_DAEMON else one)
        unfinished = ignore_patterns("spill")  # which Spark's JVM still deletes
        folder = copytree(base, empty_folder(context.work, "drop", one.name), ignore=unfinished, dirs_exist_ok=True)
        yield _compared(context, number, one, folder, _load(one, folder, drop))


def spark_cluster(context: Context) -> Iterator[Measurement]:
    """Load the two files into an empty folder, with Spark on executor processes of its own and with DuckDB."""
    drop = data.full_drop(context.work, context.users)
    settings = {"ENGINE": "spark", "SPARK_DRIVER_MEMORY": "1g", "SPARK_EXECUTOR_MEMORY": "1g"}
    # SPARK_MASTER accepts no local-cluster. Without these options the driver would have the collector of local mode.
    driver = {"spark.master": SPARK_CLUSTER, "spark.driver.defaultJavaOptions": "-XX:+UseSerialGC -Xms32m"}
    settings["SPARK_CONF"] = json.dumps({**driver, "spark.executor.cores": "1"})
    home = f"SPARK_HOME={Path(pyspark.__file__).parent}"
    ours = Ours(f"{OURS}, Spark", ("java",), (home, *(f"{PREFIX}{name}={value}" for name, value in settings.items())))
    script = replace(PYSPARK, environment=(home, f"SPARK_MASTER={SPARK_CLUSTER}", "SPARK_MEMORY=1g"))
    entrants: list[Contestant] = [Ours(), ours, script]
    for number, one in context.turns(entrants):
        folder = empty_folder(context.work, "spark-cluster", one.name)
        yield _compared(context, number, one, folder, run(one.load(folder, drop), folder))


def _load(one: Contestant, folder: Path, drop: data.Drop) -> Usage:
    return run_by_daemon(folder, drop) if one is BY_DAEMON else run(one.load(folder, drop), folder)


def _compared(
    context: Context, number: int, one: Contestant, folder: Path, usage: Usage, variant: str = ""
) -> Measurement:
    """Compare the contestant's tables with those of the first one. Raises DifferentResultsError."""
    digest = one.digest(folder)
    context.compare(one.name, digest)
    context.facts["rows"] = {name: counted[0] for name, counted in digest.items()}
    return Measurement(one.name, number, {**asdict(usage), "left_mb": size_mb(folder)}, variant)
