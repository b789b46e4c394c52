"""The folder a training works in: one training at a time; what a killed one left there goes when the next begins."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class TrainingUnderwayError(Exception):
    """Another training works on the same data root."""


class TrainingFolder:
    """The folder below a data root for the files of a training."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def occupied(self) -> Iterator[Path]:
        """Hold the folder, empty at the start and removed at the end, however the training ends.

        Raises TrainingUnderwayError where another process holds it. The system frees it when that process dies.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise TrainingUnderwayError(
                "Another training is running on this data root. Wait for it to end, or cancel it."
            ) from None
        try:
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir()
            yield self.path
        finally:
            shutil.rmtree(self.path, ignore_errors=True)
            lock.release()
