"""A batch: dropped files of one table that are loaded in one transaction, and what each step finds out about them."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from music_assets.ingest.csv_header import CsvFile, is_compressed
from music_assets.ingest.identity import UNKNOWN_TIME, file_id, rejects_id, version_of
from music_assets.ingest.landing import DroppedFile
from music_assets.ingest.parser import ParsedFile
from music_assets.tables import Table

File = TypeVar("File")
BATCH_FILES = 1_000
BATCH_BYTES = 1 << 30
"""Maximum size of a batch, unless it is a single file."""
SMALL_FILE_BYTES = 1 << 20
FEWEST_TOGETHER = 20
"""Number of small files from which on they are parsed together; fewer are parsed one by one within seconds."""
TOGETHER_BYTES = 1 << 24
"""Bytes of CSV that are parsed together, whose rows are in memory as text."""


@dataclass(eq=False)
class BatchFile:
    """A file of a batch: hashed first, then, if its content is new, matched with the table and parsed."""

    dropped: DroppedFile
    problem: str = ""
    """Why the file cannot be loaded."""
    content_hash: str = ""
    loaded_version: int = 0
    """Transaction version of the content's latest load; 0 if there is none, or if it was retracted."""
    was_loaded: bool = False
    """Whether this very file was loaded, by a run that could not delete it, or died before."""
    is_repeat: bool = False
    """Whether the table holds what the file says, so that it must not be loaded."""
    original: "BatchFile" = field(init=False)
    """The file of the batch with the same content that counts."""
    csv_file: CsvFile = field(init=False)
    rejects_version: int = 0
    """Transaction version of the rejected rows; 0 if there is none."""
    parsed: ParsedFile | None = None

    def __post_init__(self) -> None:
        self.original = self

    @property
    def file_id(self) -> str:
        """The transaction id of the file."""
        return file_id(self.dropped, self.content_hash)

    @property
    def rejects_id(self) -> str:
        """The transaction id of the rejected rows."""
        return rejects_id(self.csv_file.table.name, self.content_hash)

    @property
    def version(self) -> int:
        """The transaction version of the rows, if the file is loaded."""
        return version_of(self.csv_file.ingested_at)

    @property
    def rejects_committed(self) -> bool:
        """Whether the rejected rows were committed before, by a run that died before it committed the rows."""
        return self.rejects_version > self.loaded_version

    @property
    def is_known(self) -> bool:
        """Whether the content was loaded, and when is known."""
        return self.loaded_version > UNKNOWN_TIME

    @property
    def is_small(self) -> bool:
        """Whether the rows fit into memory together with those of other files; a compressed file may have any size."""
        return self.dropped.size <= SMALL_FILE_BYTES and not is_compressed(self.dropped.path)


@dataclass
class Batch:
    """Dropped files of one table."""

    table: Table
    files: list[BatchFile]
    log: logging.Logger

    @property
    def new(self) -> list[BatchFile]:
        """The files to load, one for each content."""
        return [file for file in self.files if file.original is file and not file.is_repeat and not file.problem]

    @property
    def repeats(self) -> list[BatchFile]:
        """The files whose content the table holds."""
        return [file for file in self.files if file.original.is_repeat]

    def cut(self) -> "Batch | None":
        """Cut the batch before the first file that follows new ones and whose content is not new; return the rest.

        Only once the new files are loaded is it known whether the table holds what that file says. Copies that follow
        each other stay together. Returns None if there is no such file. The files must be hashed.
        """
        readable = [file for file in self.files if not file.problem and not file.was_loaded]
        new: set[str] = set()
        previous = ""
        for file in readable:
            if new and file.content_hash != previous and (file.is_known or file.content_hash in new):
                place = self.files.index(file)
                rest = Batch(self.table, self.files[place:], self.log)
                del self.files[place:]
                return rest
            if not file.is_known:
                new.add(file.content_hash)
            previous = file.content_hash
        return None

    @property
    def loaded(self) -> dict[BatchFile, ParsedFile]:
        """The files that were parsed."""
        return {file: file.parsed for file in self.files if file.parsed}

    def groups(self) -> list[list[BatchFile]]:
        """Divide the new files into groups to parse together: many small files, or one.

        The rejected rows of a group share parquet files. So files whose rejected rows were committed before are not in
        a group with others.
        """
        new = self.new
        small = [file for file in new if file.is_small]
        if len(small) < FEWEST_TOGETHER:
            return [[file] for file in new]
        groups = [[file] for file in new if not file.is_small]
        for committed in (False, True):
            alike = [file for file in small if file.rejects_committed == committed]
            groups += _split(alike, lambda file: file.dropped.size, TOGETHER_BYTES)
        return groups


def split_into_batches(files: Iterable[DroppedFile]) -> list[list[DroppedFile]]:
    """Divide files into batches, in their order."""
    return list(_split(files, lambda file: file.size, BATCH_BYTES))


def _split(files: Iterable[File], size: Callable[[File], int], maximum_bytes: int) -> Iterator[list[File]]:
    part: list[File] = []
    total = 0
    for file in files:
        total += size(file)
        if part and (len(part) == BATCH_FILES or total > maximum_bytes):
            yield part
            part, total = [], size(file)
        part.append(file)
    if part:
        yield part
