"""The folder `rejected/`: bad files, and copies of files that were not loaded completely, each with its reason."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from music_assets.data_root import DataRoot, durable_write
from music_assets.ingest.file_names import numbered
from music_assets.ingest.landing import DroppedFile

REASON_SUFFIX = ".reason.txt"


class Quarantine:
    """Puts dropped files into `rejected/`, next to a text file that gives the reason. Only one process may do so."""

    def __init__(self, root: DataRoot) -> None:
        self.folder = root.rejected

    def move(self, file: DroppedFile, reason: str) -> Path:
        """Move a file that cannot be loaded, and return where it is now."""
        return self._put(file, reason, partial(shutil.move, copy_function=_copy_durably))

    def copy(self, file: DroppedFile, reason: str) -> Path:
        """Copy a file that can be loaded, but not completely, and return the copy."""
        return self._put(file, reason, _copy_durably)

    def _put(self, file: DroppedFile, reason: str, transfer: Callable[[str, str], object]) -> Path:
        """Write the reason, then transfer the file.

        A run that dies in between leaves the reason only, which the next run overwrites.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        names = numbered(self.folder / file.name, reserved_bytes=len(REASON_SUFFIX))
        target = next(name for name in names if not os.path.lexists(name))
        explanation = target.with_name(target.name + REASON_SUFFIX)
        text = f"{file.path.with_name(file.name)}\n{reason}\nFix the file and drop it again.\n"
        explanation.write_text(text, encoding="utf-8", errors="replace")
        try:
            transfer(str(file.path), str(target))
        except BaseException:
            explanation.unlink()
            raise
        return target


def _copy_durably(source: str, target: str) -> None:
    """Copy to another file system. The copy must be on disk, since the source is deleted next."""
    with Path(source).open("rb") as file, durable_write(Path(target)) as copy:
        shutil.copyfileobj(file, copy)
    shutil.copystat(source, target)
