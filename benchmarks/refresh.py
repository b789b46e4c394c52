"""From dropped CSV files to the published snapshot, beside a bare DuckDB script that makes the same outputs.

Run: `.venv/bin/python benchmarks/refresh.py --users 500000 --rounds 3`. The two run in turn, each as a process of its
own; what counts are the ratios of one round. The bare script gives none of the guarantees: no exactly-once, no
rejects, no checks, no history, no atomic publication.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from music_assets.lake.music_db import connect
from music_assets.sample_data import generate

BARE = """
import sys
import duckdb

users, top_artists, out = sys.argv[1:]
connection = duckdb.connect(f"{out}/music_db.duckdb")
connection.execute(f"SET temp_directory = '{out}/spill'")
connection.execute("SET preserve_insertion_order = false")
connection.execute(f'''
    COPY (SELECT * FROM read_csv('{users}', header = true,
        columns = {{'user_id': 'INT', 'country': 'VARCHAR', 'total_scrobbles': 'BIGINT'}}))
    TO '{out}/user_data.parquet' (COMPRESSION zstd)''')
connection.execute(f'''
    COPY (SELECT * FROM read_csv('{top_artists}', header = true, columns = {{'user_id': 'INT', 'rank': 'INT',
        'artist_name': 'VARCHAR', 'playcount': 'BIGINT', 'mbid': 'VARCHAR'}}))
    TO '{out}/user_top_artists.parquet' (COMPRESSION zstd)''')
connection.execute(f'''
    COPY (
        SELECT *, row_number() OVER (PARTITION BY country ORDER BY total_playcount DESC, artist_name)::INT AS rank
        FROM (
            SELECT country, artist_name, coalesce(sum(playcount), 0)::DOUBLE AS total_playcount
            FROM '{out}/user_top_artists.parquet'
            JOIN (SELECT user_id, country FROM '{out}/user_data.parquet' WHERE country IS NOT NULL) USING (user_id)
            GROUP BY ALL)
        ORDER BY country, rank)
    TO '{out}/artist_rank_in_country.parquet' (COMPRESSION zstd)''')
connection.execute(f'''
    COPY (
        SELECT *, row_number() OVER (PARTITION BY artist_name ORDER BY normalized_popularity DESC, country)::INT AS rank
        FROM (
            SELECT *, total_playcount / sum(total_playcount) OVER (PARTITION BY country) AS normalized_popularity
            FROM (SELECT country, artist_name, total_playcount FROM '{out}/artist_rank_in_country.parquet'))
        ORDER BY artist_name, rank)
    TO '{out}/country_rank_per_artist.parquet' (COMPRESSION zstd)''')
for name, order in (("artist_rank_in_country", "country, rank"), ("country_rank_per_artist", "artist_name, rank")):
    connection.execute(
        f"CREATE TABLE processed_parquet_{name} AS FROM '{out}/{name}.parquet' ORDER BY {order}")
for name in ("user_data", "user_top_artists"):
    connection.execute(f"CREATE VIEW raw_parquet_{name} AS FROM '{out}/{name}.parquet'")
connection.execute("CHECKPOINT")
"""

DIGEST = """
SELECT count(*), sum(hash(country, artist_name, total_playcount, rank)),
    (SELECT sum(hash(country, artist_name, round(normalized_popularity, 12), rank))
     FROM processed_parquet_country_rank_per_artist)
FROM processed_parquet_artist_rank_in_country
"""


@dataclass(frozen=True)
class Measured:
    """Seconds on the clock, CPU seconds, and the largest resident memory of a process in MB."""

    wall: float
    cpu: float
    peak_mb: float


def measure(command: list[str], environment: Mapping[str, str]) -> Measured:
    """Run a command to its end and return what it took; the end with an error ends the benchmark."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(command)[:200]}")
    return Measured(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def run_ours(drops: tuple[Path, Path], root: Path) -> tuple[Measured, object]:
    """Drop the files, and run the real job in a process of its own."""
    shutil.rmtree(root, ignore_errors=True)
    for file, folder in zip(drops, ("user_data", "user_top_artists"), strict=True):
        target = root / "user_data" / folder / file.name
        target.parent.mkdir(parents=True)
        os.link(file, target)
    home = root / ".dagster_home"
    home.mkdir()
    environment = {
        **os.environ,
        "MUSIC_ASSETS_DATA": str(root),
        "MUSIC_ASSETS_SETTLE_SECONDS": "0",
        "DAGSTER_HOME": str(home),
    }
    job = ["job", "execute", "-m", "music_assets.definitions", "-j", "refresh_rankings"]
    measured = measure([sys.executable, "-m", "dagster", *job], environment)
    with connect(root) as connection:
        return measured, connection.execute(DIGEST).fetchone()


def run_bare(drops: tuple[Path, Path], out: Path) -> tuple[Measured, object]:
    """Run the bare script in a process of its own."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    measured = measure([sys.executable, "-c", BARE, *map(str, drops), str(out)], os.environ)
    with duckdb.connect(str(out / "music_db.duckdb"), read_only=True) as connection:
        return measured, connection.execute(DIGEST).fetchone()


def main() -> None:
    """Generate the data, run both in turn, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        made = generate(Path(folder) / "generated", arguments.users)
        drops = (made.users_csv, made.user_top_artists_csv)
        rounds = []
        for number in range(arguments.rounds):
            ours, our_rows = run_ours(drops, Path(folder) / "ours")
            bare, bare_rows = run_bare(drops, Path(folder) / "bare")
            if our_rows != bare_rows:
                sys.exit(f"the outputs differ: {our_rows} and {bare_rows}")
            rounds.append((ours, bare))
            for name, run in (("music-assets", ours), ("bare DuckDB", bare)):
                print(f"{number + 1}  {name:13} {run.wall:7.1f} s  {run.cpu:7.1f} CPU s  {run.peak_mb:7.0f} MB")
        wall = statistics.median(ours.wall / bare.wall for ours, bare in rounds)
        cpu = statistics.median(ours.cpu / bare.cpu for ours, bare in rounds)
        print(f"median ratio: {wall:.2f} of the time, {cpu:.2f} of the CPU time")


if __name__ == "__main__":
    main()
