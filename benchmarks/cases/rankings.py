"""Rankings from CSV files, from raw parquet files, and after a small drop."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from shutil import copytree, ignore_patterns

from benchmarks import data
from benchmarks.contestants import CONTESTANTS, PUBLISHER, Contestant, Ours, base_folder
from benchmarks.context import Context, empty_folder
from benchmarks.daemons import run_by_daemon
from benchmarks.measure import Usage, run, size_mb
from benchmarks.results import OURS, Measurement

BY_DAEMON = Ours(f"{OURS}, run by the daemon")


def csv_to_rankings(context: Context) -> Iterator[Measurement]:
    """Load the two files into an empty folder."""
    drop = data.full_drop(context.work, context.users)
    for number, one in context.turns([BY_DAEMON, *CONTESTANTS, PUBLISHER]):
        folder = empty_folder(context.work, "csv", one.name)
        yield _compared(context, number, one, folder, _load(one, folder, drop))


def refresh_from_parquet(context: Context) -> Iterator[Measurement]:
    """Compute the rankings from existing raw parquet files."""
    for number, one in context.turns([BY_DAEMON, *CONTESTANTS]):
        folder = base_folder(context.work, context.users, Ours() if one is BY_DAEMON else one)
        yield _compared(context, number, one, folder, _load(one, folder))


def small_drop(context: Context) -> Iterator[Measurement]:
    """Load a small drop into a folder that holds all users."""
    drop = data.small_drop(context.work, context.users)
    for number, one in context.turns([BY_DAEMON, *CONTESTANTS]):
        base = base_folder(context.work, context.users, Ours() if one is BY_DAEMON else one)
        unfinished = ignore_patterns("spill")  # which Spark's JVM still deletes
        folder = copytree(base, empty_folder(context.work, "drop", one.name), ignore=unfinished, dirs_exist_ok=True)
        yield _compared(context, number, one, folder, _load(one, folder, drop))


def _load(one: Contestant, folder: Path, drop: data.Drop | None = None) -> Usage:
    if one is BY_DAEMON:
        return run_by_daemon(folder, drop)
    return run(one.load(folder, drop) if drop else one.refresh(folder), folder)


def _compared(
    context: Context, number: int, one: Contestant, folder: Path, usage: Usage, variant: str = ""
) -> Measurement:
    """Compare the contestant's tables with those of the first one. Raises DifferentResultsError."""
    digest = one.digest(folder)
    context.compare(one.name, digest)
    context.facts["rows"] = {name: counted[0] for name, counted in digest.items()}
    return Measurement(one.name, number, {**asdict(usage), "left_mb": size_mb(folder)}, variant)
