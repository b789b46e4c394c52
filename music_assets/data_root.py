"""The data root: its folders, layout version, locks, durable writes and scratch space.

No other module joins paths to the data root. What the files in these folders mean does not belong here: drops and
rejected files belong to `ingest/`, tables and snapshots to `storage/`, the Dagster home to `runtime/`.

A data root on S3 has the same folders twice. The bucket holds what lasts. The work folder on this machine holds what
need not, and copies of what the bucket holds: `fetch` gets files that never change, `refresh` follows those that do.
"""

import errno
import json
import os
import shutil
import stat
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from filelock import FileLock, Timeout

from music_assets.object_store import ObjectChangedError, ObjectInfo, ObjectStore, ObjectStoreError, in_parallel
from music_assets.settings import PREFIX, Settings
from music_assets.tables import RAW_TABLES, TABLES, Table

LAYOUT_VERSION = 2
"""Version of the folder layout. Increase it when an older release could not use the result.

Version 1 stored absolute paths in published snapshots. Publishing records version 2.
"""
SUPPORTED_VERSIONS = ("1", "2")
UNFINISHED_SUFFIX = ".part"
"""Suffix of a file that is being written. Its name starts with a dot."""
SCRATCH_PREFIX = "process-"
FULL = (errno.ENOSPC, errno.EDQUOT)
IN_USE_SECONDS = 3_600
"""Time after its last use in which a cached file is not removed: a reader may still be about to open it."""
LISTINGS = 5
"""How often a folder is listed while others replace or delete files in it."""
_LOOKS: ContextVar[dict[Path, bytes] | None] = ContextVar("looks", default=None)
"""What `one_look` has seen: folders, and the content of the version file."""


class LayoutError(Exception):
    """There is no data root, or it has a layout version that this release does not support."""


class DamagedTableError(Exception):
    """A file of a table is damaged. The message names it."""


class LockHeldError(Exception):
    """Another process holds the lock."""


@dataclass(frozen=True)
class DataRoot:
    """The folders and locks of a data root. Creating the object accesses no file.

    `path` is the local folder. With a `store`, it is a part of the work folder.
    """

    path: Path
    store: ObjectStore | None = None
    cache_bytes: int = 0

    @classmethod
    def of(cls, settings: Settings) -> "DataRoot":
        """Return the data root of the settings."""
        if isinstance(settings.data, Path):
            return cls(settings.data)
        store = ObjectStore.at(settings.data)
        return cls(settings.work / store.bucket / store.prefix, store, int(settings.cache_gb * 1e9))

    def __str__(self) -> str:
        return str(self.store or self.path)

    @property
    def environment(self) -> dict[str, str]:
        """The settings with which another process uses this data root."""
        if not self.store:
            return {f"{PREFIX}DATA": str(self.path)}
        depth = len(Path(self.store.bucket, self.store.prefix).parts)
        work = self.path.parents[depth - 1]
        return {
            f"{PREFIX}DATA": str(self.store),
            f"{PREFIX}WORK": str(work),
            f"{PREFIX}CACHE_GB": str(self.cache_bytes / 1e9),
        }

    def drop_folder(self, table: Table) -> Path:
        """Return the folder for CSV files of a raw table."""
        return self.path / "user_data" / table.name

    def table_folder(self, table: Table) -> Path:
        """Return the folder of a Delta table."""
        return self.path / table.folder

    @property
    def rejected(self) -> Path:
        """The folder for files that could not be loaded, and for copies of files that were not loaded completely."""
        return self.path / "rejected"

    @property
    def snapshots(self) -> Path:
        """The folder of the published snapshots and the pointer to the newest."""
        return self.path / "music_db"

    @property
    def damaged(self) -> Path:
        """The folder for damaged tables."""
        return self.path / "damaged"

    @property
    def dagster_home(self) -> Path:
        """The default DAGSTER_HOME."""
        return self.path / ".dagster_home"

    @property
    def scratch(self) -> Path:
        """The parent folder of all scratch folders."""
        return self.path / ".scratch"

    @property
    def training(self) -> Path:
        """The scratch folder of a training."""
        return self.scratch / "training"

    @property
    def first_looks(self) -> Path:
        """The file that records when each waiting file was first seen."""
        return self.path / ".first_looks.json"

    @property
    def ingest_lock(self) -> Path:
        """The lock for loading dropped files."""
        return self.path / ".ingest.lock"

    @property
    def publish_lock(self) -> Path:
        """The lock for publishing a snapshot, and for deleting files that a snapshot may refer to."""
        return self.path / ".publish.lock"

    @property
    def training_lock(self) -> Path:
        """The lock for training embeddings."""
        return self.scratch / "training.lock"

    @property
    def up_lock(self) -> Path:
        """The lock of `music-assets up`."""
        return self.path / ".up.lock"

    @property
    def up_holder(self) -> Path:
        """The text file that describes the holder of `up_lock`, which is itself empty."""
        return self.path / ".up.txt"

    @property
    def demo_mark(self) -> Path:
        """The file that marks a root of `music-assets demo`, which may be cleared."""
        return self.path / ".music-assets-demo"

    @property
    def staging(self) -> Path:
        """The folder for dropped files that were fetched from S3 to be read."""
        return self.scratch / "staging"

    def prepare(self) -> None:
        """Create the drop folders, and record the layout version of a new data root.

        Raises LayoutError, and ObjectStoreError if the store is not reliable enough.
        """
        if self.store:
            self.path.mkdir(parents=True, exist_ok=True)
            self.conditional_delete  # noqa: B018  The first use of a store on this machine probes it.
        self.check_layout()
        for table in RAW_TABLES:
            self.drop_folder(table).mkdir(parents=True, exist_ok=True)
        if self._layout() is None:
            self.record_layout()

    def probe(self) -> bool:
        """Check that the store honours the conditions of writes; return whether it also honours those of deletions.

        Raises ObjectStoreError if it does not.
        """
        found = self._existing_store.probe()
        self.path.mkdir(parents=True, exist_ok=True)
        with durable_write(self._probe_file) as file:
            file.write(json.dumps(found).encode())
        return found

    @property
    def conditional_delete(self) -> bool:
        """Whether the store deletes an object only if it is the expected one, from the last probe on this machine."""
        return json.loads(self._probe_file.read_bytes()) if self._probe_file.exists() else self.probe()

    def record_layout(self, version: str = str(LAYOUT_VERSION)) -> None:
        """Record the layout version of the data root. Text other than a version makes the root unusable."""
        (_LOOKS.get() or {}).pop(self._version_file, None)
        self.write(self._version_file, f"{version}\n".encode())

    def has_layout(self, version: str) -> bool:
        """Return whether this layout version is recorded."""
        return self._layout() == version

    @property
    def marks(self) -> list[Path]:
        """The files that say what the data root is; they need not exist."""
        return [self.demo_mark, self._version_file]

    def relative(self, file: str | Path) -> str:
        """Return the path of a file below the data root, relative to it. Raises ValueError."""
        return Path(file).relative_to(self.path).as_posix()

    def address(self, path: Path) -> str:
        """Return where users find a file or folder of the data root: its path, or its address in the bucket."""
        return f"{self.store}/{self.relative(path)}" if self.store else str(path)

    def check_layout(self) -> None:
        """Raise LayoutError unless this release supports the layout version.

        A root without a version file is new, or was written by a release before 0.2 in layout version 1.
        """
        found = self._layout()
        if found is not None and found not in SUPPORTED_VERSIONS:
            raise LayoutError(
                f"The data root {self} has layout version {found[:20]!r}, but this release supports versions up to "
                f"{LAYOUT_VERSION}. Install the release that wrote it, or set MUSIC_ASSETS_DATA to another folder."
            )

    def check_exists(self) -> None:
        """Raise LayoutError unless there is a data root, even an empty one, that this release supports."""
        self.check_layout()
        folders = (folder(table) for table in RAW_TABLES for folder in (self.drop_folder, self.table_folder))
        if self._layout() is None and not any(map(Path.is_dir, folders)):
            raise LayoutError(f"There is no data root at {self}. Set {PREFIX}DATA to the data root.")

    def _layout(self) -> str | None:
        """Return the recorded layout version, or None."""
        looks = _LOOKS.get()
        try:
            content = (looks or {}).get(self._version_file) or self.read(self._version_file)
        except FileNotFoundError:
            return None
        if looks is not None:
            looks[self._version_file] = content
        return content.decode("ascii", "replace").strip()

    # What lasts, by its path below `path`. On a data root without a store, the local file is all there is.

    def read(self, path: Path) -> bytes:
        """Return the content of a small file that may change. Raises FileNotFoundError."""
        return self.store.read(self.relative(path)) if self.store else path.read_bytes()

    def write(self, path: Path, content: bytes) -> None:
        """Write a small file durably, in place of an older one."""
        if self.store:
            self.store.write(self.relative(path), content)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable_write(path) as file:
            file.write(content)

    def exists(self, path: Path) -> bool:
        """Return whether there is such a file."""
        return self.store.find(self.relative(path)) is not None if self.store else os.path.lexists(path)

    def files_below(self, folder: Path) -> dict[Path, int]:
        """Return all regular files below a folder and their sizes in bytes, sorted; none if it does not exist."""
        if self.store:
            key = "" if folder == self.path else self.relative(folder)
            return {self.path / found.key: found.size for found in self.store.list(key)}
        return {path: status.st_size for path, status in _regular_files(folder).items()}

    def upload(self, files: Iterable[Path]) -> None:
        """Put local files into the bucket, if there is one. They stay in the cache."""
        if store := self.store:
            in_parallel(lambda path: store.upload(path, self.relative(path)), files)
            self._shrink_cache()

    def remove(self, files: Iterable[Path]) -> None:
        """Delete files that may exist, here and in the bucket."""
        paths = list(files)
        if self.store and paths:
            self.store.delete([self.relative(path) for path in paths])
        for path in paths:
            path.unlink(missing_ok=True)

    def move_folder(self, source: Path, target: Path) -> None:
        """Move a folder and all files in it."""
        if not (store := self.store):
            target.parent.mkdir(parents=True)
            source.rename(target)
            return
        moved = {path: target / path.relative_to(source) for path in self.files_below(source)}
        in_parallel(lambda pair: store.copy(*map(self.relative, pair)), moved.items())
        self.remove(moved)
        shutil.rmtree(source, ignore_errors=True)

    def fetch(self, files: Iterable[Path], sizes: Mapping[Path, int] | None = None) -> None:
        """Make sure that these files, which never change, are on this machine with these sizes, where they are known.

        Raises FileNotFoundError if the bucket lacks one, ObjectStoreError if the cache is too small for all of them.
        """
        if not (store := self.store):
            return
        wanted = {path: (sizes or {}).get(path) for path in files}
        if sum(filter(None, wanted.values())) > self.cache_bytes:
            raise ObjectStoreError(
                f"The cache in {self.path} is too small for the {len(wanted):,} files that are read together. Raise "
                f"{PREFIX}CACHE_GB above {sum(filter(None, wanted.values())) / 1e9:.1f}."
            )
        missing = [path for path, size in wanted.items() if not _is_cached(path, size)]
        if missing:
            self._shrink_cache(sum(wanted[path] or 0 for path in missing))

        def get(path: Path) -> None:
            size = wanted[path]
            unchanging = ObjectInfo(self.relative(path), size, "", datetime.min) if size is not None else None
            self._download(unchanging or self._found(store, path), path)

        in_parallel(get, missing)

    def _found(self, store: ObjectStore, path: Path) -> ObjectInfo:
        if found := store.find(self.relative(path)):
            return found
        raise FileNotFoundError(2, "no such object", self.address(path))

    def _download(self, found: ObjectInfo, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable_write(path) as file:
            self._existing_store.download(found, file)

    def copy_out(self, path: Path, target: Path) -> None:
        """Copy a file of the data root to another place on this machine. Raises FileNotFoundError."""
        if not (store := self.store):
            shutil.copyfile(path, target)
            return
        with target.open("wb") as file:
            store.download(self._found(store, path), file)

    def put(self, source: Path, path: Path) -> None:
        """Put any local file into the bucket under the key of `path`."""
        self._existing_store.upload(source, self.relative(path))

    def look(self, folder: Path, pattern: str = "*") -> None:
        """Do what `refresh` does, but only once within `one_look`."""
        if folder not in (_LOOKS.get() or ()):
            self.refresh(folder, pattern)

    def refresh(self, folder: Path, pattern: str = "*") -> None:
        """Make the files in a folder, not those in folders below, what the bucket has now. They may be rewritten.

        Files whose names do not match the pattern are left alone.
        """
        for remaining in reversed(range(LISTINGS if self.store else 0)):
            try:
                self._refresh(folder, pattern, self._existing_store)
                break
            except (FileNotFoundError, ObjectChangedError):  # deleted or replaced since it was listed
                if not remaining:
                    raise
        looks = _LOOKS.get()
        if looks is not None:
            looks[folder] = b""

    def _refresh(self, folder: Path, pattern: str, store: ObjectStore) -> None:
        name = self.relative(folder)
        state = self._state(folder)
        with exclusive_lock(state.with_suffix(".lock"), wait=True):
            known = json.loads(state.read_bytes()) if state.exists() else {}
            found = {folder / each.key.rpartition("/")[2]: each for each in store.list(name)}
            found = {
                path: each
                for path, each in found.items()
                if self.relative(path) == each.key and fnmatchcase(path.name, pattern)
            }
            changed = {
                path: each
                for path, each in found.items()
                if known.get(path.name) != each.etag or not _is_cached(path, each.size)
            }
            folder.mkdir(parents=True, exist_ok=True)
            in_parallel(lambda path: self._download(changed[path], path), changed)
            stale = [path for path in folder.glob(pattern) if path.is_file() and path not in found]
            for path in stale:
                path.unlink()
            if changed or stale:
                with durable_write(state) as file:
                    file.write(json.dumps({path.name: each.etag for path, each in found.items()}).encode())

    def link(self, folder: Path, target: Path) -> dict[str, tuple[int, int]]:
        """Link the files of a folder that `refresh` follows into a new folder; return the identity of each by name."""
        target.mkdir()
        found = {}
        with exclusive_lock(self._state(folder).with_suffix(".lock"), wait=True):
            for path in folder.glob("[!.]*"):
                os.link(path, target / path.name)
                found[path.name] = identity(path)
        return found

    def _state(self, folder: Path) -> Path:
        """Return the file with the ETags of the files in a folder that `refresh` follows."""
        return self.path / ".refreshed" / f"{self.relative(folder).replace('/', '.')}.json"

    def discard_copies(self, folder: Path) -> None:
        """Delete the copies below a folder that the bucket does not have. No other process may write there."""
        if not self.store:
            return
        kept = self.files_below(folder)
        for path in _regular_files(folder).keys() - kept.keys():
            path.unlink()

    def refetch(self, folder: Path) -> None:
        """Do what `refresh` does, but fetch every file."""
        state = self._state(folder)
        with exclusive_lock(state.with_suffix(".lock"), wait=True):
            state.unlink(missing_ok=True)
        self.refresh(folder)

    def _shrink_cache(self, needed: int = 0) -> None:
        """Remove the cached files that were unused for longest, until there is room for `needed` bytes."""
        folders = [self.snapshots, *map(self.table_folder, TABLES)]
        status = {
            path: found
            for folder in folders
            for path, found in _regular_files(folder).items()
            if path.suffix in (".parquet", ".duckdb") and "_delta_log" not in path.parts
        }
        size = needed + sum(each.st_size for each in status.values())
        for path in sorted(status, key=lambda each: status[each].st_mtime):
            if size <= self.cache_bytes or time.time() - status[path].st_mtime < IN_USE_SECONDS:
                return
            path.unlink(missing_ok=True)
            size -= status[path].st_size

    @property
    def _existing_store(self) -> ObjectStore:
        assert self.store
        return self.store

    @property
    def _probe_file(self) -> Path:
        return self.path / ".conditional_delete.json"

    def temporary_files(self) -> list[Path]:
        """Return files that a killed process may have left: unfinished files, scratch folders, damaged tables."""
        unfinished = f".*{UNFINISHED_SUFFIX}"
        folders = [self.rejected, *map(self.drop_folder, RAW_TABLES), *map(self.table_folder, TABLES)]
        found = [*self.path.glob(unfinished), *(path for folder in folders for path in folder.rglob(unfinished))]
        found += [*self.snapshots.glob(".*"), *self.scratch.glob("*"), *self.damaged.glob("*")]
        return sorted(path for path in found if path.suffix != ".lock")

    @property
    def _version_file(self) -> Path:
        return self.path / ".layout_version"


def acquire_lock(path: Path, wait: bool = False) -> FileLock:
    """Acquire an exclusive lock. The caller releases it; the operating system does if the process dies.

    Raises LockHeldError if another process, or another thread, holds it and `wait` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise LockHeldError(f"{path} is held by another process.") from None
    return lock


@contextmanager
def exclusive_lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock while the block runs. Raises LockHeldError as `acquire_lock` does."""
    lock = acquire_lock(path, wait)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def durable_write(target: Path, rename: Callable[[Path, Path], object] = Path.replace) -> Iterator[BinaryIO]:
    """Write a file atomically and durably: after a crash it is complete or does not exist.

    It is written next to the target under a hidden name, forced to disk, and renamed by `rename`, which by default
    replaces the target. After an error the hidden file is deleted. An OSError for a full disk names the target.
    """
    unfinished = target.with_name(f".{uuid4().hex}{UNFINISHED_SUFFIX}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        rename(unfinished, target)
        sync(target.parent)
    except OSError as error:
        if error.errno in FULL and error.filename is None:  # as `write` and `fsync` raise it
            raise OSError(error.errno, error.strerror, str(target)) from None
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Delete what processes that died in `durable_write` left in the folder. No other process may write there."""
    for unfinished in folder.glob(f".*{UNFINISHED_SUFFIX}"):
        unfinished.unlink()


def sync(path: Path) -> None:
    """Force a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def one_look() -> Iterator[None]:
    """Look at what may change in the bucket only once while the block runs, apart from what this process changes.

    What others change meanwhile is detected when this process commits.
    """
    token = _LOOKS.set({})
    try:
        yield
    finally:
        _LOOKS.reset(token)


def identity(path: Path) -> tuple[int, int]:
    """Return the inode and modification time of a file, which change if it is replaced."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _regular_files(folder: Path) -> dict[Path, os.stat_result]:
    """Return the status of each regular file below a folder, sorted by path. Others may delete files meanwhile."""
    found = {}
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            with suppress(FileNotFoundError):
                found[path] = path.lstat()
    return {path: status for path, status in sorted(found.items()) if stat.S_ISREG(status.st_mode)}


def _is_cached(path: Path, size: int | None) -> bool:
    """Return whether the file is here with this size, and note that it is used."""
    try:
        if size not in (None, path.stat().st_size):
            return False
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


class Scratch:
    """A temporary folder below `parent`, created on first use and deleted with this object.

    A lock next to it shows whether the process that created it is still alive.
    """

    def __init__(self, parent: Path) -> None:
        self.parent = parent

    @cached_property
    def folder(self) -> Path:
        """The folder, initially empty. Also deletes the folders of killed processes."""
        with exclusive_lock(self.parent / "create.lock", wait=True):
            for lock_file in self.parent.glob(f"{SCRATCH_PREFIX}*.lock"):
                _remove_if_abandoned(lock_file)
            folder = self.parent / f"{SCRATCH_PREFIX}{uuid4().hex}"
            lock = acquire_lock(folder.with_suffix(".lock"))
            folder.mkdir()
        weakref.finalize(self, _remove, folder, lock)
        return folder


def _remove_if_abandoned(lock_file: Path) -> None:
    try:
        lock = acquire_lock(lock_file)
    except LockHeldError:
        return
    _remove(lock_file.with_suffix(""), lock)


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()
