"""Check a data root: versions, settings, disk space, waiting files, tables, snapshots and runs. Nothing is changed."""

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from pathlib import Path

import dagster as dg
import duckdb
from rich.filesize import decimal

from music_assets.data_root import DataRoot
from music_assets.defs.sensors import DROP_SENSOR, UNFINISHED
from music_assets.engines.java import JavaMissingError, check_java
from music_assets.ingest.file_names import printable
from music_assets.ingest.landing import DroppedFile
from music_assets.ingest.object_landing import open_landing
from music_assets.ingest.quarantine import REASON_SUFFIX
from music_assets.runtime.dagster_home import (
    EXPORT_HOME,
    DatabaseError,
    check_database,
    find_dagster_home,
    foreign_home,
)
from music_assets.settings import SECRETS, Settings
from music_assets.storage.delta import DeltaStore
from music_assets.storage.integrity import DamagedFile, damaged_files, stray_files
from music_assets.storage.published_snapshot import (
    DamagedPointerError,
    NothingPublishedError,
    PublishedSnapshot,
    fetch_database,
    newest_snapshot,
    open_snapshot,
    pointer_files,
    read_pointer,
)
from music_assets.storage.sql import identifier
from music_assets.tables import (
    EMBEDDING_TABLES,
    RANKING_TABLES,
    RAW_TABLES,
    REFRESH_RANKINGS,
    REJECTED_ROWS,
    TABLES,
    TRAIN_EMBEDDINGS,
    Table,
)

PACKAGES = ("dagster", "duckdb", "deltalake", "ibis-framework", "pyarrow")
MINIMUM_FREE_BYTES = 1 << 30
LEFTOVER_SECONDS = 24 * 3600
"""Age of a temporary file from which on no run can be using it."""
DAEMON_SECONDS = 120
"""Seconds without an evaluation of the sensor after which the daemon counts as stopped."""
RUN_REBUILD = "Run `music-assets rebuild`."
RUN_UP = "Run `music-assets up`."


class Level(StrEnum):
    """Severity of a finding. Only a problem requires action."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What was checked, what was found, and what to do about it."""

    level: Level
    subject: str
    found: str
    advice: str = ""


Findings = Iterator[Finding]
_ok, _note, _problem = (partial(Finding, level) for level in Level)


def examine(settings: Settings) -> list[Finding]:
    """Return the findings about the data root of these settings."""
    findings = []
    for subject, check in CHECKS.items():
        try:
            findings += list(check(settings, DataRoot.of(settings)))
        except Exception as error:  # a failed check must not prevent the others
            findings.append(_problem(subject, f"cannot be checked: {_first_line(error)}", "Fix this first."))
    return findings


def _check_versions(settings: Settings, root: DataRoot) -> Findings:
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    yield _ok("versions", ", ".join(versions))
    if settings.engine == "spark":
        try:
            check_java()
        except JavaMissingError as error:
            problem, _, advice = str(error).partition(". ")
            yield _problem("Java", problem, advice)


def _check_settings(settings: Settings, root: DataRoot) -> Findings:
    values = {name: getattr(settings, name) for name in sorted(settings.model_fields_set)}
    shown = [f"{name}={'(not shown)' if name in SECRETS else value}" for name, value in values.items()]
    yield _ok("settings", ", ".join(shown) or "defaults")


def _check_store(settings: Settings, root: DataRoot) -> Findings:
    if not root.store:
        return
    if root.probe():
        yield _ok("object store", f"{root} honours conditional writes and deletions")
        return
    found = f"{root} honours conditional writes, but deletes an object even if another has replaced it"
    yield _note("object store", found, "Never drop an object under the key of one that waits.")


def _check_data_root(settings: Settings, root: DataRoot) -> Findings:
    if not root.path.is_dir():
        yield _problem("data root", f"{root} is not a folder", f"Set MUSIC_ASSETS_DATA, or: {RUN_UP}")
        return
    for folder in (root.path, *sorted(filter(Path.is_dir, root.path.iterdir()))):
        if not os.access(folder, os.W_OK | os.X_OK):
            yield _problem("data root", f"{folder} is not writable", f"Grant user {os.geteuid()} write access.")
    free, written = shutil.disk_usage(root.path).free, _refresh_bytes(root)
    found = f"{root.path}: {decimal(free)} free, the next refresh writes up to {decimal(written)}"
    if free < max(MINIMUM_FREE_BYTES, 2 * written):  # a query that exceeds the memory limit spills to disk
        yield _problem("data root", found, "Free disk space.")
    else:
        yield _ok("data root", found)


def _refresh_bytes(root: DataRoot) -> int:
    """Return what the next refresh may write: parquet files of the new rows, both rankings and a snapshot."""
    waiting = sum(file.size for table in RAW_TABLES for file in _waiting(root, table))
    try:
        published = newest_snapshot(root).size_bytes
    except NothingPublishedError:
        published = 0
    store = DeltaStore(root)
    rankings = sum(store.table_version(table).size_bytes for table in RANKING_TABLES)
    return waiting + rankings + published


def _waiting(root: DataRoot, table: Table) -> list[DroppedFile]:
    landing = open_landing(root)
    return landing.files(table) if table in landing.tables else []


def _check_drops(settings: Settings, root: DataRoot) -> Findings:
    for table in RAW_TABLES:
        subject = f"drops of {table.name}"
        if waiting := _waiting(root, table):
            size = decimal(sum(file.size for file in waiting))
            found = f"{_count(waiting, 'file')}, {size}, the oldest changed {_ago(waiting[0].modified_ns / 1e9)}"
            yield _note(subject, found, f"The daemon ingests complete files. {RUN_UP}")
        else:
            yield _ok(subject, f"no waiting files in {root.address(root.drop_folder(table))}")
        landing = open_landing(root)
        for entry in landing.ignored(table) if table in landing.tables else []:
            folder = root.address(root.drop_folder(table))
            yield _note(subject, f"ignored: {entry}", f"Until then it is not loaded from {folder}.")


def _check_rejected_files(settings: Settings, root: DataRoot) -> Findings:
    explanations = [path for path in root.files_below(root.rejected) if path.name.endswith(REASON_SUFFIX)]
    for path in explanations:
        reason = "".join(root.read(path).decode(errors="replace").splitlines()[1:2])
        name = printable(path.name.removesuffix(REASON_SUFFIX))
        folder = root.address(root.rejected)
        yield _note("rejected files", f"{name}: {reason}", f"Fix it, drop it again, and delete it from {folder}.")
    if not explanations:
        yield _ok("rejected files", "none")


def _check_tables(settings: Settings, root: DataRoot) -> Findings:
    store = DeltaStore(root)
    for table in TABLES:
        if damaged := damaged_files(store, table):
            for damage in damaged:
                yield _problem(table.full_name, str(damage), recovery(store, table, damage))
        else:
            yield from _describe_table(store, table, settings.retention_hours)


def recovery(store: DeltaStore, table: Table, damage: DamagedFile) -> str:
    """Return how to recover from a damaged file of a table, and which rows it contained."""
    if table in RANKING_TABLES:
        return RUN_REBUILD
    if table in EMBEDDING_TABLES:
        return f"{RUN_REBUILD} Then run the job {TRAIN_EMBEDDINGS}."
    restore = f"Restore {damage.address} from a backup."
    if table is REJECTED_ROWS:
        return f"{restore} Without a backup, `music-assets rebuild` starts a new table."
    lost = f"It contained rows of {', '.join(map(printable, damage.csv_files))}. " if damage.csv_files else ""
    folder = store.root.address(store.folder(table))
    return (
        f"{lost}{restore} Without a backup: stop music-assets, move {folder} away, and "
        "drop all CSV files of the table again. Nothing is published until the table has as many rows as before."
    )


def _describe_table(store: DeltaStore, table: Table, retention_hours: float) -> Findings:
    current = store.table_version(table)
    if current.version < 0:
        yield _note(table.full_name, "no rows yet")
        return
    files = _count(current.paths, "parquet file")
    yield _ok(
        table.full_name,
        f"version {current.version}, {current.rows:,} rows, {files}, {decimal(current.size_bytes)}",
    )
    stray = stray_files(store, table)
    if stray.unreferenced:
        sizes = store.root.files_below(store.folder(table))
        size = decimal(sum(sizes.get(path, 0) for path in stray.unreferenced))
        unused = f"{_count(stray.unreferenced, 'unused file')}, {size}"
        end = f"deleted after {retention_hours:g} hours" if not table.sort_by else "old versions for running readers"
        yield _ok(table.full_name, f"{unused}, {end}")
    for path in stray.foreign:
        found = f"{printable(store.root.address(path))} is not a file of the table"
        yield _note(table.full_name, found, "Move it elsewhere, since it may be deleted.")


def _check_music_db(settings: Settings, root: DataRoot) -> Findings:
    damages = []
    current = None
    for pointer in pointer_files(root):
        try:
            snapshot = read_pointer(root, pointer)
        except DamagedPointerError as error:
            damages.append(str(error))
            continue
        fetch_database(root, snapshot)
        if snapshot.is_intact:
            current = snapshot
            break
        damages.append(f"{root.address(snapshot.path)} is missing or truncated")
    yield from (_problem("music_db", damage, RUN_REBUILD) for damage in dict.fromkeys(damages))
    if current:
        yield from _check_snapshot(root, current)
    elif not damages:
        yield _note("music_db", "nothing is published", f"Drop CSV files of both raw tables, or: {RUN_REBUILD}")


def _check_snapshot(root: DataRoot, snapshot: PublishedSnapshot) -> Findings:
    try:
        connection = open_snapshot(root, snapshot)
    except (duckdb.Error, FileNotFoundError) as error:
        yield _problem("music_db", f"{snapshot.path} cannot be opened: {_first_line(error)}", RUN_REBUILD)
        return
    with connection:
        for name, published in snapshot.tables.items():
            try:
                (rows,) = connection.execute(f"SELECT count(*) FROM {identifier(name)}").fetchall()[0]
            except duckdb.Error as error:
                advice = f"If the table itself is not damaged: {RUN_REBUILD}"
                yield _problem("music_db", f"{name} cannot be read: {_first_line(error)}", advice)
                continue
            if rows != published.rows:
                found = f"{name} has {rows:,} rows, but {published.rows:,} were published"
                yield _problem("music_db", found, RUN_REBUILD)
    yield _ok("music_db", f"version {snapshot.data_version}, {decimal(snapshot.size_bytes)}")
    store = DeltaStore(root)
    for table in RAW_TABLES:
        if table.full_name in snapshot.tables and not damaged_files(store, table):
            unpublished = store.table_version(table).rows - snapshot.tables[table.full_name].rows
            if unpublished > 0:
                found = f"{unpublished:,} rows of {table.full_name} are not published yet"
                yield _note("music_db", found, f"See {DROP_SENSOR} below.")
            if unpublished < 0:
                found = f"{-unpublished:,} rows of {table.full_name} that were retracted or erased are still published"
                yield _note("music_db", found, f"See {DROP_SENSOR} below.")


def _check_dagster(settings: Settings, root: DataRoot) -> Findings:
    home = find_dagster_home(root)
    if foreign := foreign_home(root):
        yield _note("Dagster", f"DAGSTER_HOME is that of another data root, {foreign}, and ignored", EXPORT_HOME)
    if not (home / "dagster.yaml").is_file():
        yield _note("Dagster", f"{home} contains no run history yet", RUN_UP)
        return
    try:
        check_database()
    except DatabaseError as error:
        problem, _, advice = str(error).rpartition(". ")
        yield _problem("Dagster", problem, advice)
        return
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield _check_sensor(instance)
        for job in (REFRESH_RANKINGS, TRAIN_EMBEDDINGS):
            yield _check_last_run(instance, job)


def _check_sensor(instance: dg.DagsterInstance) -> Finding:
    state = next((each for each in instance.all_instigator_state() if each.name == DROP_SENSOR), None)
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1) if state else []
    if state and state.status.value == "STOPPED":
        return _problem(DROP_SENSOR, "is switched off", "Switch it on in the web UI, under Automation.")
    if not ticks:
        return _note(DROP_SENSOR, "has not been evaluated yet", RUN_UP)
    if time.time() - ticks[0].timestamp > DAEMON_SECONDS:  # also if that failed: a daemon that is stopped can cause it
        return _note(DROP_SENSOR, f"last evaluated {_ago(ticks[0].timestamp)}", RUN_UP)
    if ticks[0].status.value == "FAILURE" and ticks[0].error:
        return _problem(DROP_SENSOR, f"failed: {_first_line(ticks[0].error.message)}", "Fix this; the sensor retries.")
    return _ok(DROP_SENSOR, ticks[0].skip_reason or "started a run")


def _check_last_run(instance: dg.DagsterInstance, job: str) -> Finding:
    records = instance.get_run_records(dg.RunsFilter(job_name=job), limit=1)
    if not records:
        return _ok(job, "has not run yet")
    run = records[0].dagster_run
    if run.status in UNFINISHED:
        return _note(job, f"run {run.run_id} is {run.status.value.lower()}")
    if run.status is dg.DagsterRunStatus.SUCCESS:
        return _ok(job, f"run {run.run_id} succeeded {_ago(records[0].end_time or 0)}")
    return _problem(job, f"run {run.run_id} ended with {run.status.value.lower()}", "See the run in the web UI.")


def _check_leftovers(settings: Settings, root: DataRoot) -> Findings:
    oldest = time.time() - LEFTOVER_SECONDS
    leftovers = [path for path in root.temporary_files() if path.lstat().st_mtime < oldest]
    for path in leftovers:
        size = decimal(_total_size([path, *path.rglob("*")]))
        yield _note("leftovers", f"{printable(str(path))}, {size}", "Delete it.")
    if not leftovers:
        yield _ok("leftovers", "none")


CHECKS: dict[str, Callable[[Settings, DataRoot], Findings]] = {
    "versions": _check_versions,
    "settings": _check_settings,
    "object store": _check_store,
    "data root": _check_data_root,
    "drops": _check_drops,
    "rejected files": _check_rejected_files,
    "tables": _check_tables,
    "music_db": _check_music_db,
    "Dagster": _check_dagster,
    "leftovers": _check_leftovers,
}


def _total_size(paths: Iterable[Path]) -> int:
    return sum(path.lstat().st_size for path in paths)


def _count(items: Sized, name: str) -> str:
    return f"{len(items):,} {name}{'' if len(items) == 1 else 's'}"


def _ago(timestamp: float) -> str:
    return f"{timedelta(seconds=max(round(time.time() - timestamp), 0))} ago"


def _first_line(error: object) -> str:
    return (str(error).splitlines() or [""])[0]
