"""The `music-assets` command. What its commands do stands elsewhere; here stand arguments, progress and messages."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import duckdb
import typer
import typer.core
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

from music_assets.data_root import DataRoot
from music_assets.engines.java import JavaMissingError, check_java
from music_assets.ingest.csv_header import BadFileError
from music_assets.ingest.landing import Landing
from music_assets.runtime import up as local
from music_assets.runtime.dagster_home import prepare_dagster_home
from music_assets.runtime.ports import PortError, check_port
from music_assets.settings import Settings, SettingsError, settings
from music_assets.storage.published_snapshot import NothingPublishedError, newest_snapshot
from music_assets.tables import EMBEDDING_TABLES, PUBLISHED_TABLES, Table

if TYPE_CHECKING:
    from music_assets.service.formats import Result


class Commands(typer.core.TyperGroup):
    """The commands. What the disk refuses ends any of them with a message."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was typed."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from None


app = typer.Typer(
    cls=Commands,
    help="Turn Last.fm CSV drops into ranked tables. The data root is MUSIC_ASSETS_DATA, ./data by default.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = Console()
err = Console(stderr=True)


class OutputFormat(StrEnum):
    """How a query's rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def _fail(message: str) -> typer.Exit:
    err.print(f"[bold red]Error:[/] {_escaped(message)}", highlight=False, soft_wrap=True)
    return typer.Exit(1)


def _escaped(text: object) -> str:
    return escape(str(text))


def _settings() -> Settings:
    try:
        return settings()
    except SettingsError as error:
        raise _fail(str(error)) from None


def _root() -> DataRoot:
    return DataRoot(_settings().data)


def _able_settings() -> Settings:
    """Return the settings, once it is known that the engine they choose can run here."""
    chosen = _settings()
    try:
        if chosen.engine == "spark":
            check_java()
    except JavaMissingError as error:
        raise _fail(str(error)) from None
    return chosen


@app.command()
def generate(
    out_dir: Annotated[Path, typer.Argument(help="Folder to write users.csv and user_top_artists.csv into.")],
    users: Annotated[int, typer.Option(min=1, help="Number of users; each has 50 artists.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    dirty: Annotated[float, typer.Option(min=0, max=0.5, help="Share of bad rows of every kind to mix in.")] = 0.0,
) -> None:
    """Write realistic made-up data in the shape of the Kaggle data set."""
    from music_assets.sample_data.generator import generate as write

    try:
        with _progress("users", users) as advance:
            made = write(out_dir, users, seed=seed, dirty=dirty, progress=advance)
    except (OSError, ValueError) as error:
        raise _fail(str(error)) from None
    for path in (made.users_csv, made.user_top_artists_csv):
        out.print(f"{path}  {path.stat().st_size:,} bytes", highlight=False, soft_wrap=True)


@app.command()
def drop(files: Annotated[list[Path], typer.Argument(help="CSV files, gzip-compressed (.csv.gz) or not.")]) -> None:
    """Put CSV files into the drop folder that their header fits; the sensor takes them from there."""
    landing = Landing(_root())
    failed = 0
    for file in files:
        try:
            with _byte_progress(file) as advance:
                placed = landing.place(file, advance)
        except (BadFileError, OSError) as error:
            failed += 1
            err.print(f"[bold red]{_escaped(file)}[/]: not dropped: {_escaped(_plain(error))}", soft_wrap=True)
            continue
        out.print(f"{_escaped(file)} -> {_escaped(placed)}", highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="A SELECT over the tables of music_db.")],
    output: Annotated[OutputFormat, typer.Option("--format", help="How to print the rows.")] = OutputFormat.TABLE,
    limit: Annotated[int | None, typer.Option(min=0, help="Print at most this many rows.")] = None,
    url: Annotated[str | None, typer.Option(help="Send the query to the service at this URL.")] = None,
    key: Annotated[
        str | None,
        typer.Option(
            envvar="MUSIC_ASSETS_API_KEY",
            help="API key of that service. Prefer the variable: other users of this machine can see arguments.",
        ),
    ] = None,
) -> None:
    """Run a SELECT on the published music_db. Without --limit all rows are printed; json is an array of objects."""
    from music_assets.service.client import ClientError, query_service, query_snapshot

    try:
        with query_service(url, sql, key, limit) if url else query_snapshot(_root(), sql) as result:
            _print_result(result if limit is None else result.head(limit), output)
    except (NothingPublishedError, ClientError, duckdb.Error) as error:
        raise _fail(str(error)) from None


@app.command()
def api_key(name: Annotated[str, typer.Argument(help="Name of the client, for the access log.")]) -> None:
    """Create an API key for the query service. Only its digest goes into the settings."""
    from music_assets.service.auth import create_api_key

    try:
        key, entry = create_api_key(name)
    except ValueError as error:
        raise _fail(str(error)) from None
    out.print(f"key for the client:     {key}", highlight=False, soft_wrap=True)
    out.print(f"entry for the settings: {entry}", highlight=False, soft_wrap=True)


@app.command()
def tables() -> None:
    """List the tables of the published music_db with their rows and columns."""
    try:
        current = newest_snapshot(_root())
    except NothingPublishedError as error:
        raise _fail(str(error)) from None
    listing = RichTable("table", "rows", "columns", "description", title=f"music_db {current.data_version}")
    for table in PUBLISHED_TABLES:
        rows = f"{current.tables[table.full_name].rows:,}" if table.full_name in current.tables else "not published"
        listing.add_row(table.full_name, rows, _listed(table), table.description)
    out.print(listing)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as a JSON array.")] = False,
) -> None:
    """Look the data root over, and say what to do; exits with 0 only if there is no problem. Changes nothing."""
    from music_assets.maintenance.doctor import Level, examine

    findings = examine(_settings())
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings], indent=1) + "\n")
    else:
        style = {Level.OK: "green", Level.NOTE: "yellow", Level.PROBLEM: "bold red"}
        listing = RichTable("", "looked at", "found", "what to do")
        for finding in findings:
            level = Text(finding.level, style=style[finding.level])
            listing.add_row(level, finding.subject, Text(finding.found), Text(finding.advice))
        out.print(listing)
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise typer.Exit(1)


@app.command()
def rebuild() -> None:
    """Make rankings and music_db anew from the raw tables, through Dagster; damaged tables are moved aside first."""
    from music_assets.maintenance.rebuild import RebuildError
    from music_assets.maintenance.rebuild import rebuild as run

    try:
        run(_able_settings(), lambda line: out.print(_escaped(line), highlight=False, soft_wrap=True))
    except RebuildError as error:
        raise _fail(str(error)) from None


@app.command()
def home() -> None:
    """Print the DAGSTER_HOME of the data root, made ready: export DAGSTER_HOME="$(music-assets home)"."""
    out.print(str(prepare_dagster_home(_root())), highlight=False, soft_wrap=True)


@app.command()
def up(
    host: Annotated[str, typer.Option(help="Address the web UI listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the web UI.")] = 3000,
) -> None:
    """Start the web UI, the daemon with its sensor, and the query service; Ctrl-C stops all of it."""
    chosen = _able_settings()
    root, address = DataRoot(chosen.data), f"http://{host}:{port}"
    root.prepare()
    try:
        with local.up_lock(root, address):
            check_port(host, port, "--port")
            check_port(chosen.host, chosen.port, "MUSIC_ASSETS_PORT")
            err.print(f"data root      [bold]{_escaped(root)}[/]", highlight=False, soft_wrap=True)
            err.print(f"web UI         [bold]{address}[/]", highlight=False)
            err.print(f"query service  [bold]http://{chosen.host}:{chosen.port}[/]", highlight=False)
            err.print("stop           Ctrl-C")
            code = local.run_all(root, host, port)
    except (PortError, local.AlreadyUpError) as error:
        raise _fail(str(error)) from None
    raise typer.Exit(code)


@app.command()
def serve() -> None:
    """Start the query service alone: SQL over HTTP on the published music_db."""
    from music_assets.service.app import serve as run

    try:
        run(_settings())
    except SettingsError as error:
        raise _fail(str(error)) from None


@app.command()
def demo(
    users: Annotated[int, typer.Option(min=100, help="Number of made-up users.")] = 2_000,
    data: Annotated[Path, typer.Option(help="Data root of the demo; emptied first.")] = Path("demo"),
) -> None:
    """Make sample data, drop it, run the real job through Dagster, and show what came out."""
    from music_assets.sample_data import demo as show

    _able_settings()
    try:
        show.run(data.absolute(), users, out)
    except show.DemoError as error:
        raise _fail(str(error)) from None


def _listed(table: Table) -> str:
    """Return the names of the columns; of an embedding's dimensions only the first and the last."""
    names = [column.name for column in table.columns]
    return f"{names[0]}, {names[1]} … {names[-1]}" if table in EMBEDDING_TABLES else ", ".join(names)


@contextmanager
def _progress(unit: str, total: int) -> Iterator[Any]:
    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(unit, total=total)
        yield lambda done: progress.advance(task, done)


@contextmanager
def _byte_progress(file: Path) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(_escaped(file.name), total=file.stat().st_size)
        yield lambda done: progress.advance(task, done)


def _print_result(result: "Result", output: OutputFormat) -> None:
    from music_assets.service.formats import encode

    if output is OutputFormat.TABLE:
        _print_table(result)
    else:
        for chunk in encode(result, "csv" if output is OutputFormat.CSV else "objects"):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.write(b"\n" if output is OutputFormat.JSON else b"")
    if result.metadata.get("truncated"):
        err.print("The service truncated the result. Page through it with ORDER BY, LIMIT and OFFSET.")


def _print_table(result: "Result") -> None:
    from music_assets.service.formats import texts

    listing = RichTable(*(Column(Text(name)) for name in result.schema.names))
    for batch in result.batches:
        for row in zip(*map(texts, batch.columns), strict=True):
            listing.add_row(*(Text("NULL" if value is None else value) for value in row))
    out.print(listing)
    err.print(f"{listing.row_count:,} rows")


def _plain(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
