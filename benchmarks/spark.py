"""A refresh with the Spark engine on a cluster of workers on this machine, beside a bare PySpark job and DuckDB.

    python -m benchmarks.spark --data FOLDER [--workers N] [--rounds N] [--kill] [--work FOLDER]

FOLDER holds users.csv and user_top_artists.csv, as `music-assets generate` makes them. The bare job, of the old Glue
jobs' steps, runs on the same cluster with the same memory; it gives none of the guarantees. All three take turns, and
must make the same tables: row counts and sums of the hashes of all rows, and each ranking in its order. With `--kill` a
worker is killed while a further refresh with Spark is under way, which must end with the same tables, too.

CPU and memory are those of all processes together: Dagster with the driver, and the workers with their executors.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from benchmarks.contestants import Ours, Script
from benchmarks.data import Drop
from benchmarks.digest import Agreement
from benchmarks.processes import Command, Usage, Watch, run
from music_assets.settings import PREFIX
from music_assets.tables import USER_TOP_ARTISTS
from music_assets_tests.support.spark_cluster import HOST, LOOPBACK, Cluster, kill

MEMORY = "1g"
OURS, BARE, DUCKDB = "music-assets, Spark", "bare PySpark", "music-assets, DuckDB"


def on_cluster(command: Command, cluster: Cluster) -> Command:
    """Return the command of the project with Spark on the cluster as its engine."""
    chosen = {
        f"{PREFIX}ENGINE": "spark",
        f"{PREFIX}SPARK_MASTER": cluster.master,
        f"{PREFIX}SPARK_DRIVER_MEMORY": MEMORY,
        f"{PREFIX}SPARK_EXECUTOR_MEMORY": MEMORY,
        f"{PREFIX}SPARK_CONF": json.dumps({**LOOPBACK, "spark.executor.cores": "1"}),
        "SPARK_LOCAL_IP": HOST,
    }
    return replace(command, environment={**command.environment, **chosen})


def bare_on_cluster(command: Command, cluster: Cluster) -> Command:
    """Return the command of the bare job with the cluster as its master."""
    memory = ["--driver-memory", MEMORY, "--executor-memory", MEMORY]
    arguments = [*command.arguments, "--master", cluster.master, *memory]
    return replace(command, arguments=arguments, environment={"SPARK_LOCAL_IP": HOST})


def measured(command: Command, cluster: Cluster | None, log: Path) -> Usage:
    """Run a command, and add what the workers took meanwhile."""
    watches = [Watch(worker.pid) for worker in cluster.workers] if cluster else []
    for watch in watches:
        watch.look()
    before = sum(watch.cpu_seconds for watch in watches)
    with ExitStack() as stack:
        for watch in watches:
            stack.enter_context(watch.looking())
        usage = run(command, log)
    return replace(
        usage,
        cpu_seconds=usage.cpu_seconds + sum(watch.cpu_seconds for watch in watches) - before,
        largest_mb=max([usage.largest_mb, *(watch.largest_mb for watch in watches)]),
        sum_mb=usage.sum_mb + sum(watch.sum_mb for watch in watches),
    )


def kill_once(cluster: Cluster, there: Callable[[], bool]) -> threading.Thread:
    """Kill the first worker, with its executor, as soon as something is there."""

    def wait_and_kill() -> None:
        while not there():
            time.sleep(0.05)
        kill(cluster.workers[0])
        print("killed a worker", flush=True)

    thread = threading.Thread(target=wait_and_kill, daemon=True)
    thread.start()
    return thread


def main() -> None:
    """Take turns, compare the tables, print what each took and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2, help="of one core and 1 GB each")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--only", nargs="+", default=[OURS, BARE, DUCKDB])
    parser.add_argument("--work", type=Path, help="a folder on the disk of FOLDER; a temporary one by default")
    options = parser.parse_args()
    drop = Drop.below(options.data)
    agreement = Agreement()
    taken: dict[str, list[Usage]] = {}
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        work = Path(name)
        ours, bare = Ours(), Script("PySpark", "pyspark_job.py", [])

        def take_turn(name: str, cluster: Cluster | None) -> None:
            folder = work / "out"
            contestant = bare if name == BARE else ours
            command = contestant.take(folder, drop)
            if cluster:
                command = (bare_on_cluster if name == BARE else on_cluster)(command, cluster)
            usage = measured(command, cluster, work / "log")
            made = contestant.digest(folder)
            agreement.check(name, made)
            taken.setdefault(name, []).append(usage)
            print(
                f"{name:22} {usage.seconds:7.1f} s {usage.cpu_seconds:8.1f} CPU s "
                f"{usage.largest_mb:7.0f} MB the largest process {usage.sum_mb:7.0f} MB all  "
                f"tables {sha256(repr(made).encode()).hexdigest()[:12]}",
                flush=True,
            )
            shutil.rmtree(folder)

        with Cluster(work / "cluster", options.workers) as cluster:
            for _ in range(options.rounds):
                for name in options.only:
                    take_turn(name, None if name == DUCKDB else cluster)
        if options.kill:
            with Cluster(work / "cluster-killed", options.workers) as cluster:
                log = work / "out" / USER_TOP_ARTISTS.folder / "_delta_log"
                thread = kill_once(cluster, (log / f"{1:020}.json").exists)
                take_turn(f"{OURS}, killed", cluster)
                thread.join(1)
                if thread.is_alive():
                    raise SystemExit("the refresh ended before a worker was killed")
    for other in (BARE, DUCKDB):
        if OURS in taken and other in taken:
            pairs = list(zip(taken[OURS], taken[other], strict=True))
            ratios = {
                field: statistics.median(getattr(a, field) / getattr(b, field) for a, b in pairs)
                for field in ("seconds", "cpu_seconds", "sum_mb")
            }
            print(f"Spark beside {other}: " + ", ".join(f"{field} {ratio:.2f}" for field, ratio in ratios.items()))


if __name__ == "__main__":
    main()
