"""CSV files as they are delivered: their header, and the exact reading of files that are not flawless.

An engine reads a flawless file by itself, fast. Where it meets any defect, `read_exactly` decides, the same for every
engine: which rows there are, on which line each begins, and which of them are broken.
"""

import csv
import gzip
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from music_assets.tables import Table

WRONG_NUMBER_OF_FIELDS = "wrong number of fields"
BROKEN_QUOTING = "broken quoting"
INVALID_UTF8 = "invalid UTF-8"

GZIP_MAGIC = b"\x1f\x8b"
LONGEST_RECORD = 100
"""Lines that a row may spread over by quoted line breaks; an open quote that is not closed by then is broken."""
BATCH_ROWS = 50_000
SNIFFED_BYTES = 1 << 16


class BadFileError(Exception):
    """The file as a whole cannot be taken. The message is the reason."""


@dataclass(frozen=True)
class Header:
    """The columns of a file: for each, in the file's order, the table's column it is, or None for an unknown one."""

    columns: tuple[str | None, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """A row of a file as text: the line it begins on (the header is line 1), and what is broken, if anything is."""

    line: int
    raw_line: str
    fields: list[str]
    reason: str | None = None


def is_compressed(path: Path) -> bool:
    """Tell whether the file's name says gzip."""
    return path.name.lower().endswith(".gz")


def names_in_header(path: Path) -> list[str]:
    """Return the column names in the file's first line, trimmed.

    Raises BadFileError where the file is empty, not text, or unreadable.
    """
    try:
        with _open_bytes(path) as file:
            start = file.read(SNIFFED_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise BadFileError(f"unreadable: {_plain(error)}") from error
    if not start.strip():
        raise BadFileError("empty")
    if start.startswith(GZIP_MAGIC):
        raise BadFileError("not text: the file is gzip-compressed; name it .csv.gz")
    if b"\x00" in start:
        raise BadFileError("not text: it holds NUL bytes (UTF-16, perhaps; UTF-8 is expected)")
    lines = start.decode("utf-8-sig", errors="replace").splitlines(keepends=True)
    header = next((fields for fields in csv.reader(lines) if fields), [])
    return [name.strip() for name in header]


def read_header(path: Path, table: Table) -> Header:
    """Match the file's columns with the table's, by name, in any order, whatever the case.

    Raises BadFileError where a column of the table is missing or stands twice, or as names_in_header does.
    """
    found = names_in_header(path)
    known = {column.name: column.name for column in table.delivered}
    columns = tuple(known.get(name.lower()) for name in found)
    missing = [name for name in known if name not in columns]
    if missing:
        raise BadFileError(
            f"column {', '.join(missing)} missing from the header, which is: {', '.join(found)[:200]}. "
            f"Expected: {', '.join(known)}"
        )
    twice = [name for name in known if columns.count(name) > 1]
    if twice:
        raise BadFileError(f"column {', '.join(twice)} stands more than once in the header")
    return Header(columns, tuple(name for name, column in zip(found, columns, strict=True) if column is None))


def read_exactly(path: Path, header: Header, target: Path) -> None:
    """Write the rows of the file as text to the parquet file `target`.

    Its columns: the table's delivered ones, then `line`, `raw_line`, and `broken`, the reason why a row has no fields,
    or NULL. Raises BadFileError where the file cannot be read to its end.
    """
    names = [name for name in header.columns if name is not None]
    schema = pa.schema(
        [(name, pa.string()) for name in names]
        + [("line", pa.int64()), ("raw_line", pa.string()), ("broken", pa.string())]
    )
    places = [place for place, name in enumerate(header.columns) if name is not None]
    nothing = [None] * len(header.columns)
    try:
        with _open_text(path) as file, pq.ParquetWriter(target, schema, compression="zstd") as writer:
            rows = records(file, len(header.columns))
            next(rows, None)
            while batch := list(islice(rows, BATCH_ROWS)):
                fields = [row.fields if row.reason is None else nothing for row in batch]
                columns: list[list[Any]] = [[row[place] for row in fields] for place in places]
                columns += [[row.line for row in batch], [row.raw_line for row in batch], [row.reason for row in batch]]
                writer.write_table(
                    pa.Table.from_arrays(
                        [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)],
                        schema=schema,
                    )
                )
    except (OSError, EOFError, zlib.error) as error:
        raise BadFileError(f"unreadable: {_plain(error)}") from error


def records(lines: Iterable[str], width: int) -> Iterator[Record]:
    """Split physical lines into rows of `width` fields by RFC 4180; lines without any content are no rows.

    A row whose quoting is broken is its first line; the next line begins a new row, so that one stray quote costs one
    row. Bytes that are not UTF-8 must have been decoded with `surrogateescape`.
    """
    ahead: deque[str] = deque()
    source = iter(lines)
    number = 0
    while True:
        line = ahead.popleft() if ahead else next(source, None)
        if line is None:
            return
        number += 1
        if not line.strip("\r\n"):
            continue
        if '"' not in line:
            yield _record(number, line, line.rstrip("\r\n").split(","), width)
            continue
        fields, length = _quoted_fields(line, ahead, source)
        if fields is None:
            yield Record(number, _printable(line), [], _broken(line))
            continue
        text = line + "".join(ahead.popleft() for _ in range(length - 1))
        yield _record(number, text, fields, width)
        number += length - 1


def _quoted_fields(line: str, ahead: deque[str], source: Iterator[str]) -> tuple[list[str] | None, int]:
    """Return the fields of the row that begins with this line, and over how many lines it spreads; None: broken.

    Lines that had to be looked at are left in `ahead`.
    """
    text = line
    for length in range(1, LONGEST_RECORD + 1):
        if '"' in line:
            try:
                return next(csv.reader([text], strict=True)), length
            except csv.Error as error:
                if "unexpected end of data" not in str(error):
                    return None, 1
        if len(ahead) < length:
            following = next(source, None)
            if following is None:
                return None, 1
            ahead.append(following)
        line = ahead[length - 1]
        text += line
    return None, 1


def _record(number: int, text: str, fields: list[str], width: int) -> Record:
    raw_line = _printable(text)
    if not _is_utf8(text):
        return Record(number, raw_line, [], INVALID_UTF8)
    if len(fields) != width:
        return Record(number, raw_line, [], WRONG_NUMBER_OF_FIELDS)
    return Record(number, raw_line, fields)


def _broken(line: str) -> str:
    return BROKEN_QUOTING if _is_utf8(line) else INVALID_UTF8


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    line = text.rstrip("\r\n")
    return line if _is_utf8(line) else line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _open_bytes(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb") if is_compressed(path) else path.open("rb"))


def _open_text(path: Path) -> IO[str]:
    if is_compressed(path):
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")
    return path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="")


def _plain(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
