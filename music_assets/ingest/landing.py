"""The drop folders: which CSV files wait there, when a file is complete, and how a file is put there."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from music_assets.data_root import DataRoot, durable_write
from music_assets.ingest.csv_header import BadFileError, column_names
from music_assets.ingest.file_names import CSV_SUFFIXES, is_csv_name, printable, rename_without_overwriting
from music_assets.tables import RAW_TABLES, Table

IN_PROGRESS_PREFIXES = (".", "_")
COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class DroppedFile:
    """A CSV file in a drop folder, with the size, modification time and inode that identify its content."""

    path: Path
    size: int
    modified_ns: int
    inode: int
    changed_ns: int = field(default=0, compare=False)
    """Time of the last change of the file's status, for example of its rights."""

    @classmethod
    def at(cls, path: Path) -> "DroppedFile":
        """Read the status of a file, not following symbolic links. Raises FileNotFoundError."""
        status = path.lstat()
        return cls(path, status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)

    @property
    def name(self) -> str:
        """The file's name for display and for `source_file`."""
        return printable(self.path.name)

    def is_unchanged(self) -> bool:
        """Return whether the file is still there with the same size, modification time and inode."""
        try:
            return DroppedFile.at(self.path) == self
        except FileNotFoundError:
            return False


class Landing:
    """The drop folders of a data root.

    A file is complete once it has not changed for `settle_seconds`, and not between two checks that are
    `recheck_seconds` apart.
    """

    def __init__(self, root: DataRoot, settle_seconds: float = 0.0, recheck_seconds: float = 0.2) -> None:
        self.root = root
        self.settle_seconds = settle_seconds
        self.recheck_seconds = recheck_seconds
        self._first_seen: dict[DroppedFile, float] = {}

    def files(self, table: Table) -> list[DroppedFile]:
        """Return every CSV file in the drop folder of the table, complete or not, the oldest first.

        Raises OSError if the folder cannot be listed.
        """
        with os.scandir(self.root.drop_folder(table)) as entries:
            paths = [Path(entry.path) for entry in entries if _is_csv(entry) and entry.is_file(follow_symlinks=False)]
        return sorted(_existing(paths), key=lambda file: (file.modified_ns, file.path.name))

    def ignored(self, table: Table) -> list[str]:
        """Return what has the name of a CSV file but is not a regular file, with its kind: `a.csv, a symbolic link`."""
        with os.scandir(self.root.drop_folder(table)) as entries:
            odd = [entry for entry in entries if _is_csv(entry) and not entry.is_file(follow_symlinks=False)]
        return sorted(f"{printable(entry.name)}, {_kind(entry)}" for entry in odd)

    def complete_files(self) -> Mapping[Table, list[DroppedFile]]:
        """Return the complete files of each raw table, the oldest first.

        Waits for `recheck_seconds`, except for files that an earlier call has seen.
        """
        settled = {table: self._settled_files(table) for table in RAW_TABLES}
        now = time.monotonic()
        self._first_seen = {file: self._first_seen.get(file, now) for files in settled.values() for file in files}
        if self._first_seen:
            time.sleep(max(max(self._first_seen.values()) + self.recheck_seconds - now, 0))
        return {table: [file for file in files if file.is_unchanged()] for table, files in settled.items()}

    def wait_until_settled(self, maximum_seconds: float) -> None:
        """Wait until the files that are there now have settled, unless that takes more than `maximum_seconds`."""
        youngest = max((file.modified_ns for table in RAW_TABLES for file in self.files(table)), default=0) / 1e9
        remaining = youngest + self.settle_seconds - time.time()
        if 0 < remaining <= maximum_seconds:
            time.sleep(remaining)

    def place(self, file: Path, progress: Callable[[int], None] = lambda _: None) -> Path:
        """Copy a CSV file into the drop folder of the table that its header matches, atomically, and return the copy.

        If a file of that name is waiting, the copy gets a numbered name. `progress` is called with the number of bytes
        of each block. Raises BadFileError if the header matches no table.
        """
        folder = self.root.drop_folder(target_table(file))
        folder.mkdir(parents=True, exist_ok=True)
        placed: list[Path] = []

        def rename(written: Path, target: Path) -> None:
            placed.append(rename_without_overwriting(written, target))

        with file.open("rb") as source, durable_write(folder / file.name, rename) as copy:
            while block := source.read(COPY_BYTES):
                copy.write(block)
                progress(len(block))
        return placed[0]

    def _settled_files(self, table: Table) -> list[DroppedFile]:
        latest = time.time_ns() - int(self.settle_seconds * 1e9)
        return [file for file in self.files(table) if file.modified_ns <= latest]


def with_utf8_name(file: DroppedFile) -> DroppedFile:
    """Rename a file whose name is not UTF-8, which libraries cannot open."""
    try:
        file.path.name.encode()
    except UnicodeEncodeError:
        return DroppedFile.at(rename_without_overwriting(file.path, file.path.with_name(file.name)))
    return file


def target_table(file: Path) -> Table:
    """Return the raw table whose columns are all in the file's header. Raises BadFileError unless exactly one fits."""
    if not is_csv_name(file.name):
        raise BadFileError(f"its name ends neither in {' nor in '.join(CSV_SUFFIXES)}")
    found = {name.lower() for name in column_names(file)}
    fitting = [table for table in RAW_TABLES if {column.name for column in table.delivered} <= found]
    if len(fitting) == 1:
        return fitting[0]
    expected = "; ".join(f"{table.name}: {','.join(c.name for c in table.delivered)}" for table in RAW_TABLES)
    problem = "fits more than one table" if fitting else "fits no table"
    raise BadFileError(f"its header, {','.join(sorted(found))[:200]}, {problem}. Expected: {expected}")


def _is_csv(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(IN_PROGRESS_PREFIXES) and is_csv_name(entry.name)


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "a symbolic link"
    return "a folder" if entry.is_dir() else "no regular file"


def _existing(paths: list[Path]) -> Iterator[DroppedFile]:
    for path in paths:
        try:
            yield DroppedFile.at(path)
        except FileNotFoundError:
            continue
