"""Drops one after the other: the time from rename to answer."""

import random
import time
from collections.abc import Iterator
from shutil import copytree

from benchmarks import contestants, daemons, data, measure
from benchmarks.context import Context, Entrant, empty_folder
from benchmarks.results import OURS, Measurement


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
