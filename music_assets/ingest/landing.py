"""Drops: CSV files waiting below `user_data/`, when they count as complete, and where bad ones go."""

import hashlib
import os
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from music_assets.data_root import DataRoot, LockHeldError, acquire_lock, durable_write
from music_assets.ingest.csv_header import BadFileError, column_names
from music_assets.tables import RAW_TABLES, Table

SUFFIXES = (".csv", ".csv.gz")
NOT_LOOKED_AT = (".", "_")
HASHED_AT_ONCE = 1 << 20
REASON_SUFFIX = ".reason.txt"
CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of control characters, marks that turn the direction of text, stray surrogates, line ends."""


class IngestRunningError(Exception):
    """Another run is taking the files of this data root right now."""


@dataclass(frozen=True)
class DroppedFile:
    """A CSV file in a drop folder, as one look at it saw it."""

    path: Path
    size: int
    modified_ns: int
    inode: int

    @property
    def name(self) -> str:
        """The file's name without the folder, with bytes that are not UTF-8 and what cannot be printed replaced."""
        return printable(self.path.name)

    def unchanged(self) -> bool:
        """Tell whether the file is still the one that was seen."""
        try:
            return look_at(self.path) == self
        except FileNotFoundError:
            return False


def look_at(path: Path) -> DroppedFile:
    """Look at a file once, not through a symbolic link; FileNotFoundError where there is none."""
    status = path.lstat()
    return DroppedFile(path, status.st_size, status.st_mtime_ns, status.st_ino)


class Landing:
    """The drop folders below a data root, and the folder of what was rejected."""

    def __init__(self, root: DataRoot, settle_seconds: float = 2.0, pause_between_looks: float = 0.2) -> None:
        self.root = root
        self.settle_seconds = settle_seconds
        self.pause_between_looks = pause_between_looks
        self._first_looks: dict[DroppedFile, float] = {}

    def folder(self, table: Table) -> Path:
        """Return the folder into which CSV files for the table are dropped."""
        return self.root.drop_folder(table)

    def prepare(self) -> None:
        """Make the drop folders where they are missing. Raises LayoutError."""
        self.root.prepare()

    def listing(self, table: Table) -> list[DroppedFile]:
        """Return every CSV file in the table's folder, complete or not, the oldest first.

        A folder that cannot be listed raises OSError: it must never look like an empty one.
        """
        with os.scandir(self.folder(table)) as entries:
            paths = [Path(entry.path) for entry in entries if _is_csv(entry)]
        return sorted(_seen(paths), key=lambda file: (file.modified_ns, file.path.name))

    def ignored(self, table: Table) -> list[str]:
        """Return what in the table's folder is named like a CSV file and is none: `a.csv, a symbolic link`."""
        with os.scandir(self.folder(table)) as entries:
            odd = [entry for entry in entries if _is_named_csv(entry) and not entry.is_file(follow_symlinks=False)]
        return sorted(f"{printable(entry.name)}, {_kind(entry)}" for entry in odd)

    def complete(self) -> Mapping[Table, list[DroppedFile]]:
        """Return for each raw table the files that are complete, the oldest first.

        A file is complete when two looks find its size, modification time and inode equal, and it has not changed for
        `settle_seconds`. Between them lie `pause_between_looks`, unless the call before this one had the first.
        """
        settled = {table: self._settled(table) for table in RAW_TABLES}
        now = time.monotonic()
        self._first_looks = {file: self._first_looks.get(file, now) for files in settled.values() for file in files}
        if self._first_looks:
            time.sleep(max(max(self._first_looks.values()) + self.pause_between_looks - now, 0))
        return {table: [file for file in files if file.unchanged()] for table, files in settled.items()}

    def wait_until_settled(self, most_seconds: float) -> None:
        """Wait until every file has settled that lies there now, unless that takes more than so many seconds."""
        youngest = max((file.modified_ns for table in RAW_TABLES for file in self.listing(table)), default=0) / 1e9
        remaining = youngest + self.settle_seconds - time.time()
        if 0 < remaining <= most_seconds:
            time.sleep(remaining)

    def place(self, file: Path, progress: Callable[[int], None] = lambda _: None) -> Path:
        """Copy a CSV file into the folder of the table its header fits, under its name, in one step for readers.

        A file of that name which waits already stays: the new one gets a number. `progress` gets the bytes copied.
        Raises BadFileError where the header fits no table.
        """
        folder = self.folder(table_of(file))
        folder.mkdir(parents=True, exist_ok=True)
        placed: list[Path] = []

        def rename(aside: Path, target: Path) -> None:
            placed.append(_move_beside(aside, target))

        with file.open("rb") as source, durable_write(folder / file.name, rename) as target:
            while block := source.read(HASHED_AT_ONCE):
                target.write(block)
                progress(len(block))
        return placed[0]

    def quarantine(self, file: DroppedFile, reason: str) -> Path:
        """Move a file that cannot be taken into `rejected/`, beside a text file that gives the reason."""
        return self._set_aside(file, reason, partial(shutil.move, copy_function=_copy_durably))

    def keep_copy(self, file: DroppedFile, reason: str) -> Path:
        """Copy a file into `rejected/` that can be taken, but of which something would be lost."""
        return self._set_aside(file, reason, _copy_durably)

    def _set_aside(self, file: DroppedFile, reason: str, carry: Callable[[str, str], object]) -> Path:
        """Have the file carried into `rejected/`.

        The reason is written first: a run that dies in between leaves it without its file, and the next one writes over
        it.
        """
        folder = self.root.rejected
        folder.mkdir(parents=True, exist_ok=True)
        # No name needs to be claimed: only who holds the right to take files puts one here.
        aside = next(name for name in _names(folder / file.name, len(REASON_SUFFIX)) if not os.path.lexists(name))
        explanation = aside.with_name(aside.name + REASON_SUFFIX)
        text = f"{file.path.with_name(file.name)}\n{reason}\nMend the file and drop it again.\n"
        explanation.write_text(text, encoding="utf-8", errors="replace")
        try:
            carry(str(file.path), str(aside))
        except BaseException:
            explanation.unlink()
            raise
        return aside

    def with_plain_name(self, file: DroppedFile) -> DroppedFile:
        """Rename a file in its place where the name is not UTF-8, which no engine opens."""
        try:
            file.path.name.encode()
        except UnicodeEncodeError:
            return look_at(_move_beside(file.path, file.path.with_name(file.name)))
        return file

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the right to take files from this data root.

        Raises IngestRunningError where another process holds it.
        """
        try:
            lock = acquire_lock(self.root.ingest_lock)
        except LockHeldError:
            raise IngestRunningError(
                f"Another run is taking the files below {self.root}. Wait for it to end, then run again."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _settled(self, table: Table) -> list[DroppedFile]:
        latest = time.time_ns() - int(self.settle_seconds * 1e9)
        return [file for file in self.listing(table) if file.modified_ns <= latest]


def identity_of(path: Path) -> str:
    """Return the SHA-256 of the file's content, by which a file is known under any name."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def table_of(file: Path) -> Table:
    """Return the raw table whose columns all stand in the file's header.

    Raises BadFileError where none fits.
    """
    if not file.name.lower().endswith(SUFFIXES):
        raise BadFileError(f"its name ends neither in {' nor in '.join(SUFFIXES)}")
    found = {name.lower() for name in column_names(file)}
    fitting = [table for table in RAW_TABLES if {column.name for column in table.delivered} <= found]
    if len(fitting) == 1:
        return fitting[0]
    expected = "; ".join(f"{table.name}: {','.join(c.name for c in table.delivered)}" for table in RAW_TABLES)
    problem = "fits more than one table" if fitting else "fits no table"
    raise BadFileError(f"its header, {','.join(sorted(found))[:200]}, {problem}. Expected are {expected}")


def printable(name: str) -> str:
    """Return a file's name for people: bytes that are not UTF-8, line ends and other control characters replaced."""
    return "".join("\ufffd" if unicodedata.category(character) in CONTROLS else character for character in name)


def _is_csv(entry: os.DirEntry[str]) -> bool:
    return _is_named_csv(entry) and entry.is_file(follow_symlinks=False)


def _is_named_csv(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(NOT_LOOKED_AT) and entry.name.lower().endswith(SUFFIXES)


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "a symbolic link"
    return "a folder" if entry.is_dir() else "no regular file"


def _seen(paths: list[Path]) -> Iterator[DroppedFile]:
    for path in paths:
        try:
            yield look_at(path)
        except FileNotFoundError:
            continue


def _move_beside(source: Path, target: Path) -> Path:
    """Rename a file to the target, in the same folder, or to that name with a number; nothing is overwritten.

    The name is claimed by an empty file, which the renaming replaces: a hard link would do it in one step, but not
    every file system has them.
    """
    for claimed in _names(target):
        with suppress(FileExistsError):
            claimed.touch(exist_ok=False)
            break
    try:
        source.replace(claimed)
    except BaseException:
        claimed.unlink()
        raise
    return claimed


def _names(target: Path, room: int = 0) -> Iterator[Path]:
    """Yield the target, then with -2, -3 … before its suffix.

    Each is shortened to a name to which so many bytes can still be added.
    """
    longest = os.pathconf(target.parent, "PC_NAME_MAX") - room
    suffix = next((target.name[-len(end) :] for end in SUFFIXES if target.name.lower().endswith(end)), "")
    stem = target.name.removesuffix(suffix).encode()
    for number in count(1):
        ending = f"-{number}{suffix}" if number > 1 else suffix
        yield target.with_name(stem[: longest - len(ending)].decode(errors="ignore") + ending)


def _copy_durably(source: str, target: str) -> None:
    """Copy to another file system; the source is removed next, so the copy must be whole and on the disk."""
    with Path(source).open("rb") as file, durable_write(Path(target)) as copy:
        shutil.copyfileobj(file, copy)
    shutil.copystat(source, target)
