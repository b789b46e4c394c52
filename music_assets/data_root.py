"""The data root: its folders, layout version, locks, durable writes and scratch space.

No other module joins paths to the data root. What the files in these folders mean does not belong here: drops and
rejected files belong to `ingest/`, tables and snapshots to `storage/`, the Dagster home to `runtime/`.
"""

import os
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from filelock import FileLock, Timeout

from music_assets.tables import RAW_TABLES, Table

LAYOUT_VERSION = 2
"""Version of the folder layout. Increase it when an older release could not use the result.

Version 1 stored absolute paths in published snapshots. Publishing records version 2.
"""
SUPPORTED_VERSIONS = ("1", "2")
UNFINISHED_SUFFIX = ".part"
"""Suffix of a file that is being written. Its name starts with a dot."""
SCRATCH_PREFIX = "process-"


class LayoutError(Exception):
    """The data root has a layout version that this release does not support."""


class LockHeldError(Exception):
    """Another process holds the lock."""


@dataclass(frozen=True)
class DataRoot:
    """The folders and locks of a data root. Creating the object accesses no file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

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

    def prepare(self) -> None:
        """Create the drop folders, and record the layout version of a new data root. Raises LayoutError."""
        self.check_layout()
        for table in RAW_TABLES:
            self.drop_folder(table).mkdir(parents=True, exist_ok=True)
        if not self._version_file.exists():
            self.record_layout()

    def record_layout(self, version: str = str(LAYOUT_VERSION)) -> None:
        """Record the layout version of the data root. Text other than a version makes the root unusable."""
        with durable_write(self._version_file) as file:
            file.write(f"{version}\n".encode())

    def has_layout(self, version: str) -> bool:
        """Return whether this layout version is recorded."""
        return self._version_file.exists() and self._version_file.read_text("ascii", "replace").strip() == version

    @property
    def marks(self) -> list[Path]:
        """The files that say what the data root is; they need not exist."""
        return [self.demo_mark, self._version_file]

    def relative(self, file: str) -> str:
        """Return the path of a file below the data root, relative to it. Raises ValueError."""
        return Path(file).relative_to(self.path).as_posix()

    def check_layout(self) -> None:
        """Raise LayoutError unless this release supports the layout version.

        A root without a version file is new, or was written by a release before 0.2 in layout version 1.
        """
        try:
            found = self._version_file.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return
        if found not in SUPPORTED_VERSIONS:
            raise LayoutError(
                f"The data root {self} has layout version {found[:20]!r}, but this release supports versions up to "
                f"{LAYOUT_VERSION}. Install the release that wrote it, or set MUSIC_ASSETS_DATA to another folder."
            )

    def temporary_files(self) -> list[Path]:
        """Return files that a killed process may have left: unfinished files, scratch folders, damaged tables."""
        found = [path for table in RAW_TABLES for path in self.drop_folder(table).glob(f".*{UNFINISHED_SUFFIX}")]
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
    replaces the target. After an error the hidden file is deleted.
    """
    unfinished = target.with_name(f".{uuid4().hex}{UNFINISHED_SUFFIX}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        rename(unfinished, target)
        sync(target.parent)
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
