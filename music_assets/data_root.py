"""Scratch folders: one for each process that needs one, gone with it; what killed ones left goes with the next."""

import shutil
import weakref
from functools import cached_property
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

PREFIX = "process-"


class Scratch:
    """A folder below `parent` for one user of it, made when it is first needed.

    A lock, which the system takes away from a dead process, tells the folder of a living one from what was left behind.
    """

    def __init__(self, parent: Path) -> None:
        self.parent = parent

    @cached_property
    def folder(self) -> Path:
        """Return the folder, empty at first; folders of dead processes are removed on the way."""
        self.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.parent / "making.lock"):
            for lock in self.parent.glob(f"{PREFIX}*.lock"):
                _remove_if_left(lock)
            folder = self.parent / f"{PREFIX}{uuid4().hex}"
            held = FileLock(folder.with_suffix(".lock"))
            held.acquire()
            folder.mkdir()
        weakref.finalize(self, _remove, folder, held)
        return folder


def _remove_if_left(lock_file: Path) -> None:
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return
    _remove(lock_file.with_suffix(""), lock)


def _remove(folder: Path, held: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    Path(held.lock_file).unlink(missing_ok=True)
    held.release()
