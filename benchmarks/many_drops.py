"""Many drops in a row: does anything grow that should not?

Run: `.venv/bin/python -m benchmarks.many_drops --drops 200`. Each round drops a file into both folders, lets
csv_drop_sensor look, runs refresh_rankings in this process, and asks the published snapshot. At the end the medians of
the first rounds stand beside those of the last. The rows of the history do grow, and with them what a refresh computes.
"""

import argparse
import logging
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TypeVar

import dagster as dg
import duckdb

from music_assets.data_root import DataRoot
from music_assets.defs.build import build_definitions
from music_assets.ingest.landing import Landing
from music_assets.settings import Settings
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import connect
from music_assets.tables import RAW_TABLES, REFRESH_RANKINGS, REJECTED_ROWS, TABLES, USER_DATA, USER_TOP_ARTISTS

Result = TypeVar("Result")
USERS_IN_DROP = 20
DELIVERED_AGAIN = 2
"""Users of a drop who were in one before."""
COMPARED = 20
ASKED = 20
RANKING = """SELECT country, normalized_popularity FROM processed_parquet_country_rank_per_artist
             WHERE artist_name = ? ORDER BY rank LIMIT 10"""
RAW = "SELECT * FROM raw_parquet_user_top_artists WHERE user_id = ? ORDER BY rank"


@dataclass(frozen=True)
class Round:
    """What a drop took. Seconds, milliseconds of a query, MB of resident memory; parquet files of history."""

    tick_s: float
    run_s: float
    rss_mb: float
    files_in_tables: int
    files_on_disk: int
    log_kb: float
    ranking_ms: float
    raw_ms: float


def main() -> None:
    """Drop, refresh and ask again and again; print a line each time, and the medians of both ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drops", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rounds = run(Path(folder), arguments.drops)
    print_line("first", [statistics.median(column) for column in zip(*map(astuple, rounds[:COMPARED]), strict=True)])
    print_line("last", [statistics.median(column) for column in zip(*map(astuple, rounds[-COMPARED:]), strict=True)])


def run(folder: Path, drops: int) -> list[Round]:
    """Return what each of the drops took."""
    root = folder / "data"
    definitions = build_definitions(Settings(data=root, settle_seconds=0, retention_hours=0))
    job = definitions.resolve_job_def(REFRESH_RANKINGS)
    sensor = definitions.resolve_sensor_def("csv_drop_sensor")
    rounds = []
    print_line("drop", [field.name for field in fields(Round)])
    home = folder / "home"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        for number in range(drops):
            drop(root, number)
            context = dg.build_sensor_context(instance=instance, definitions=definitions)
            tick_s, request = timed(partial(sensor, context))
            if not isinstance(request, dg.RunRequest):
                sys.exit(f"no run was requested: {request}")
            run_s, result = timed(partial(job.execute_in_process, instance=instance, tags=dict(request.tags)))
            if not result.success:
                sys.exit("the run failed")
            rounds.append(Round(tick_s, run_s, resident_mb(), *storage(root), *latencies(root, number)))
            print_line(str(number + 1), astuple(rounds[-1]))
    return rounds


def drop(root: Path, number: int) -> None:
    """Write a file for each raw table; the same number gives the same bytes."""
    chance = random.Random(number)
    first = number * USERS_IN_DROP
    again = [chance.randrange(first) for _ in range(DELIVERED_AGAIN)] if number else []
    users = [*again, *range(first, first + USERS_IN_DROP)]
    landing = Landing(DataRoot(root))
    landing.root.prepare()
    lines = [f"{user},{chance.choice(('Germany', 'Chad', 'Mali'))},{chance.randrange(9999)}" for user in users]
    write(landing.root.drop_folder(USER_DATA) / f"{number}.csv", "user_id,country,total_scrobbles", lines)
    lines = [
        f"{user},{rank},artist {chance.randrange(500)},{5000 // rank},"
        for user in dict.fromkeys(users)
        for rank in range(1, 51)
    ]
    write(
        landing.root.drop_folder(USER_TOP_ARTISTS) / f"{number}.csv", "user_id,rank,artist_name,playcount,mbid", lines
    )


def write(path: Path, header: str, lines: list[str]) -> None:
    """Write a CSV file."""
    path.write_text("\n".join((header, *lines, "")), encoding="utf-8")


def storage(root: Path) -> tuple[int, int, float]:
    """Return the parquet files of history in the newest versions, those on the disk, and the KB of all logs."""
    store = DeltaStore(DataRoot(root))
    history = (*RAW_TABLES, REJECTED_ROWS)
    in_tables = sum(len(store.table_version(table).files) for table in history)
    on_disk = sum(1 for table in history for _ in store.folder(table).glob("part-*/*.parquet"))
    logs = sum(file.stat().st_size for table in TABLES for file in store.folder(table).glob("_delta_log/*"))
    return in_tables, on_disk, logs / 1024


def latencies(root: Path, number: int) -> tuple[float, float]:
    """Return the median milliseconds of a ranking's lookup, and of one in the history."""
    with connect(DataRoot(root)) as connection:
        found = []
        for query, values in ((RANKING, [f"artist {n}" for n in range(ASKED)]), (RAW, range(number, number + ASKED))):
            taken = [timed(partial(rows_of, connection, query, value))[0] for value in values]
            found.append(statistics.median(taken) * 1000)
    return found[0], found[1]


def rows_of(connection: duckdb.DuckDBPyConnection, query: str, value: object) -> list[tuple[object, ...]]:
    """Return the rows that the query gives for the value."""
    return connection.execute(query, [value]).fetchall()


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Do the work; return the seconds it took, and what it returned."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def resident_mb() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def print_line(label: str, values: Iterable[object]) -> None:
    """Print a line of the table."""
    cells = [f"{value:.3f}" if isinstance(value, float) else str(value) for value in values]
    print(f"{label:>6}", *(f"{cell:>15}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
