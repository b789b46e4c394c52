"""How time and memory grow with the data, and what a second core is good for."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.bases import folder_of
from benchmarks.cases.queries import sample_of_artists
from benchmarks.cases.rankings import measured
from benchmarks.contestants import Ours, rankers, size_mb
from benchmarks.data import full_drop
from benchmarks.digest import Agreement
from benchmarks.load import load
from benchmarks.processes import run, running
from benchmarks.results import OURS, Measurement
from benchmarks.running import Case, Setting
from benchmarks.services import ANY_ARTIST, OurService, free_port, requests, wait_until_ready

START_USERS = 1_000
"""A run over so few users is as good as nothing but the start of processes."""

CORES = (1, 2)


def sizes(users: int) -> list[int]:
    """Return the sizes to grow through: next to nothing, a tenth, the number of users itself, five times as many."""
    return [START_USERS, max(users // 10, START_USERS + 1), users, users * 5]


def growth(setting: Setting) -> Iterator[Measurement]:
    """Take the files, refresh, and ask, at each size in turn."""
    ours = Ours()
    drops = {users: full_drop(setting.work, users) for users in sizes(setting.users)}
    for number in range(1, setting.rounds + 1):
        for users, drop in drops.items():
            root = folder_of(setting, "growth", f"{users}")
            log = root.with_suffix(".log")
            shutil.rmtree(root, ignore_errors=True)
            for step, command in (("ingest", ours.ingest(root, drop)), ("refresh", ours.refresh(root))):
                usage = run(command, log)
                yield Measurement(OURS, number, {**asdict(usage), "left_mb": size_mb(root)}, f"{step}, {users} users")
            yield Measurement(OURS, number, _asked(root, log, setting.seconds), f"query, {users} users")
            shutil.rmtree(root)


def _asked(root: Path, log: Path, seconds: float) -> dict[str, float]:
    service, port = OurService(), free_port()
    with running(service.command(root, root, port), log) as watch:
        wait_until_ready(service, port)
        found = load(port, 1, requests(service, ANY_ARTIST, sample_of_artists(root)), seconds)
        watch.look()
    return {**found.figures(), "largest_mb": watch.largest_mb, "sum_mb": watch.sum_mb}


def cores(setting: Setting) -> Iterator[Measurement]:
    """Take the two files into an empty folder, on one core and on two."""
    drop = full_drop(setting.work, setting.users)
    agreement = Agreement()
    present: Sequence[str] = [ranker.name for ranker in setting.present(rankers())]
    for number in range(1, setting.rounds + 1):
        for count in CORES:
            for ranker in (one for one in rankers(count) if one.name in present):
                folder = folder_of(setting, "cores", ranker.name)
                shutil.rmtree(folder, ignore_errors=True)
                command = ranker.take(folder, drop)
                pinned = replace(command, arguments=["taskset", "-c", f"0-{count - 1}", *command.arguments])
                variant = f"{count} core{'s' if count > 1 else ''}"
                yield measured(ranker, folder, pinned, number, agreement, setting, variant)


CASES = (
    Case(
        "growth",
        "Growth",
        "Taking the files, making the rankings with their publication, and asking for any artist, at a tenth of the "
        "users, at all, and at five times as many. What a run over 1,000 users takes, the start of its processes, is "
        "subtracted before the cost of a row is told.",
        growth,
    ),
    Case(
        "cores",
        "One core, two cores",
        "From CSV files to rankings with everybody held to one core, and to two, by `taskset` and by its own setting "
        "for threads; PySpark as `local[1]` and `local[2]`.",
        cores,
    ),
)
