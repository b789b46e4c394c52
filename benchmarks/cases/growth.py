"""How time and memory grow with the number of users."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict

from benchmarks.contestants import Ours
from benchmarks.context import Context, empty_folder
from benchmarks.data import Drop, full_drop
from benchmarks.measure import MB, run, size_mb
from benchmarks.results import OURS, Measurement, Session
from music_assets.settings import Settings

STEPS = ("ingest", "refresh")
START_USERS = 1_000
"""A run over so few users is little more than the start of its processes."""


def growth(context: Context) -> Iterator[Measurement]:
    """Ingest and refresh at each size in turn, up to five times at the small ones, whose times vary most."""
    limit = Settings.model_fields["memory_limit"].default
    context.facts["memory_limit_mb"] = int(limit.removesuffix("MB")) * 1e6 / MB
    counts = [START_USERS, *(max(START_USERS + 1, context.users * tenths // 10) for tenths in (1, 10, 50, 100))]
    if counts[-1] * 6_000 > shutil.disk_usage(context.work).free:  # bytes of CSV files and all that follows from them
        counts.pop()
    drops = {users: full_drop(context.work, users) for users in counts}
    for number in range(1, context.rounds + 1):
        for users, drop in drops.items():
            for _ in range(max(1, min(5, context.users // users))):
                for step, metrics in _measure(context, drop):
                    yield Measurement(OURS, number, metrics, f"{step}, {users} users")


def _measure(context: Context, drop: Drop) -> Iterator[tuple[str, dict[str, float]]]:
    root = empty_folder(context.work, "growth", OURS)
    yield "ingest", {**asdict(run(Ours().ingest(root, drop), root)), "left_mb": size_mb(root)}
    yield "refresh", {**asdict(run(Ours().refresh(root), root)), "left_mb": size_mb(root)}
    shutil.rmtree(root)


def sizes(session: Session) -> list[int]:
    """Return the numbers of users of a session. The smallest stands for the start of the processes."""
    return sorted({int(variant.split()[1]) for variant in session.variants})


def seconds_per_million_rows(session: Session, step: str) -> dict[int, float]:
    """Return for each size but the smallest the seconds that a million rows take beyond the smallest size."""
    start, *others = ((users, session.median(OURS, "seconds", f"{step}, {users} users")) for users in sizes(session))
    return {users: (seconds - (start[1] or 0)) / (users * 50 / 1e6) for users, seconds in others if seconds}


def growth_ratio(session: Session, name: str) -> float | None:
    """Return the highest cost of a row in a step over the lowest; for `memory`, that of a refresh over its limit."""
    if name == "memory":  # the limit is DuckDB's, in addition to the memory of a run over next to no users
        smallest, *_, largest = (session.median(OURS, "sum_mb", f"refresh, {users} users") for users in sizes(session))
        limit = session.facts.get("memory_limit_mb")
        return largest / (limit + smallest) if limit and smallest and largest else None
    costs = seconds_per_million_rows(session, name).values()
    return max(costs) / min(costs) if costs and min(costs) > 0 else None
