"""Looks a data root over: what is there, what is wrong, and what to do about it. Changes nothing.

Here stand findings; the command line prints them.
"""

import os
import platform
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import dagster as dg
import duckdb
from packaging.requirements import Requirement

from music_assets.data_root import DataRoot, is_locked
from music_assets.defs.checks import CHECKS, CheckContext, Thresholds
from music_assets.defs.sensors import DROP_SENSOR, UNFINISHED
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.engines.java import JavaMissingError, check_java
from music_assets.ingest.file_names import printable
from music_assets.ingest.landing import DroppedFile, Landing
from music_assets.ingest.quarantine import REASON_SUFFIX
from music_assets.runtime.dagster_home import find_dagster_home
from music_assets.settings import SECRETS, Settings
from music_assets.storage.delta import DeltaStore
from music_assets.storage.integrity import DamagedFile, damaged_files, stray_files
from music_assets.storage.published_snapshot import (
    DamagedPointerError,
    NothingPublishedError,
    PublishedSnapshot,
    newest_snapshot,
    pointer_files,
    read_pointer,
)
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

SHOWN_VERSIONS = ("dagster", "duckdb", "deltalake", "ibis-framework", "pyarrow")
CHECKED_ROWS = 5_000_000
"""Tables up to this size are checked here; larger ones take long, and every refresh checks them anyway."""
OLD_SECONDS = 24 * 3600
"""Age of a leftover over which no run is still at work on it."""
LEAST_FREE = 1 << 30
SILENT_SECONDS = 120
"""The daemon looks every few seconds; after this long it is taken to be down."""
REBUILD = "Run `music-assets rebuild`."


class Level(StrEnum):
    """How bad a finding is. Only a problem calls for somebody."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, and what to do about it."""

    level: Level
    subject: str
    found: str
    advice: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Return the findings on the data root of these settings."""
    looks: dict[str, Callable[[Settings], Iterator[Finding]]] = {
        "versions": _versions,
        "settings": _settings,
        "data root": _root,
        "drops": _drops,
        "rejected files": _rejected,
        "tables": _tables,
        "music_db": _music_db,
        "Dagster": _dagster,
        "locks": _locks,
        "leftovers": _leftovers,
    }
    findings = []
    for subject, look in looks.items():
        try:
            findings += list(look(settings))
        except Exception as error:  # What keeps one look from its end is a finding, and the others go on.
            findings.append(_problem(subject, f"cannot be looked at: {_line(error)}", "See to that first."))
    return findings


def _ok(subject: str, found: str) -> Finding:
    return Finding(Level.OK, subject, found)


def _note(subject: str, found: str, advice: str = "") -> Finding:
    return Finding(Level.NOTE, subject, found, advice)


def _problem(subject: str, found: str, advice: str) -> Finding:
    return Finding(Level.PROBLEM, subject, found, advice)


def _versions(settings: Settings) -> Iterator[Finding]:
    found = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in SHOWN_VERSIONS)]
    yield _ok("versions", ", ".join(found))
    for requirement in map(Requirement, requires("music-assets") or ()):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            installed = "none"
        if not requirement.specifier.contains(installed, prereleases=True):
            wanted = f"{requirement.name} {requirement.specifier} is needed, {installed} is installed"
            yield _problem("versions", wanted, "Run `make install`.")
    if settings.engine == "spark":
        yield from _java()


def _java() -> Iterator[Finding]:
    try:
        check_java()
    except JavaMissingError as error:
        problem, _, advice = str(error).partition(". ")
        yield _problem("Java", problem, advice)
    else:
        yield _ok("Java", "new enough for Spark")


def _settings(settings: Settings) -> Iterator[Finding]:
    chosen = {
        name: "(not shown)" if name in SECRETS else str(getattr(settings, name))
        for name in sorted(settings.model_fields_set)
    }
    yield _ok("settings", ", ".join(f"{name}={value}" for name, value in chosen.items()) or "all at their defaults")


def _root(settings: Settings) -> Iterator[Finding]:
    root = settings.data
    if not root.is_dir():
        yield _problem("data root", f"there is no folder {root}", "Set MUSIC_ASSETS_DATA, or run `music-assets up`.")
        return
    closed = [
        path for path in (root, *sorted(root.iterdir())) if path.is_dir() and not os.access(path, os.W_OK | os.X_OK)
    ]
    for path in closed:
        yield _problem("data root", f"{path} cannot be written to", f"Let user {os.geteuid()} write to it.")
    if not closed and (trouble := _without_hard_links(root)):
        yield _problem(
            "data root",
            f"its file system cannot make hard links ({trouble}), by which tables are committed",
            "Put the data root on another file system.",
        )
    free = shutil.disk_usage(root).free
    needed = _room_needed(settings)
    told = f"{root}: {_size(free)} free, {_size(needed)} needed for the next refresh at most"
    yield _ok("data root", told) if free >= needed else _problem("data root", told, "Make room, or add a disk.")


def _without_hard_links(root: Path) -> str:
    """Return why no hard link can be made in the folder; nothing where one can."""
    probe = root / f".doctor-{uuid.uuid4().hex}"
    link = probe.with_suffix(".link")
    try:
        probe.touch()
        os.link(probe, link)
    except OSError as error:
        return error.strerror or str(error)
    finally:
        link.unlink(missing_ok=True)
        probe.unlink(missing_ok=True)
    return ""


def _room_needed(settings: Settings) -> int:
    """Return bytes: what waits is written once more, and what is computed anew stands twice for a while."""
    store, landing = DeltaStore(DataRoot(settings.data)), Landing(DataRoot(settings.data))
    waiting = sum(file.size for table in RAW_TABLES for file in _listed(landing, table))
    computed = sum(
        store.table_version(table).size_bytes for table in TABLES if table.sort_by and not damaged_files(store, table)
    )
    try:
        shown = newest_snapshot(DataRoot(settings.data)).size_bytes
    except NothingPublishedError:
        shown = 0
    return max(LEAST_FREE, 2 * waiting + computed + shown)


def _listed(landing: Landing, table: Table) -> list[DroppedFile]:
    return landing.files(table) if landing.root.drop_folder(table).is_dir() else []


def _drops(settings: Settings) -> Iterator[Finding]:
    landing = Landing(DataRoot(settings.data))
    for table in RAW_TABLES:
        subject = f"drops of {table.name}"
        waiting = _listed(landing, table)
        if not waiting:
            yield _ok(subject, "no CSV file waits")
        else:
            age = time.time() - waiting[0].modified_ns / 1e9
            size = sum(file.size for file in waiting)
            told = f"{_counted(waiting, 'file')} of {_size(size)}, the oldest {_age(age)} old"
            yield _note(subject, told, f"The daemon takes them, or the job {REFRESH_RANKINGS}.")
        if landing.root.drop_folder(table).is_dir() and (ignored := landing.ignored(table)):
            yield _note(subject, f"not looked at: {'; '.join(ignored)}", "Only regular files are taken: copy it there.")


def _rejected(settings: Settings) -> Iterator[Finding]:
    folder = DataRoot(settings.data).rejected
    moved = sorted(folder.glob(f"*{REASON_SUFFIX}")) if folder.is_dir() else []
    for path in moved:
        reason = (path.read_text(encoding="utf-8", errors="replace").splitlines() or [""])[1:2]
        name = printable(path.name.removesuffix(REASON_SUFFIX))
        yield _note("rejected files", f"{name}: {''.join(reason)}", f"Mend it, drop it again, remove it from {folder}.")
    if not moved:
        yield _ok("rejected files", "none")


def _tables(settings: Settings) -> Iterator[Finding]:
    store = DeltaStore(DataRoot(settings.data))
    for table in TABLES:
        found = damaged_files(store, table)
        yield from (_damaged(store, table, damage) for damage in found)
        if not found:
            yield from _whole(store, table, settings)


def _damaged(store: DeltaStore, table: Table, damage: DamagedFile) -> Finding:
    if table in RANKING_TABLES:
        return _problem(table.full_name, str(damage), REBUILD)
    if table in EMBEDDING_TABLES:
        return _problem(table.full_name, str(damage), f"{REBUILD} Then train anew: the job {TRAIN_EMBEDDINGS}.")
    return _problem(table.full_name, str(damage), how_to_mend(store, table, damage))


def how_to_mend(store: DeltaStore, table: Table, damage: DamagedFile) -> str:
    """Return what is lost with a damaged file of a table that is not computed, and how to go on."""
    restore = f"Restore {damage.path} from a backup."
    if table is REJECTED_ROWS:
        return f"{restore} Without one, `music-assets rebuild` starts the list of rejected rows anew."
    lost = f"It held rows of {', '.join(map(printable, damage.csv_files))}. " if damage.csv_files else ""
    return (
        f"{lost}{restore} Without one: stop music-assets, move {store.folder(table)} aside, drop all CSV files of the "
        "table again; publishing waits until as many rows are back."
    )


def _whole(store: DeltaStore, table: Table, settings: Settings) -> Iterator[Finding]:
    snapshot = store.table_version(table)
    if snapshot.version < 0:
        yield _note(table.full_name, "no rows yet")
        return
    files = _counted(snapshot.files, "parquet file")
    yield _ok(
        table.full_name, f"version {snapshot.version}, {snapshot.rows:,} rows, {files} of {_size(snapshot.size_bytes)}"
    )
    lying = stray_files(store, table)
    if lying.unreferenced:
        unused = f"{_counted(lying.unreferenced, 'file')} of {_size(_sum(lying.unreferenced))} out of use"
        yield _ok(table.full_name, f"{unused}, vacuumed after {settings.retention_hours:g} hours")
    for path in lying.foreign:
        yield _note(
            table.full_name, f"{printable(str(path))} is no file of the table", "Move it elsewhere: it may be vacuumed."
        )
    if snapshot.rows <= CHECKED_ROWS:
        yield from _checked(store, table, settings)
    else:
        yield _ok(table.full_name, "not checked row by row, for its size: every refresh does so")


def _checked(store: DeltaStore, table: Table, settings: Settings) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory() as scratch:
        engine = DuckDBEngine(Path(scratch), settings.memory_limit, settings.threads)
        thresholds = Thresholds(settings.reject_warn_share, settings.reject_fail_share)
        subject = CheckContext(table, store, engine, thresholds)
        for check in CHECKS:
            result = check.evaluate(subject) if table in check.tables else None
            if result and not result.passed and result.severity is dg.AssetCheckSeverity.ERROR:
                advice = REBUILD if table in RANKING_TABLES else "See the check in the web UI."
                yield _problem(table.full_name, f"{check.name}: {result.description}", advice)


def _music_db(settings: Settings) -> Iterator[Finding]:
    served = False
    told = set()
    for pointer in pointer_files(DataRoot(settings.data)):
        try:
            snapshot = read_pointer(pointer)
            damage = "" if snapshot.is_intact else f"{snapshot.path} is missing or cut off"
        except DamagedPointerError as error:
            damage = str(error)
        if damage in told:
            continue
        told |= {damage} if damage else set()
        if damage and served:
            yield _note("music_db", damage, "It is not in use, and goes when the next but one is published.")
        elif damage:
            yield _problem("music_db", damage, REBUILD)
        elif not served:
            served = True
            yield from _served(settings, snapshot)
    if not served:
        yield _note("music_db", "nothing is published", "Drop the two CSV files, or run `music-assets rebuild`.")


def _served(settings: Settings, snapshot: PublishedSnapshot) -> Iterator[Finding]:
    try:
        connection = duckdb.connect(str(snapshot.path), read_only=True)
    except duckdb.Error as error:
        yield _problem("music_db", f"{snapshot.path} cannot be opened: {_line(error)}", REBUILD)
        return
    with connection:
        for name, shown in snapshot.tables.items():
            try:
                found = connection.execute(f'SELECT count(*) FROM "{name}"').fetchall()[0][0]
            except duckdb.Error as error:
                advice = f"See the table's own line. Where that is well: {REBUILD}"
                yield _problem("music_db", f"{name} cannot be read: {_line(error)}", advice)
                continue
            if found != shown.rows:
                yield _problem("music_db", f"{name} has {found:,} rows, where {shown.rows:,} were published", REBUILD)
    yield _ok("music_db", f"version {snapshot.data_version}, {_size(snapshot.size_bytes)}")
    store = DeltaStore(DataRoot(settings.data))
    for table in RAW_TABLES:
        earlier = snapshot.tables.get(table.full_name)
        if earlier and not damaged_files(store, table):
            newer = store.table_version(table).rows - earlier.rows
            if newer > 0:
                advice = "The sensor starts a refresh by itself, or says why it does not."
                yield _note("music_db", f"{newer:,} rows of {table.full_name} are not published yet", advice)


def _dagster(settings: Settings) -> Iterator[Finding]:
    home = find_dagster_home(DataRoot(settings.data))
    if not (home / "dagster.yaml").is_file():
        yield _note("Dagster", f"nothing has run yet with {home}", "Run `music-assets up`.")
        return
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield from _sensor(instance)
        for job in (REFRESH_RANKINGS, TRAIN_EMBEDDINGS):
            yield from _last_run(instance, job)


def _sensor(instance: dg.DagsterInstance) -> Iterator[Finding]:
    state = next((each for each in instance.all_instigator_state() if each.name == DROP_SENSOR), None)
    if state is None:
        yield _note(DROP_SENSOR, "has not looked yet: the daemon has not run", "Run `music-assets up`.")
        return
    if state.status.value == "STOPPED":
        yield _problem(DROP_SENSOR, "is switched off", "Switch it on in the web UI, under Automation.")
        return
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
    if not ticks:
        yield _note(DROP_SENSOR, "has not looked yet")
    elif ticks[0].status.value == "FAILURE" and ticks[0].error:
        yield _problem(DROP_SENSOR, f"failed: {_line(ticks[0].error.message)}", "Mend that; it looks again by itself.")
    elif time.time() - ticks[0].timestamp > SILENT_SECONDS:
        yield _note(DROP_SENSOR, f"looked {_age(time.time() - ticks[0].timestamp)} ago", "Run `music-assets up`.")
    else:
        yield _ok(DROP_SENSOR, ticks[0].skip_reason or "started a run")


def _last_run(instance: dg.DagsterInstance, job: str) -> Iterator[Finding]:
    records = instance.get_run_records(dg.RunsFilter(job_name=job), limit=1)
    if not records:
        yield _ok(job, "has not run yet")
        return
    run = records[0].dagster_run
    if run.status in UNFINISHED:
        yield _note(job, f"run {run.run_id} has not ended yet: {run.status.value.lower()}")
    elif run.status is dg.DagsterRunStatus.SUCCESS:
        yield _ok(job, f"run {run.run_id} succeeded {_age(time.time() - (records[0].end_time or 0))} ago")
    else:
        yield _problem(job, f"run {run.run_id} ended as {run.status.value.lower()}", "See the run in the web UI.")


def _locks(settings: Settings) -> Iterator[Finding]:
    root = DataRoot(settings.data)
    held = {
        root.ingest_lock: "files are being taken right now",
        root.publish_lock: "music_db is being published right now",
    }
    found = [(path, what) for path, what in held.items() if is_locked(path)]
    for path, what in found:
        yield _note("locks", f"{path} is held: {what}")
    if not found:
        yield _ok("locks", "none held")


def _leftovers(settings: Settings) -> Iterator[Finding]:
    paths = DataRoot(settings.data).temporary_files()
    found = [path for path in paths if _is_old(path)]
    for path in found:
        yield _note("leftovers", f"{printable(str(path))}, {_size(_sum([path, *path.rglob('*')]))}", "Remove it.")
    if not found:
        yield _ok("leftovers", "none")


def _is_old(path: Path) -> bool:
    return time.time() - path.lstat().st_mtime > OLD_SECONDS


def _sum(paths: Iterable[Path]) -> int:
    return sum(path.lstat().st_size for path in paths)


def _counted(things: Sized, name: str) -> str:
    return f"{len(things):,} {name}{'' if len(things) == 1 else 's'}"


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"


def _line(error: object) -> str:
    return (str(error).splitlines() or [""])[0]
