"""The demo: made-up data through the real job, and what came out of it on the screen."""

import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from music_assets.data_root import DataRoot
from music_assets.ingest.landing import Landing
from music_assets.runtime.dagster_home import INSTANCE_FILE
from music_assets.sample_data.generator import generate
from music_assets.settings import PREFIX, child_environment
from music_assets.storage.published_snapshot import connect, newest_snapshot
from music_assets.tables import REFRESH_RANKINGS

COUNTRY = "Germany"
ARTIST = "Drake"
DIRTY = 0.005
MARK = ".music-assets-demo"
"""A file that tells that a folder was made by the demo, and may be emptied by it."""

TOP_ARTISTS = """
SELECT rank, artist_name, total_playcount::BIGINT AS plays
FROM processed_parquet_artist_rank_in_country WHERE country = ? ORDER BY rank LIMIT 10
"""
TOP_COUNTRIES = """
SELECT rank, country, round(100 * normalized_popularity, 3) AS "share of the country's plays (%)"
FROM processed_parquet_country_rank_per_artist WHERE artist_name = ? ORDER BY rank LIMIT 10
"""
REJECTS = """
SELECT table_name, reason, count(*) AS rows, min(line) AS "first line", min_by(raw_line, line) AS example
FROM rejected_rows GROUP BY ALL ORDER BY ALL
"""


class DemoError(Exception):
    """The demo could not run to its end."""


def run(root: Path, users: int, console: Console) -> None:
    """Run the demo below the data root, which is emptied first.

    Raises DemoError where the folder holds anything else, or the job fails.
    """
    _empty(root)
    console.print(f"[bold]1.[/] Making up {users:,} users with their artists, {DIRTY:.1%} of the rows bad")
    made = generate(root / "generated", users, dirty=DIRTY)
    console.print("[bold]2.[/] Dropping both files")
    landing = Landing(DataRoot(root))
    for path in (made.users_csv, made.user_top_artists_csv):
        console.print(f"   {escape(str(landing.place(path).relative_to(root)))}", highlight=False)
    console.print(f"[bold]3.[/] Running the job {REFRESH_RANKINGS} through Dagster")
    with console.status("Dagster starts, takes the files, ranks, checks and publishes"):
        _run_job(root)
    _show(root, console)


def _empty(root: Path) -> None:
    if root.exists() and any(root.iterdir()) and not (root / MARK).exists():
        raise DemoError(f"{root} is not a folder of the demo. Name an empty one with --data.")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / MARK).touch()


def _run_job(root: Path) -> None:
    home = DataRoot(root).dagster_home
    command = ["job", "execute", "-m", "music_assets.definitions", "-j", REFRESH_RANKINGS]
    changes = {f"{PREFIX}DATA": str(root), f"{PREFIX}SETTLE_SECONDS": "0", "DAGSTER_HOME": str(home)}
    home.mkdir()
    shutil.copyfile(INSTANCE_FILE, home / INSTANCE_FILE.name)
    log = root / "job.log"
    with log.open("wb") as sink:
        ended = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "dagster", *command],
            cwd=home,
            env=child_environment(**changes),
            stdout=sink,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if ended.returncode:
        raise DemoError(f"The job failed; its log is {log}, and ends:\n" + log.read_text(errors="replace")[-2_000:])


def _show(root: Path, console: Console) -> None:
    with connect(DataRoot(root)) as connection:
        counts = RichTable("table", "rows", title="music_db", title_justify="left")
        for name, table in newest_snapshot(DataRoot(root)).tables.items():
            counts.add_row(name, f"{table.rows:,}")
        console.print(counts)
        _print(console, f"The ten most played artists in {COUNTRY}", connection.execute(TOP_ARTISTS, [COUNTRY]))
        _print(console, f"The countries that love {ARTIST} most", connection.execute(TOP_COUNTRIES, [ARTIST]))
        _print(console, "What was rejected, and why", connection.execute(REJECTS))
    console.print(
        "[bold]Next[/]\n"
        '  ask:    music-assets query "SELECT country, count(*) FROM raw_parquet_user_data GROUP BY ALL"\n'
        "  watch:  music-assets up       (the web UI, and the sensor that takes what you drop)\n"
        "  drop:   music-assets drop users.csv user_top_artists.csv\n"
        f"  over the demo's tables: export {PREFIX}DATA={escape(str(root))}",
        highlight=False,
        soft_wrap=True,
    )


def _print(console: Console, title: str, result: duckdb.DuckDBPyConnection) -> None:
    columns = [column[0] for column in result.description or []]
    listing = RichTable(*columns, title=title, title_justify="left")
    for row in result.fetchall():
        listing.add_row(*(Text(str(value)[:60]) for value in row))
    console.print(listing)
