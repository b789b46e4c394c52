"""The demo: generated data, the job refresh_rankings, and its results in the terminal."""

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from music_assets.data_root import DataRoot
from music_assets.ingest.object_landing import open_landing
from music_assets.runtime.dagster_home import INSTANCE_FILE
from music_assets.sample_data.generator import generate
from music_assets.settings import PREFIX, child_environment, http_url, settings
from music_assets.storage.published_snapshot import connect, newest_snapshot
from music_assets.tables import REFRESH_RANKINGS

COUNTRY = "Germany"
ARTIST = "Drake"
DIRTY = 0.005
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
    """The demo failed."""


def run_demo(root: DataRoot, users: int, console: Console) -> None:
    """Run the demo in a data root, whose contents are deleted first.

    Raises DemoError if the folder contains anything but an earlier demo, or if the job fails.
    """
    _clear(root)
    landing = open_landing(root)
    with tempfile.TemporaryDirectory() as folder:
        console.print(f"[bold]1.[/] Generating {users:,} users and their top artists, {DIRTY:.1%} of the rows bad")
        files = generate(Path(folder), users, dirty=DIRTY)
        console.print("[bold]2.[/] Dropping both files")
        for path in files:
            console.print(f"   {escape(str(landing.place(path).relative_to(root.path)))}", highlight=False)
    console.print(f"[bold]3.[/] Running the job {REFRESH_RANKINGS}")
    with console.status("Ingesting, ranking, checking and publishing"):
        _run_job(root)
    _print_results(root, console)


def _clear(root: DataRoot) -> None:
    if root.path.exists() and any(root.path.iterdir()) and not root.demo_mark.exists():
        raise DemoError(f"{root} was not created by the demo. Choose an empty folder with --data.")
    shutil.rmtree(root.path, ignore_errors=True)
    root.path.mkdir(parents=True)
    root.demo_mark.touch()


def _run_job(root: DataRoot) -> None:
    home = root.dagster_home
    home.mkdir()
    shutil.copyfile(INSTANCE_FILE, home / INSTANCE_FILE.name)
    job = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "dagster", "job", "execute", "-m", "music_assets.definitions", "-j", REFRESH_RANKINGS],
        cwd=home,
        env=child_environment(MUSIC_ASSETS_DATA=str(root), MUSIC_ASSETS_SETTLE_SECONDS="0", DAGSTER_HOME=str(home)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if job.returncode:
        raise DemoError(f"The job {REFRESH_RANKINGS} failed. The end of its log:\n{job.stdout[-2_000:]}")


def _print_results(root: DataRoot, console: Console) -> None:
    tables = RichTable("table", "rows", title="music_db", title_justify="left")
    for name, table in newest_snapshot(root).tables.items():
        tables.add_row(name, f"{table.rows:,}")
    console.print(tables)
    with connect(root) as connection:
        _print_rows(console, f"Top 10 artists in {COUNTRY}", connection.execute(TOP_ARTISTS, [COUNTRY]))
        _print_rows(console, f"Top 10 countries of {ARTIST}", connection.execute(TOP_COUNTRIES, [ARTIST]))
        _print_rows(console, "Rejected rows by reason", connection.execute(REJECTS))
    current, command = settings(), escape(shlex.quote(_command()))
    console.print(
        "[bold]Next[/]\n"
        f"  export {PREFIX}DATA={escape(shlex.quote(str(root)))}\n"
        f'  {command} query "SELECT country, count(*) FROM raw_parquet_user_data GROUP BY ALL"\n'
        f"  {command} drop users.csv user_top_artists.csv  # files of your own\n"
        f"  [bold]{command} up[/]  # then open [bold]{escape(http_url(current.host, current.port))}[/]",
        highlight=False,
        soft_wrap=True,
    )


def _command() -> str:
    """Return the path of the command `music-assets` of this environment, relative to the working directory if below."""
    command = Path(sys.executable).with_name("music-assets")
    return str(command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else command)


def _print_rows(console: Console, title: str, result: duckdb.DuckDBPyConnection) -> None:
    columns = [column[0] for column in result.description or []]
    listing = RichTable(*columns, title=title, title_justify="left")
    for row in result.fetchall():
        listing.add_row(*(Text(str(value)[:60]) for value in row))
    console.print(listing)
