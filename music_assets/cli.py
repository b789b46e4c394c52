"""The `music-assets` command: arguments, progress bars and messages. The work itself is done in other modules."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import duckdb
import typer
import typer.core
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

from music_assets.client import LOCAL_SERVICE, MusicDBError
from music_assets.data_root import DamagedTableError, DataRoot, LayoutError, Scratch
from music_assets.engines.java import JavaMissingError, check_java
from music_assets.ingest.csv_header import BadFileError
from music_assets.ingest.file_names import printable
from music_assets.ingest.object_landing import open_landing
from music_assets.object_store import ObjectStoreError
from music_assets.runtime.dagster_home import EXPORT_HOME, DatabaseError, foreign_home, prepare_dagster_home
from music_assets.runtime.ports import PortError, check_port
from music_assets.runtime.up import AlreadyUpError, run_services, up_lock
from music_assets.settings import Settings, SettingsError, http_url, settings, settings_with
from music_assets.storage.published_snapshot import NothingPublishedError, newest_snapshot
from music_assets.tables import EMBEDDING_TABLES, PUBLISHED_TABLES, Table

if TYPE_CHECKING:
    from music_assets.engines.base import Engine
    from music_assets.maintenance.drops import Drop
    from music_assets.service.formats import Result
    from music_assets.storage.delta import DeltaStore

EXPECTED_ERRORS = (
    AlreadyUpError,
    DamagedTableError,
    DatabaseError,
    JavaMissingError,
    LayoutError,
    NothingPublishedError,
    ObjectStoreError,
    PortError,
    SettingsError,
)


class Commands(typer.core.TyperGroup):
    """The commands. Errors that the user can fix are printed without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except EXPECTED_ERRORS as error:
            raise _fail(str(error)) from None
        except OSError as error:
            raise _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from None


app = typer.Typer(
    cls=Commands,
    help="Rankings and embeddings from Last.fm CSV files. MUSIC_ASSETS_DATA selects the data root, by default ./data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
PIPE_WIDTH = 10_000
"""Width where standard output is no terminal: programs that read tables need whole lines and paths."""
out = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True)


ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="MUSIC_ASSETS_API_KEY",
        help="API key of that service. Prefer the variable: other users of this machine can see arguments.",
    ),
]


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


def _root() -> DataRoot:
    return DataRoot.of(settings())


def _store_and_reader() -> "tuple[DeltaStore, Engine]":
    """Return the tables of the data root, and DuckDB to read them."""
    from music_assets.engines.duckdb import DuckDBEngine
    from music_assets.storage.delta import DeltaStore

    current, root = settings(), _root()
    root.check_exists()
    return DeltaStore(root), DuckDBEngine(root.scratch, current.memory_limit, current.threads)


def _drop_line(drop: "Drop") -> str:
    rows = f"{drop.rows:,} rows, {drop.rejects:,} rejected, {drop.state}"
    return f"{drop.content_hash[:12]}  {_escaped(drop.file)}, loaded into {drop.table.name} {drop.ingested_at}: {rows}"


def _settings_of_runs() -> Settings:
    """Return the settings, after a check that the engine can run on this machine."""
    current = settings()
    if current.engine == "spark":
        check_java()
    return current


@app.command()
def generate(
    users: Annotated[int, typer.Option(min=1, help="Number of users; each has 50 artists.")],
    folder: Annotated[Path | None, typer.Argument(help="Output folder, unless --to is given.")] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="Data root, a folder or s3://BUCKET/PREFIX: put the files into its drop folders.", metavar="DATA_ROOT"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed. The same seed gives the same bytes.")] = 0,
    dirty: Annotated[float, typer.Option(min=0, max=0.5, help="Share of bad rows.")] = 0.0,
) -> None:
    """Generate users.csv and user_top_artists.csv in the shape of the Kaggle data set."""
    from music_assets.sample_data.generator import SampleFiles
    from music_assets.sample_data.generator import generate as run

    def write(target: Path) -> SampleFiles:
        try:
            with _progress("users", users, MofNCompleteColumn()) as advance:
                return run(target, users, seed=seed, dirty=dirty, progress=advance)
        except ValueError as error:
            raise _fail(str(error)) from None

    if folder and not to:
        placed = {str(path): path.stat().st_size for path in write(folder)}
    elif to and not folder:
        root = DataRoot.of(settings_with(to))
        root.prepare()
        landing, scratch = open_landing(root), Scratch(root.scratch)
        placed = {root.address(landing.place(path)): path.stat().st_size for path in write(scratch.folder)}
    else:
        raise typer.BadParameter("Give either an output folder or --to with a data root.")
    for place, size in placed.items():
        out.print(f"{_escaped(place)}  {size:,} bytes", highlight=False, soft_wrap=True)


@app.command()
def drop(files: Annotated[list[Path], typer.Argument(help="CSV files, gzip-compressed (.csv.gz) or not.")]) -> None:
    """Copy CSV files into the drop folder of the table that their header matches. Refuses files that would not load."""
    root = _root()
    root.check_layout()
    landing = open_landing(root, encoding=settings().encoding)
    failed = False
    for file in files:
        shown = _escaped(printable(str(file)))
        try:
            with _progress(printable(file.name), file.stat().st_size, DownloadColumn()) as advance:
                placed = landing.place(file, advance)
        except (BadFileError, OSError) as error:
            failed = True
            reason = getattr(error, "strerror", None) or error
            err.print(f"[bold red]{shown}[/]: not dropped: {_escaped(reason)}", soft_wrap=True)
            continue
        out.print(f"{shown} -> {_escaped(landing.root.address(placed))}", highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


@app.command("drops")
def show_drops(
    output: Annotated[OutputFormat, typer.Option("--format", help="How to print the drops.")] = OutputFormat.TABLE,
) -> None:
    """List every loaded file: its rows, rejects, time, content hash, and whether its rows are current."""
    from music_assets.maintenance.drops import SHORT_HASH, list_drops

    drops = list_drops(*_store_and_reader())
    if output is OutputFormat.JSON:
        sys.stdout.write(json.dumps([drop.as_dict() for drop in drops], indent=1) + "\n")
        return
    rows = [{**drop.as_dict(), "content_hash": drop.content_hash[:SHORT_HASH] or "unknown"} for drop in drops]
    names = ("file", "table", "rows", "rejects", "ingested_at", "content_hash", "state")
    if output is OutputFormat.CSV:
        writer = csv.DictWriter(sys.stdout, names)
        writer.writeheader()
        writer.writerows(rows)
        return
    listing = RichTable(*(Column(name, overflow="fold", no_wrap=name == "content_hash") for name in names))
    for row in rows:
        listing.add_row(*(Text(f"{row[name]:,}" if isinstance(row[name], int) else row[name]) for name in names))
    out.print(listing)


@app.command()
def retract(
    hashes: Annotated[list[str], typer.Argument(help="Content hashes as `music-assets drops` prints them.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Remove the rows of drops. What they had replaced counts again, and the same files may be dropped again."""
    from music_assets.maintenance.drops import list_drops
    from music_assets.maintenance.retract import RetractError, find_drops
    from music_assets.maintenance.retract import retract as run

    store, reader = _store_and_reader()
    try:
        found = find_drops(list_drops(store, reader), hashes)
        for drop in found:
            out.print(_drop_line(drop), highlight=False, soft_wrap=True)
        if not found:
            err.print("Nothing to do: these drops are retracted already.")
            return
        if not yes:
            typer.confirm("Retract these drops?", abort=True, err=True)
        retracted = run(store, reader, [drop.content_hash for drop in found])
    except RetractError as error:
        raise _fail(str(error)) from None
    rows, rejects = sum(drop.rows for drop in retracted), sum(drop.rejects for drop in retracted)
    out.print(f"Retracted {rows:,} rows and {rejects:,} rejected rows. The next refresh publishes the result.")


@app.command()
def forget(
    users: Annotated[list[int], typer.Argument(min=0, max=2**31 - 1, help="User ids.", metavar="USER_ID")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Erase users from all tables, older versions, snapshots, vectors and rejected files. This cannot be undone."""
    from music_assets.maintenance.forget import ForgetError
    from music_assets.maintenance.forget import forget as run

    current = _settings_of_runs()
    if not yes:
        typer.confirm(f"Erase {len(users)} users below {current.data} for ever?", abort=True, err=True)
    try:
        run(current, users, lambda line: out.print(_escaped(line), highlight=False, soft_wrap=True))
    except ForgetError as error:
        raise _fail(str(error)) from None


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="A SELECT over the tables of music_db.")],
    output: Annotated[OutputFormat, typer.Option("--format", help="How to print the rows.")] = OutputFormat.TABLE,
    limit: Annotated[int | None, typer.Option(min=0, help="Print at most this many rows.")] = None,
    url: Annotated[str | None, typer.Option(help="Send the query to the service at this URL.")] = None,
    key: ApiKey = None,
) -> None:
    """Run a SELECT on the published music_db. Without --limit all rows are printed; json is an array of objects."""
    from music_assets.service.query_command import query_service, query_snapshot

    try:
        with nullcontext(query_service(url, sql, key, limit)) if url else query_snapshot(_root(), sql) as result:
            _print_result(result if limit is None else result.head(limit), output)
    except (MusicDBError, duckdb.Error) as error:
        raise _fail(str(error)) from None


@app.command()
def api_key(
    name: Annotated[str, typer.Argument(help="Name of the client, for the access log.")],
    train: Annotated[bool, typer.Option("--train", help="Allow the key to start trainings.")] = False,
) -> None:
    """Create an API key for the query service. Only its digest goes into the settings."""
    from music_assets.service.auth import create_api_key

    try:
        key, entry = create_api_key(name, ["read", "train"] if train else ["read"])
    except ValueError as error:
        raise _fail(str(error)) from None
    out.print(f"key for the client:     {key}", highlight=False, soft_wrap=True)
    out.print(f"entry for the settings: {entry}", highlight=False, soft_wrap=True)


@app.command()
def tables() -> None:
    """List the tables of the published music_db with their rows and columns."""
    snapshot = newest_snapshot(_root())
    listing = RichTable("table", "rows", "columns", "description", title=f"music_db {snapshot.data_version}")
    for table in PUBLISHED_TABLES:
        rows = f"{snapshot.tables[table.full_name].rows:,}" if table.full_name in snapshot.tables else "not published"
        listing.add_row(table.full_name, rows, _column_names(table), table.description)
    out.print(listing)


@app.command()
def snapshot() -> None:
    """Print the path of the newest published snapshot, for programs that open the DuckDB file themselves."""
    out.print(str(newest_snapshot(_root()).path), highlight=False, soft_wrap=True)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as a JSON array.")] = False,
) -> None:
    """Check the data root: versions, disk space, waiting files, tables, runs. Exits with 1 if there is a problem."""
    from music_assets.maintenance.doctor import Level, examine

    findings = examine(settings())
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings], indent=1) + "\n")
    else:
        style = {Level.OK: "green", Level.NOTE: "yellow", Level.PROBLEM: "bold red"}
        listing = RichTable("level", *(Column(name, overflow="fold") for name in ("subject", "finding", "advice")))
        for finding in findings:
            level = Text(finding.level, style=style[finding.level])
            listing.add_row(level, finding.subject, Text(finding.found), Text(finding.advice))
        out.print(listing)
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise typer.Exit(1)


@app.command()
def rebuild() -> None:
    """Recompute the rankings and music_db from the raw tables. Damaged tables are moved to `damaged/` first."""
    from music_assets.maintenance.rebuild import RebuildError
    from music_assets.maintenance.rebuild import rebuild as run

    try:
        run(_settings_of_runs(), _print_line)
    except RebuildError as error:
        raise _fail(str(error)) from None


@app.command()
def accept() -> None:
    """Publish the loaded rows as they are, after the check reject_share held them back."""
    from music_assets.maintenance.accept import accept as run
    from music_assets.maintenance.rebuild import RebuildError

    try:
        run(_settings_of_runs(), _print_line)
    except RebuildError as error:
        raise _fail(str(error)) from None


@app.command()
def backup(folder: Annotated[Path, typer.Argument(help="Empty folder for the copy.")]) -> None:
    """Copy the data root into a folder. Runs and queries may go on meanwhile."""
    from music_assets.maintenance.backup import BackupError
    from music_assets.maintenance.backup import backup as run

    current = settings()
    try:
        run(DataRoot.of(current), folder.absolute(), current.settle_seconds, _print_line)
    except (BackupError, OSError) as error:
        raise _fail(str(error)) from None


@app.command()
def restore(folder: Annotated[Path, typer.Argument(help="Folder that `music-assets backup` wrote.")]) -> None:
    """Copy a backup into the data root, which must be empty. Its path may differ from the original one."""
    from music_assets.maintenance.backup import BackupError
    from music_assets.maintenance.backup import restore as run

    try:
        run(folder.absolute(), _root(), _print_line)
    except (BackupError, OSError) as error:
        raise _fail(str(error)) from None


def _print_line(line: str) -> None:
    out.print(_escaped(line), highlight=False, soft_wrap=True)


@app.command()
def home() -> None:
    """Create the DAGSTER_HOME of the data root and print it: export DAGSTER_HOME="$(music-assets home)"."""
    root = _root()
    _warn_of_foreign_home(root)
    out.print(str(prepare_dagster_home(root)), highlight=False, soft_wrap=True)


@app.command()
def up(
    host: Annotated[str, typer.Option(help="Address the web UI listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the web UI.")] = 3000,
) -> None:
    """Start web UI, daemon and query service, and stop all three on Ctrl-C."""
    current = _settings_of_runs()
    root, web_ui = DataRoot.of(current), http_url(host, port)
    root.prepare()
    _warn_of_foreign_home(root)
    with up_lock(root, web_ui):
        check_port(host, port, "--port")
        check_port(current.host, current.port, "MUSIC_ASSETS_PORT")
        err.print(f"data root      [bold]{_escaped(root)}[/]", highlight=False, soft_wrap=True)
        err.print(f"web UI         [bold]{_escaped(web_ui)}[/]", highlight=False)
        err.print(f"query service  [bold]{_escaped(http_url(current.host, current.port))}[/]", highlight=False)
        err.print("stop           Ctrl-C")
        code = run_services(root, host, port)
    raise typer.Exit(code)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on, instead of MUSIC_ASSETS_HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on, instead of MUSIC_ASSETS_PORT.")
    ] = None,
) -> None:
    """Start only the query service: SQL over HTTP on the published music_db."""
    from music_assets.service.app import serve as run

    options = {name: value for name, value in {"host": host, "port": port}.items() if value is not None}
    run(settings().model_copy(update=options))


@app.command()
def mcp(
    url: Annotated[str, typer.Option(help="URL of the query service.")] = LOCAL_SERVICE, key: ApiKey = None
) -> None:
    """Serve an assistant on standard input and output by the Model Context Protocol: tools to query a service."""
    from music_assets.mcp_server import run

    run(url, key)


@app.command()
def demo(
    users: Annotated[int, typer.Option(min=100, help="Number of users to generate.")] = 2_000,
    data: Annotated[Path, typer.Option(help="Data root of the demo. Its contents are deleted.")] = Path("demo"),
) -> None:
    """Generate sample data, drop it, run the job refresh_rankings, and print the results."""
    from music_assets.sample_data.demo import DemoError, run_demo

    _settings_of_runs()
    try:
        run_demo(DataRoot(data.absolute()), users, out)
    except DemoError as error:
        raise _fail(str(error)) from None


def _warn_of_foreign_home(root: DataRoot) -> None:
    if foreign := foreign_home(root):
        message = f"DAGSTER_HOME is that of another data root, {foreign}. The data root is {root}. {EXPORT_HOME}"
        err.print(f"[yellow]Warning:[/] {_escaped(message)}", highlight=False, soft_wrap=True)


def _column_names(table: Table) -> str:
    """Return the columns of a table; of an embedding's dimensions only the first and the last."""
    names = [column.name for column in table.columns]
    return f"{names[0]}, {names[1]} … {names[-1]}" if table in EMBEDDING_TABLES else ", ".join(names)


@contextmanager
def _progress(label: str, total: int, amount: ProgressColumn) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(_escaped(label), total=total)
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
