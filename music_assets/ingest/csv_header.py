"""CSV files up to their header: opening them, compressed or not, and matching their columns with a table's."""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

from music_assets.ingest.csv_records import Record, split_records
from music_assets.tables import Table

GZIP_MAGIC = b"\x1f\x8b"
MAXIMUM_EXPANSION = 200
"""CSV files compress to a tenth, very uniform ones to a hundredth, decompression bombs to a thousandth."""
ALWAYS_ALLOWED_BYTES = 64 << 20
"""Uncompressed size up to which the expansion does not matter."""
HEADER_BYTES = 1 << 16
READ_BYTES = 1 << 20


class BadFileError(Exception):
    """The file as a whole cannot be loaded. The message is the reason."""


@dataclass(frozen=True)
class Header:
    """The columns of a CSV file for a table, in the order of the file, with None for each unknown column."""

    table: Table
    columns: tuple[str | None, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class CsvFile:
    """A CSV file to parse, and the values of `source_file` and `ingested_at` for its rows."""

    path: Path
    header: Header
    source_file: str
    ingested_at: datetime

    @property
    def table(self) -> Table:
        """The table that the rows are for."""
        return self.header.table


def is_compressed(path: Path) -> bool:
    """Return whether the file's name says that it is a gzip file."""
    return path.name.lower().endswith(".gz")


@contextmanager
def open_csv(path: Path) -> Iterator[io.BufferedReader]:
    """Open the file and decompress it. Raises BadFileError, also while it is read, if it is unreadable or damaged."""
    try:
        with gzip.open(path, "rb") if is_compressed(path) else path.open("rb") as file:
            yield cast(io.BufferedReader, file)
    except (OSError, EOFError, zlib.error) as error:
        raise BadFileError(f"unreadable: {getattr(error, 'strerror', None) or error}") from error


def check_compression(path: Path) -> None:
    """Read a compressed file to its end, where its checksum is, which the fast reader ignores.

    Raises BadFileError if the file is truncated or damaged, or a decompression bomb.
    """
    if not is_compressed(path):
        return
    with open_csv(path) as file:
        maximum = max(ALWAYS_ALLOWED_BYTES, MAXIMUM_EXPANSION * path.stat().st_size)
        expanded = 0
        while block := file.read(READ_BYTES):
            expanded += len(block)
            if expanded > maximum:
                raise BadFileError(
                    f"expands to more than {MAXIMUM_EXPANSION} times its size. If it should, drop it uncompressed"
                )


def read_header(path: Path, table: Table) -> Header:
    """Match the columns of the file with those of the table: by name, in any order, ignoring case.

    Raises BadFileError if a column of the table is missing or repeated, and where `column_names` does.
    """
    found = column_names(path)
    known = {column.name: column.name for column in table.delivered}
    columns = tuple(known.get(name.lower()) for name in found)
    missing = [name for name in known if name not in columns]
    if missing:
        raise BadFileError(
            f"column {', '.join(missing)} missing from the header, which is: {', '.join(found)[:200]}. "
            f"Expected: {', '.join(known)}"
        )
    repeated = [name for name in known if columns.count(name) > 1]
    if repeated:
        raise BadFileError(f"column {', '.join(repeated)} appears more than once in the header")
    unknown = tuple(name for name, column in zip(found, columns, strict=True) if column is None)
    return Header(table, columns, unknown)


def column_names(path: Path) -> list[str]:
    """Return the column names in the header, without surrounding blanks.

    Raises BadFileError if the file is empty, not text, or unreadable, or if its first row cannot be split into fields.
    """
    header = _first_record(path)
    if header.fields is None:
        raise BadFileError(f"the header cannot be read, {header.reason}: {header.raw_line[:200]}")
    return [name.strip() for name in header.fields]


def _first_record(path: Path) -> Record:
    with open_csv(path) as file:
        start = file.read(HEADER_BYTES)
    if not start.strip():
        raise BadFileError("empty")
    if start.startswith(GZIP_MAGIC):
        raise BadFileError("not text: the file is gzip-compressed; name it .csv.gz")
    if b"\x00" in start:
        raise BadFileError("not text: it contains NUL bytes (UTF-16, perhaps; UTF-8 is expected)")
    if len(start) == HEADER_BYTES and not re.search(rb"[\r\n]", start.lstrip()):
        raise BadFileError(f"no header: the first line is longer than {HEADER_BYTES} bytes")
    lines = io.StringIO(start.decode("utf-8-sig", errors="replace"), newline="").readlines()
    header = next(split_records(lines, range(len(lines)), iter(())), None)
    if header is None:
        raise BadFileError("empty")
    return header
