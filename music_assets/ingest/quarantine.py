"""The folder `rejected/`: bad files, and copies of files that were not loaded completely, each with its reason."""

from collections.abc import Callable
from pathlib import Path

from music_assets.data_root import DataRoot
from music_assets.ingest.file_names import numbered
from music_assets.ingest.landing import DroppedFile

REASON_SUFFIX = ".reason.txt"


class Quarantine:
    """Puts dropped files into `rejected/`, next to a text file that gives the reason. Only one process may do so."""

    def __init__(self, root: DataRoot) -> None:
        self.root = root
        self.folder = root.rejected

    def move(self, file: DroppedFile, reason: str) -> Path:
        """Move a file that cannot be loaded, and return where it is now."""
        return self._put(file, reason, file.move)

    def copy(self, file: DroppedFile, reason: str) -> Path:
        """Copy a file that can be loaded, but not completely, and return the copy."""
        return self._put(file, reason, file.copy)

    def _put(self, file: DroppedFile, reason: str, transfer: Callable[[Path], object]) -> Path:
        """Write the reason, then transfer the file.

        A run that dies in between leaves the reason only, which the next run overwrites.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        names = numbered(self.folder / file.name, reserved_bytes=len(REASON_SUFFIX))
        target = next(name for name in names if not self.root.exists(name))
        explanation = target.with_name(target.name + REASON_SUFFIX)
        text = f"{file.address}\n{reason}\nFix the file and drop it again.\n"
        self.root.write(explanation, text.encode(errors="replace"))
        try:
            transfer(target)
        except BaseException:
            self.root.remove([explanation])
            raise
        return target
