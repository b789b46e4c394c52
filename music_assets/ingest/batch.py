"""A batch: dropped files of one table that are loaded in one transaction, and what is known of them so far."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import compress
from typing import TypeVar

from music_assets.ingest.csv_header import CsvFile, is_compressed
from music_assets.ingest.landing import DroppedFile
from music_assets.ingest.parser import ParsedFile
from music_assets.ingest.report import FileReport, Outcome
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


@dataclass(frozen=True)
class NewFile:
    """A file whose content the table does not have, and whose header matches the table."""

    dropped: DroppedFile
    content_hash: str
    csv_file: CsvFile

    @property
    def rejects_id(self) -> str:
        """The id under which its rejected rows are committed, to a table that all raw tables share."""
        return f"{self.csv_file.table.name}:{self.content_hash}"

    @property
    def is_small(self) -> bool:
        """Whether its rows fit into memory together with those of others; compressed, it might have any size."""
        return self.dropped.size <= SMALL_FILE_BYTES and not is_compressed(self.dropped.path)


@dataclass(frozen=True)
class LoadedFile:
    """A file that was parsed."""

    file: NewFile
    parsed: ParsedFile

    @property
    def report(self) -> FileReport:
        """What becomes of the file once it is committed."""
        unknown = self.file.csv_file.header.unknown
        return FileReport(
            name=self.file.dropped.name,
            outcome=Outcome.LOADED,
            bytes=self.file.dropped.size,
            rows=self.parsed.rows,
            rejects=self.parsed.rejects,
            duplicates=self.parsed.duplicates,
            note=f"unknown columns ignored: {', '.join(unknown)}" if unknown else "",
        )


@dataclass
class Batch:
    """The files of a batch on their way: hashed, then matched with the table, then parsed."""

    table: Table
    files: list[DroppedFile]
    log: logging.Logger
    hashes: dict[DroppedFile, str] = field(default_factory=dict)
    """Content hash of each readable file."""
    committed: set[str] = field(default_factory=set)
    """Those content hashes that the table had before."""
    bad: dict[DroppedFile, str] = field(default_factory=dict)
    """Files that cannot be loaded, with the reason."""
    new: list[NewFile] = field(default_factory=list)
    committed_rejects: set[str] = field(default_factory=set)
    """Those ids of rejected rows that were committed before."""
    loaded: list[LoadedFile] = field(default_factory=list)

    def originals(self) -> dict[str, DroppedFile]:
        """Return the first file of each content that the table did not have before."""
        originals: dict[str, DroppedFile] = {}
        for file, content_hash in self.hashes.items():
            if content_hash not in self.committed:
                originals.setdefault(content_hash, file)
        return originals

    def groups(self) -> list[list[NewFile]]:
        """Divide the new files into groups to parse together: many small files, or one.

        The rejected rows of a group share parquet files. So files whose rejected rows are committed already are never
        in a group with others.
        """
        small = [file.is_small for file in self.new]
        if sum(small) < FEWEST_TOGETHER:
            return [[file] for file in self.new]
        groups = [[file] for file in self.new if not file.is_small]
        for committed in (False, True):
            alike = [file for file in compress(self.new, small) if self._has_rejects(file) == committed]
            groups += _split(alike, lambda file: file.dropped.size, TOGETHER_BYTES)
        return groups

    def _has_rejects(self, file: NewFile) -> bool:
        return file.rejects_id in self.committed_rejects


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
