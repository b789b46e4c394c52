"""Back up a data root while it is in use, and restore the copy at any path.

The manifest is written last: without it, a copy is unfinished and is not restored.
"""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from music_assets.data_root import DataRoot, durable_write, exclusive_lock, sync
from music_assets.ingest.landing import DroppedFile
from music_assets.ingest.object_landing import open_landing
from music_assets.storage.delta import DeltaStore, TableVersion
from music_assets.storage.published_snapshot import NothingPublishedError, newest_snapshot, pointer_files
from music_assets.storage.publisher import consistent_versions
from music_assets.tables import TABLES, Table

Report = Callable[[str], None]
MANIFEST = "backup.json"
UNFINISHED_RESTORE = "unfinished restore"
"""Stands in for the layout version until a restore is complete, so that nothing uses the data root."""


class BackupError(Exception):
    """The backup or restore failed. The message says what to do."""


def backup(root: DataRoot, target: Path, settle_seconds: float, report: Report) -> None:
    """Copy the data root into an empty folder, and report what was copied. Runs may go on meanwhile.

    Raises BackupError if the folder is not empty, or inside the data root, and LayoutError.
    """
    root.check_exists()
    if target.resolve().is_relative_to(root.path.resolve()):
        raise BackupError(f"{target} is inside the data root. Choose a folder elsewhere, best on another disk.")
    _require_empty(target)
    copy = _Copy(root.path, target, report, root.copy_out)
    # A file that is loaded after this is in the copy twice, as a CSV and as rows, and will be recognised as a repeat.
    copy.part("waiting files", _copy_drops(root, copy, settle_seconds))
    copy.part("rejected files", map(copy.file, root.files_below(root.rejected)))
    with exclusive_lock(root.publish_lock, wait=True):  # no snapshot is published, and no table vacuumed
        copy.part("tables", _copy_tables(DeltaStore(root), copy))
        copy.part("published snapshot", _copy_snapshot(root, copy))
    copy.part("Dagster's run history", _copy_dagster_home(root, copy))
    copy.part("layout version", map(copy.file, (path for path in root.marks if root.exists(path))))
    with durable_write(target / MANIFEST) as file:
        file.write(json.dumps({"files": copy.sizes}, indent=1).encode())
    report(f"Backed up {root} to {target}: {decimal(sum(copy.sizes.values()))}")


def restore(source: Path, root: DataRoot, report: Report) -> None:
    """Copy a backup into an empty data root, at any path, and report what was copied.

    Raises BackupError if the backup is unfinished or damaged, or if the data root is not empty.
    """
    sizes = _read_manifest(source)
    for name, size in sizes.items():
        path = source / name
        if not path.is_file() or path.stat().st_size != size:
            raise BackupError(f"{path} is missing, or not {size} bytes long as it was backed up. Use another backup.")
    if not root.has_layout(UNFINISHED_RESTORE):
        _require_empty_root(root)
    root.path.mkdir(parents=True, exist_ok=True)
    root.record_layout(UNFINISHED_RESTORE)
    marks = [str(path.relative_to(root.path)) for path in root.marks]
    copy = _Copy(source, root.path, report, uploaded=partial(_upload, root))
    copy.part("files", (copy.file(source / name) for name in sizes if name not in marks))
    copy.part("layout version", (copy.file(source / name) for name in marks if name in sizes))
    report(f"Restored {root} from {source}. Start it with: music-assets up")


class _Copy:
    """Copies files from one folder to the same relative path in another, and keeps their sizes."""

    def __init__(
        self,
        source: Path,
        target: Path,
        report: Report,
        write: Callable[[Path, Path], object] = shutil.copyfile,
        uploaded: Callable[[Path], object] = lambda _: None,
    ) -> None:
        self.source = source
        self.target = target
        self.report = report
        self.write = write
        self.uploaded = uploaded
        self.sizes: dict[str, int] = {}

    def part(self, name: str, copied: Iterable[Any]) -> None:
        """Copy a part and report its number of files and its size."""
        before, bytes_before = len(self.sizes), sum(self.sizes.values())
        for _ in copied:
            pass
        size = decimal(sum(self.sizes.values()) - bytes_before)
        self.report(f"{name}: {len(self.sizes) - before:,} files, {size}")

    def file(self, path: Path, write: Callable[[Path, Path], object] | None = None) -> Path:
        """Copy one file durably, with its mode and times where there is a file and not an object."""
        name = path.relative_to(self.source).as_posix()
        target = self.target / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # left by a restore that was interrupted, and perhaps read-only
        (write or self.write)(path, target)
        if path.exists():
            shutil.copystat(path, target)
        sync(target)
        sync(target.parent)
        self.sizes[name] = target.stat().st_size
        self.uploaded(target)
        return target

    def forget(self, path: Path) -> None:
        """Delete a copy."""
        path.unlink()
        del self.sizes[path.relative_to(self.target).as_posix()]


def _copy_drops(root: DataRoot, copy: _Copy, settle_seconds: float) -> Iterable[Path]:
    """Copy the dropped files that are complete: unchanged for the settle time and while they are copied."""
    landing = open_landing(root)
    waiting = [(root.drop_folder(table), file) for table in landing.tables for file in landing.files(table)]
    if waiting and not root.store:
        time.sleep(settle_seconds)
    for folder, file in waiting:
        path = folder / file.address.rpartition("/")[2] if root.store else file.path
        if (copied := _copy_drop(path, file, copy)) is None:
            copy.report(f"{file.address}: not copied, since it is being written or was loaded meanwhile")
        else:
            yield copied


def _copy_drop(path: Path, file: DroppedFile, copy: _Copy) -> Path | None:
    if not file.is_unchanged():
        return None
    try:
        copied = copy.file(path)
    except FileNotFoundError:  # loaded meanwhile: its rows are in the table, which is copied later
        return None
    if path.exists() and not file.is_unchanged():
        copy.forget(copied)
        return None
    os.utime(copied, ns=(file.modified_ns, file.modified_ns))
    return copied


def _copy_tables(store: DeltaStore, copy: _Copy) -> Iterable[Path]:
    """Copy each table at one version: the log up to it, and the parquet files of it and of what can be published."""
    newest, publishable = _versions(store), consistent_versions(store)
    while newest != (now := _versions(store)):  # a run has committed meanwhile
        newest, publishable = now, consistent_versions(store)
    for table, version in newest.items():
        if version.version < 0:
            continue
        yield from map(copy.file, map(Path, sorted({*version.paths, *publishable[table].paths})))
        yield from map(copy.file, _log_files(store, table, version.version))


def _versions(store: DeltaStore) -> dict[Table, TableVersion]:
    return {table: store.table_version(table) for table in TABLES}


def _log_files(store: DeltaStore, table: Table, version: int) -> list[Path]:
    """Return the entries and checkpoints of a table's log up to a version. `_last_checkpoint` is optional in Delta."""
    log = store.log_folder(table)
    return sorted(path for path in log.iterdir() if path.name[:20].isdigit() and int(path.name[:20]) <= version)


def _copy_snapshot(root: DataRoot, copy: _Copy) -> Iterable[Path]:
    """Copy the newest intact snapshot, its pointers, and the parquet files that its views read."""
    try:
        snapshot = newest_snapshot(root)
    except NothingPublishedError:
        return
    views = {Path(file) for table in snapshot.tables.values() for file in table.files}
    yield from map(copy.file, sorted(path for path in views if root.relative(str(path)) not in copy.sizes))
    yield copy.file(snapshot.path)
    pointers = (snapshot.path.with_suffix(".json"), pointer_files(root)[0])
    yield from map(copy.file, (path for path in pointers if path.exists()))


def _copy_dagster_home(root: DataRoot, copy: _Copy) -> Iterable[Path]:
    for path in _files(root.dagster_home):
        if path.name.endswith(".db"):  # one is called `.db`
            yield copy.file(path, _copy_sqlite)
        elif not path.name.endswith(("-wal", "-shm", "-journal")):
            yield copy.file(path, shutil.copyfile)


def _copy_sqlite(source: Path, target: Path) -> None:
    address = f"{source.as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as database, closing(sqlite3.connect(target)) as copied:
        database.backup(copied)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _upload(root: DataRoot, path: Path) -> None:
    """Put a restored file into the bucket, if there is one, unless it belongs on this machine."""
    if root.store and not path.is_relative_to(root.dagster_home):
        root.upload([path])
        path.unlink()


def _require_empty_root(root: DataRoot) -> None:
    if root.store and root.files_below(root.path):
        raise BackupError(f"{root} is not empty. Choose another address, or delete its objects first.")
    if not root.store:
        _require_empty(root.path)


def _require_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BackupError(f"{folder} is not an empty folder. Choose another one, or empty it first.")


def _read_manifest(source: Path) -> dict[str, int]:
    try:
        return dict(json.loads((source / MANIFEST).read_text(encoding="utf-8"))["files"])
    except FileNotFoundError:
        raise BackupError(f"{source} has no {MANIFEST}: it is no backup, or an unfinished one. Use another.") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BackupError(f"{source / MANIFEST} cannot be read: {error}. Use another backup.") from None
