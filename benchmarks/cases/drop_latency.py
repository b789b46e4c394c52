"""How long a drop is on its way, from its rename to an answer over HTTP, with a real `music-assets up`.

The floor is the same daemon with a sensor just as frequent and an asset that does nothing.
"""

import random
import time
from collections.abc import Iterator

from benchmarks.daemons import SENSOR_INTERVAL, Daemon, EmptyDaemon, OurDaemon, waited
from benchmarks.data import later_drop
from benchmarks.processes import running
from benchmarks.results import Measurement
from benchmarks.running import Case, Setting
from benchmarks.services import free_port

USERS = 1_000
DROPS = 2
"""Drops a round, after one that is not counted: it tells that everything is up."""


def drop_latency(setting: Setting) -> Iterator[Measurement]:
    """Start each anew in each round, drop once to see it work, then drop and wait a few times."""
    chance = random.Random(1)
    drops = [later_drop(setting.work, USERS, number) for number in range(DROPS + 1)]
    daemons: tuple[Daemon, ...] = (OurDaemon(), EmptyDaemon())
    for number, daemon in setting.in_turn(setting.present(daemons)):
        folder = daemon.prepare(setting)
        http, web = free_port(), free_port()
        with running(daemon.command(folder, http, web), folder.with_suffix(".log")):
            station = daemon.station(folder, http)
            waited(station, drops[0])
            for drop in drops[1:]:
                time.sleep(chance.uniform(0, SENSOR_INTERVAL))
                yield Measurement(daemon.name, number, waited(station, drop))


CASES = (
    Case(
        "drop_latency",
        "A drop's way from rename to answer",
        f"A drop of {USERS:,} users with 50 artists each, onto all users: the seconds from the rename of its files "
        "until the query service finds the first of them, with `music-assets up` as it is (the sensor looks every five "
        "seconds, a file has to rest for two). The floor is `dagster dev` with a sensor just as frequent and an asset "
        "that only removes the file. A drop comes at a random moment between two looks.",
        drop_latency,
    ),
)
