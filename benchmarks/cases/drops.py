"""Drops one after the other: the time from rename to answer, and whether anything grows that should not."""

import random
import time
from collections.abc import Iterator
from itertools import pairwise
from shutil import copytree

import dagster as dg
import psutil

from benchmarks import contestants, daemons, data, measure, services
from benchmarks.context import Context, Entrant, empty_folder
from benchmarks.results import OURS, Measurement
from music_assets.data_root import DataRoot
from music_assets.defs.build import build_definitions
from music_assets.settings import Settings
from music_assets.storage.published_snapshot import connect
from music_assets.tables import REFRESH_RANKINGS

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def drop_latency(context: Context) -> Iterator[Measurement]:
    """Restart each daemon in each round, then drop twice, at a random time between two ticks of the sensor."""
    generator = random.Random(1)
    first, *drops = [data.later_drop(context.work, 1_000, number) for number in range(3)]
    for number, one in context.turns([Entrant(OURS), Entrant("empty asset")]):
        folder, daemon = empty_folder(context.work, "up", one.name), daemons.empty_daemon
        if one.name == OURS:
            base = contestants.base_folder(context.work, context.users, contestants.Ours())
            folder, daemon = copytree(base, folder, dirs_exist_ok=True), daemons.our_daemon
        with measure.running((started := daemon(folder)).command, folder):
            started.latency(first)  # shows that the daemon is up
            for drop in drops:
                time.sleep(generator.uniform(0, daemons.SENSOR_INTERVAL))
                yield Measurement(one.name, number, started.latency(drop))


def many_drops(context: Context) -> Iterator[Measurement]:
    """Drop 20 users, run sensor and job in this process, and query the snapshot: up to 50 times in each round."""
    folder = empty_folder(context.work, "many-drops", OURS)
    definitions = build_definitions(Settings(data=folder, settle_seconds=0, retention_hours=0))
    job = definitions.resolve_job_def(REFRESH_RANKINGS)
    sensor = definitions.resolve_sensor_def("csv_drop_sensor")
    count = min(50, max(1, context.users // 1_000))
    with dg.DagsterInstance.local_temp(str(empty_folder(context.work, "many-drops", "home"))) as instance:
        for place in range(context.rounds * count):
            drop = data.later_drop(context.work, 20, place, step=18)  # two users are in the drop before, too
            contestants.link_drop(folder, drop)
            times = [time.perf_counter()]
            request = sensor(dg.build_sensor_context(instance=instance, definitions=definitions))
            times.append(time.perf_counter())
            assert isinstance(request, dg.RunRequest), request
            job.execute_in_process(QUIET, instance=instance, tags=dict(request.tags))
            times.append(time.perf_counter())
            raw = f"SELECT * FROM raw_parquet_user_top_artists WHERE user_id = {drop.first_user} ORDER BY rank"
            with connect(DataRoot(folder)) as connection:
                for sql in (services.QUERIES[services.DRAKE], raw):
                    for _ in range(20):
                        connection.execute(sql).fetchall()
                    times.append(time.perf_counter())
            tick, run, ranking, raw_table = (after - before for before, after in pairwise(times))
            metrics = {"seconds": run, "tick_seconds": tick, "ranking_ms": ranking * 50, "raw_ms": raw_table * 50}
            metrics["sum_mb"] = psutil.Process().memory_info().rss / measure.MB
            metrics |= {"files": sum(1 for _ in folder.rglob("*")), "left_mb": measure.size_mb(folder)}
            first = place // count * count
            yield Measurement(OURS, place // count + 1, metrics, f"drops {first + 1} to {first + count}")
