"""The drop folders: which CSV files wait there, when a file is complete, and how a file is put there."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from music_assets.data_root import DataRoot, durable_write
from music_assets.ingest.csv_header import UTF8, BadFileError, check_compression, target_table
from music_assets.ingest.file_kinds import is_in_progress, problem_of_name
from music_assets.ingest.file_names import printable, rename_without_overwriting
from music_assets.ingest.folder_watch import FolderWatch
from music_assets.tables import RAW_TABLES, Table

COPY_BYTES = 1 << 20
IN_PROGRESS_SECONDS = 3_600
"""Age from which on files in progress are listed as ignored."""
LOOK_SECONDS = 0.5
"""Seconds between two looks at the drop folders while waiting for a file that no event announces."""


@dataclass(frozen=True, slots=True)
class DroppedFile:
    """A CSV file in a drop folder, with the size, modification time and inode that identify its content."""

    path: Path
    size: int
    modified_ns: int
    inode: int | str
    """The inode; of an object on S3 its ETag."""
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

    @property
    def address(self) -> str:
        """Where users find the file."""
        return str(self.path.with_name(self.name))

    def is_unchanged(self) -> bool:
        """Return whether the file is still there with the same size, modification time and inode."""
        try:
            return DroppedFile.at(self.path) == self
        except FileNotFoundError:
            return False

    def stage(self) -> None:
        """Make the file readable at its path, until `unstage`. Files in a folder are."""

    def unstage(self) -> None:
        """Delete the copy of a staged file, if it has one."""

    def delete(self) -> bool:
        """Delete the file unless it has changed; return whether it was unchanged. Raises OSError."""
        if not self.is_unchanged():
            return False
        self.path.unlink()
        return True

    def move(self, target: Path) -> None:
        """Move the file to another path of the data root. Raises OSError."""
        shutil.move(str(self.path), str(target), copy_function=copy_durably)

    def copy(self, target: Path) -> None:
        """Copy the file to a path of the data root. Raises OSError."""
        copy_durably(str(self.path), str(target))


class Landing:
    """The drop folders of a data root.

    A file is complete if it is the same in two looks that are `settle_seconds` apart, whatever its modification time,
    or if this process has seen it being renamed into place.
    """

    def __init__(self, root: DataRoot, settle_seconds: float = 0.0, encoding: str = UTF8) -> None:
        self.root = root
        self.settle_ns = int(settle_seconds * 1e9)
        self.encoding = encoding
        self._first_seen: dict[DroppedFile, int] = {}
        """When each waiting file was first seen, in nanoseconds of the monotonic clock. See `_remember`."""
        self._watch = FolderWatch([root.drop_folder(table) for table in RAW_TABLES])

    @property
    def tables(self) -> list[Table]:
        """The raw tables whose drop folder exists."""
        return [table for table in RAW_TABLES if self.root.drop_folder(table).is_dir()]

    def files(self, table: Table) -> list[DroppedFile]:
        """Return every CSV file in the drop folder of the table, complete or not, the oldest first.

        Raises OSError if the folder cannot be listed.
        """
        with os.scandir(self.root.drop_folder(table)) as entries:
            paths = [Path(entry.path) for entry in entries if _is_csv(entry) and entry.is_file(follow_symlinks=False)]
        return sorted(_existing(paths), key=lambda file: (file.modified_ns, file.path.name))

    def ignored(self, table: Table) -> list[str]:
        """Return what is in the drop folder and will not be loaded, as `NAME: REASON AND REMEDY`.

        Files in progress are listed once their modification time is an hour away.
        """
        with os.scandir(self.root.drop_folder(table)) as entries:
            problems = {entry.name: _problem(entry) for entry in entries}
        return sorted(f"{printable(name)}: {problem}" for name, problem in problems.items() if problem)

    def wait_for_files(self, seconds: float) -> None:
        """Wait until a CSV file is in a drop folder, at most these seconds, and watch the folders from now on.

        Raises OSError if a folder cannot be listed.
        """
        self._watch.open()
        end = time.monotonic() + seconds
        while not any(map(self.files, RAW_TABLES)) and time.monotonic() < end:
            self._watch.wait(LOOK_SECONDS)

    def complete_files(self, maximum_wait: float = inf) -> Mapping[Table, list[DroppedFile]]:
        """Return the complete files of each raw table, the oldest first.

        Waits until the files that are there now have settled, unless that takes more than `maximum_wait` seconds. The
        first look at a file is remembered for later calls, also by other processes.
        """
        seen = {table: self.files(table) for table in RAW_TABLES}
        now = time.monotonic_ns()
        self._remember([file for files in seen.values() for file in files], now)
        remaining = max(self._first_seen.values(), default=0) + self.settle_ns - now
        if 0 < remaining <= maximum_wait * 1e9:
            time.sleep(remaining / 1e9)
            now += remaining
        settled = {file for file, first_seen in self._first_seen.items() if first_seen + self.settle_ns <= now}
        return {
            table: [file for file in files if file in settled and file.is_unchanged()] for table, files in seen.items()
        }

    def _remember(self, files: Sequence[DroppedFile], now: int) -> None:
        """Keep the first look at each of these files, and forget all others.

        The looks are stored, so that a run need not wait for files that the sensor has watched. On one machine all
        processes share the monotonic clock. After a reboot it starts again, so later times than now count as now.
        A file that was renamed counts as seen long ago, until it changes: not every write is an event. Events are read
        after the look, so they include each write before it.
        """
        if not self.settle_ns:
            self._first_seen = dict.fromkeys(files, now)
            return
        known = {file: min(first_seen, now) for file, first_seen in self._stored_looks().items()} | self._first_seen
        renamed = self._watch.renamed(file.path for file in files)
        self._first_seen = {file: -self.settle_ns if file.path in renamed else known.get(file, now) for file in files}
        if self._first_seen != known:
            looks = [
                (str(file.path), file.size, file.modified_ns, file.inode, at) for file, at in self._first_seen.items()
            ]
            with durable_write(self.root.first_looks) as target:
                target.write(json.dumps(looks).encode())

    def _stored_looks(self) -> dict[DroppedFile, int]:
        try:
            looks = json.loads(self.root.first_looks.read_bytes())
            return {
                DroppedFile(Path(path), size, modified_ns, inode): at for path, size, modified_ns, inode, at in looks
            }
        except (FileNotFoundError, ValueError, TypeError):
            return {}

    def place(self, file: Path, progress: Callable[[int], None] = lambda _: None) -> Path:
        """Copy a CSV file into the drop folder of the table that its header matches, atomically, and return the copy.

        The copy has a printable name, numbered if a file of that name is waiting. `progress` is called with the number
        of bytes of each block. Raises BadFileError if the copy would not be loaded.
        """
        if problem := problem_of_name(file.name):
            raise BadFileError(problem)
        check_compression(file)
        folder = self.root.drop_folder(target_table(file, self.encoding))
        folder.mkdir(parents=True, exist_ok=True)
        return self._copy_into(folder, file, progress)

    def discard_stale(self, waiting: Iterable[DroppedFile]) -> None:
        """Delete staged copies, left by a process that died, of files that do not wait any more."""

    def _copy_into(self, folder: Path, file: Path, progress: Callable[[int], None]) -> Path:
        placed: list[Path] = []

        def rename(written: Path, target: Path) -> None:
            placed.append(rename_without_overwriting(written, target))

        with file.open("rb") as source, durable_write(folder / printable(file.name), rename) as copy:
            while block := source.read(COPY_BYTES):
                copy.write(block)
                progress(len(block))
        return placed[0]


def copy_durably(source: str, target: str) -> None:
    """Copy to another file system. The copy must be on disk, since the source is deleted next."""
    with Path(source).open("rb") as file, durable_write(Path(target)) as copy:
        shutil.copyfileobj(file, copy)
    shutil.copystat(source, target)


def with_utf8_name(file: DroppedFile) -> DroppedFile:
    """Rename a file whose name is not UTF-8, which libraries cannot open."""
    try:
        file.path.name.encode()
    except UnicodeEncodeError:
        return DroppedFile.at(rename_without_overwriting(file.path, file.path.with_name(file.name)))
    return file


def _is_csv(entry: os.DirEntry[str]) -> bool:
    return problem_of_name(entry.name) is None


def _problem(entry: os.DirEntry[str]) -> str | None:
    """Return why an entry of a drop folder will not be loaded, and the remedy; None if it will, or is in progress."""
    if is_in_progress(entry.name):
        return problem_of_name(entry.name) if _is_old(entry) else None
    if entry.is_symlink():
        return "a symbolic link, which is not followed: copy the file itself"
    if entry.is_dir():
        return "a folder: move the files in it here"
    if not entry.is_file():
        return "not a regular file: copy the data into a file"
    return problem_of_name(entry.name)


def _is_old(entry: os.DirEntry[str]) -> bool:
    try:
        modified = entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return False
    return abs(time.time() - modified) > IN_PROGRESS_SECONDS


def _existing(paths: list[Path]) -> Iterator[DroppedFile]:
    for path in paths:
        try:
            yield DroppedFile.at(path)
        except FileNotFoundError:
            continue
