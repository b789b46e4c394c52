"""The folder in which a training works: one training at a time, without leftovers of a killed one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from music_assets.data_root import DataRoot, LockHeldError, acquire_lock


class TrainingUnderwayError(Exception):
    """Another training works on the same data root."""


class TrainingFolder:
    """The folder below a data root for the files of a training."""

    def __init__(self, root: DataRoot) -> None:
        self.root = root

    @contextmanager
    def occupied(self) -> Iterator[Path]:
        """Hold the folder, empty at the start and removed at the end, however the training ends.

        Raises TrainingUnderwayError where another process holds it. The system frees it when that process dies.
        """
        folder = self.root.training
        try:
            lock = acquire_lock(self.root.training_lock)
        except LockHeldError:
            raise TrainingUnderwayError(
                "Another training is running on this data root. Wait for it to end, or cancel it."
            ) from None
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()
