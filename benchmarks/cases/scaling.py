"""How time and memory grow with the data, and what a second core is good for."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.bases import folder_of
from benchmarks.cases.queries import sample_of_artists
from benchmarks.cases.rankings import log_of, measured
from benchmarks.contestants import Ours, rankers, size_mb
from benchmarks.data import Drop, full_drop
from benchmarks.derived import growth_variant
from benchmarks.digest import Agreement
from benchmarks.load import load
from benchmarks.processes import run, running
from benchmarks.results import OURS, Measurement
from benchmarks.running import Case, Setting
from benchmarks.services import ANY_ARTIST, OurService, free_port, requests, wait_until_ready
from music_assets.settings import Settings

START_USERS = 1_000
"""A run over so few users is as good as nothing but the start of processes."""

MOST_TIMES = 5
"""How often the small sizes are measured in a round: in the second they take, any other work shows."""
BYTES_PER_USER = 6_000
"""Of CSV files, and of what is made from them."""

CORES = (1, 2)


def sizes(users: int, free_bytes: int) -> list[int]:
    """Return the sizes to grow through: next to nothing, a tenth, the number of users itself, five and ten times that.

    The largest is left out where the disk has no room for it.
    """
    largest = [users * 10] if users * 10 * BYTES_PER_USER < free_bytes else []
    return [START_USERS, max(users // 10, START_USERS + 1), users, users * 5, *largest]


def growth(setting: Setting) -> Iterator[Measurement]:
    """Take the files, refresh, and ask, at each size in turn, the small ones several times."""
    limit = Settings.model_fields["memory_limit"].default
    setting.facts["memory_limit_mb"] = int(limit.removesuffix("MB")) * 1e6 / 2**20
    free = shutil.disk_usage(setting.work).free
    drops = {users: full_drop(setting.work, users) for users in sizes(setting.users, free)}
    for number in range(1, setting.rounds + 1):
        for users, drop in drops.items():
            for _ in range(max(1, min(MOST_TIMES, setting.users // users))):
                yield from _grown(setting, users, drop, number)


def _grown(setting: Setting, users: int, drop: Drop, number: int) -> Iterator[Measurement]:
    ours = Ours()
    root = folder_of(setting, "growth", f"{users}")
    log = root.with_suffix(".log")
    shutil.rmtree(root, ignore_errors=True)
    for step, command in (("ingest", ours.ingest(root, drop)), ("refresh", ours.refresh(root))):
        usage = run(command, log)
        yield Measurement(OURS, number, {**asdict(usage), "left_mb": size_mb(root)}, growth_variant(step, users))
    yield Measurement(OURS, number, _asked(root, log, setting.seconds), growth_variant("query", users))
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
                usage = run(pinned, log_of(folder))
                yield measured(ranker, folder, usage, number, agreement, setting, variant)


CASES = (
    Case(
        "growth",
        "Growth",
        "Taking the files, making the rankings with their publication, and asking for any artist, at a tenth of the "
        "users, at all, and at five and ten times as many. What a run over 1,000 users takes, the start of its "
        "processes, is subtracted before the cost of a row is told. A round measures the small sizes five times.",
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
