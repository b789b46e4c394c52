"""From CSV files to rankings, from raw parquet files to rankings, and a small drop onto many users."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.bases import base, folder_of
from benchmarks.contestants import PUBLISHER, Ours, Ranker, copied, rankers, size_mb
from benchmarks.daemons import OursByDaemon
from benchmarks.data import Drop, full_drop, small_drop
from benchmarks.digest import Agreement
from benchmarks.processes import Usage, run
from benchmarks.results import Measurement
from benchmarks.running import Case, Setting


def csv_to_rankings(setting: Setting) -> Iterator[Measurement]:
    """Take the two files into an empty folder."""
    drop = full_drop(setting.work, setting.users)
    agreement = Agreement()
    for number, ranker in setting.in_turn(setting.present([*everybody(), PUBLISHER])):
        folder = folder_of(setting, "csv", ranker.name)
        shutil.rmtree(folder, ignore_errors=True)
        yield measured(ranker, folder, taken(ranker, folder, drop), number, agreement, setting)


def refresh_from_parquet(setting: Setting) -> Iterator[Measurement]:
    """Make the rankings anew from the raw parquet files that lie there."""
    agreement = Agreement()
    present = setting.present(rankers())
    bases = {ranker.name: base(setting, ranker) for ranker in present}
    for number, ranker in setting.in_turn(present):
        folder = bases[ranker.name]
        ranker.forget(folder)
        yield measured(ranker, folder, run(ranker.refresh(folder), log_of(folder)), number, agreement, setting)


def after_small_drop(setting: Setting) -> Iterator[Measurement]:
    """Take a small drop onto the users that are there already."""
    drop = small_drop(setting.work, setting.users)
    agreement = Agreement()
    present = setting.present(everybody())
    bases = {one.name: base(setting, Ours() if isinstance(one, OursByDaemon) else one) for one in present}
    for number, ranker in setting.in_turn(present):
        folder = copied(bases[ranker.name], folder_of(setting, "drop", ranker.name))
        yield measured(ranker, folder, taken(ranker, folder, drop, later_wins=True), number, agreement, setting)


def everybody() -> list[Ranker]:
    """Return everybody who takes drops."""
    return [OursByDaemon(), *rankers()]


def taken(ranker: Ranker, folder: Path, drop: Drop, later_wins: bool = False) -> Usage:
    """Let somebody take a drop, and return what it took."""
    if isinstance(ranker, OursByDaemon):
        return ranker.run(folder, drop)
    return run(ranker.take(folder, drop, later_wins), log_of(folder))


def measured(
    ranker: Ranker,
    folder: Path,
    usage: Usage,
    number: int,
    agreement: Agreement,
    setting: Setting,
    variant: str = "",
) -> Measurement:
    """Compare what somebody made with what the others made, and return what it took."""
    made = ranker.digest(folder)
    agreement.check(ranker.name, made)
    setting.facts["rows"] = {name: counted[0] for name, counted in made.items()}
    return Measurement(ranker.name, number, {**asdict(usage), "left_mb": size_mb(folder)}, variant)


def log_of(folder: Path) -> Path:
    """Name the file that holds what somebody printed."""
    return folder.with_suffix(".log")


HOW_DAEMON = (
    "Ours is `dagster job execute` in a process of its own; *run by the daemon* is the same drop as `music-assets up` "
    "takes it, from the moment at which the daemon launches the run, for which a worker stands by, until the run ends."
)

CASES = (
    Case(
        "csv_to_rankings",
        "From CSV files to rankings",
        "Two CSV files become raw parquet files and both rankings, sorted for lookup. *All outputs* are those of ours: "
        "the origin of each raw row, and a DuckDB file of the rankings. " + HOW_DAEMON,
        csv_to_rankings,
    ),
    Case(
        "refresh_from_parquet",
        "From raw parquet files to rankings",
        "Both rankings are made anew from the raw parquet files each contestant wrote itself; the CSV files are gone, "
        "and so are the rankings.",
        refresh_from_parquet,
    ),
    Case(
        "small_drop",
        "A small drop onto many users",
        "A drop brings 1 % new users, and 1 % of the known ones again with other artists, plays and country. The "
        "scripts take it and recompute everything, a later delivery of a key counting instead of the earlier. "
        + HOW_DAEMON,
        after_small_drop,
    ),
)
