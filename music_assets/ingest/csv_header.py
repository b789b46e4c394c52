"""CSV files up to their header: opening them, compressed or not, and matching their columns with a table's."""

import codecs
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

from music_assets.ingest.characters import escaped, trimmed
from music_assets.ingest.csv_records import split_records
from music_assets.ingest.file_kinds import GZIP, problem_of_content
from music_assets.tables import RAW_TABLES, Table

MAXIMUM_EXPANSION = 200
"""CSV files compress to a tenth, very uniform ones to a hundredth, decompression bombs to a thousandth."""
ALWAYS_ALLOWED_BYTES = 64 << 20
"""Uncompressed size up to which the expansion does not matter."""
HEADER_BYTES = 1 << 16
SHOWN_CHARACTERS = 200
READ_BYTES = 1 << 20
BYTE_ORDER_MARK = "\ufeff"
SAMPLE_BYTES = 64
UTF8 = "utf-8"
DELIVERED = frozenset(column.name for table in RAW_TABLES for column in table.delivered)
SEPARATORS = {";": "';'", "\t": "a tab", "|": "'|'"}
EXCEL_SEPARATOR = re.compile(r"(?i)\"?sep=(.)\"?,*")
"""First line that sets the separator for Excel."""


class BadFileError(Exception):
    """The file as a whole cannot be loaded. The message is the reason."""


@dataclass(frozen=True)
class FirstRow:
    """The fields of a file's first row, without invisible characters at their ends, and the row as written."""

    names: tuple[str, ...]
    raw_line: str

    @property
    def lower_names(self) -> set[str]:
        """The fields in lower case."""
        return {name.lower() for name in self.names}

    @property
    def shown(self) -> str:
        """The start of the row for a message."""
        return escaped(self.raw_line[:SHOWN_CHARACTERS])


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

    Raises BadFileError if a column of the table is missing or repeated, and where `first_row` does.
    """
    return _match(first_row(path), table)


def target_table(path: Path, encoding: str = UTF8) -> Table:
    """Return the raw table whose columns are all in the file's header.

    Raises BadFileError if that is not exactly one table, and where `read_header` does.
    """
    row = first_row(path, encoding)
    found = {table: sum(column.name in row.lower_names for column in table.delivered) for table in RAW_TABLES}
    fitting = [table for table in RAW_TABLES if found[table] == len(table.delivered)]
    closest = max(RAW_TABLES, key=lambda table: found[table])
    if len(fitting) > 1 or not found[closest]:
        expected = "; ".join(f"{table.name}: {','.join(c.name for c in table.delivered)}" for table in RAW_TABLES)
        problem = "fits more than one table" if fitting else "fits no table"
        raise BadFileError(f"the header, which is: {row.shown}, {problem}. Expected: {expected}")
    return _match(row, closest).table


def first_row(path: Path, encoding: str = UTF8) -> FirstRow:
    """Return the first row of a CSV file.

    Raises BadFileError if the file is empty, not text, or unreadable, or if its first row cannot be a header.
    """
    text = _start(path, encoding)
    lines = io.StringIO(text, newline="").readlines()
    record = next(split_records(lines, range(len(lines)), iter(())), None)
    if record is None:
        raise BadFileError("empty")
    row = FirstRow(tuple(trimmed(name) for name in record.fields or ()), record.raw_line)
    if record.fields is None:
        raise BadFileError(f"the header cannot be read, {record.reason}: {row.shown}")
    if not row.lower_names & DELIVERED:
        _check_separator(row)
    return row


def _start(path: Path, encoding: str) -> str:
    """Return the first characters of the file. Raises BadFileError if these are no lines of text."""
    with open_csv(path) as file:
        start = file.read(HEADER_BYTES)
    if not start.strip():
        raise BadFileError("empty")
    problem = problem_of_content(start)
    if problem == GZIP and is_compressed(path):
        raise BadFileError("compressed twice with gzip: decompress it once")
    if problem:
        raise BadFileError(f"not text: {problem}")
    if encoding == UTF8:
        _check_utf8(start)
    if len(start) == HEADER_BYTES and not re.search(rb"[\r\n]", start.lstrip()):
        raise BadFileError(f"no header: the first line is longer than {HEADER_BYTES} bytes")
    try:
        return codecs.getincrementaldecoder(encoding)("replace").decode(start).removeprefix(BYTE_ORDER_MARK)
    except UnicodeError as error:
        raise BadFileError(f"not {encoding}: {error}") from None


def _check_utf8(start: bytes) -> None:
    if encoding := _utf16(start):
        raise BadFileError(
            f"not UTF-8 but UTF-16: export it as UTF-8, or set MUSIC_ASSETS_ENCODING={encoding} and drop it again"
        )
    if b"\x00" in start:
        raise BadFileError("not text: it contains NUL bytes")


def _utf16(start: bytes) -> str | None:
    """Return the encoding if the text looks like UTF-16: every other byte of ASCII characters is zero."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = start[:SAMPLE_BYTES:2], start[1:SAMPLE_BYTES:2]
    if all(even) and odd and not any(odd):
        return "utf-16-le"
    return "utf-16-be" if all(odd) and not any(even) else None


def _check_separator(row: FirstRow) -> None:
    """Raise BadFileError if the first line, in which no column was found, is of a known kind."""
    line = trimmed(row.raw_line)
    if line.startswith("#"):
        raise BadFileError(f"the first line is a comment: {row.shown}. Delete it; the header must be the first line")
    declared = EXCEL_SEPARATOR.fullmatch(line)
    if declared and declared[1] == ",":
        raise BadFileError(
            f"the first line is only for Excel: {row.shown}. Delete it; the header must be the first line"
        )
    for separator, name in SEPARATORS.items():
        found = {trimmed(field).strip('"').lower() for field in line.split(separator)} & DELIVERED
        if len(found) > 1 or (declared and declared[1] == separator):
            raise BadFileError(f"the separator looks like {name}: export with commas. The first line is: {row.shown}")


def _match(row: FirstRow, table: Table) -> Header:
    known = [column.name for column in table.delivered]
    columns = tuple(name.lower() if name.lower() in known else None for name in row.names)
    missing = [name for name in known if name not in columns]
    if missing:
        raise BadFileError(
            f"column {', '.join(missing)} missing from the header, which is: {row.shown}. Expected: {', '.join(known)}"
        )
    repeated = [name for name in known if columns.count(name) > 1]
    if repeated:
        raise BadFileError(f"column {', '.join(repeated)} appears more than once in the header, which is: {row.shown}")
    unknown = (name for name, column in zip(row.names, columns, strict=True) if column is None)
    return Header(table, columns, tuple(escaped(name) or '""' for name in unknown))
