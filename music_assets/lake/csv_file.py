"""CSV files as they are delivered: their header, and the exact reading of files that are not flawless.

An engine reads a flawless file by itself, fast. Where it meets any defect, `read_exactly` decides, the same for every
engine: which rows there are, on which line each begins, and which of them are broken.
"""

import gzip
import io
import re
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from music_assets.tables import Table

WRONG_NUMBER_OF_FIELDS = "wrong number of fields"
BROKEN_QUOTING = "broken quoting"
INVALID_UTF8 = "invalid UTF-8"

GZIP_MAGIC = b"\x1f\x8b"
LONGEST_RECORD = 2_000_000
"""Characters over which a quote may stay open; one that is not closed by then is broken."""
BATCH_ROWS = 50_000
SNIFFED_BYTES = 1 << 16
READ_AT_ONCE = 1 << 20
UNQUOTED = re.compile(r"[^,\r\n]*")
OPENING_QUOTE = re.compile(r' ?"')
QUOTED = re.compile(r'(?:[^"]++|"")*+')
CLOSING_QUOTE = re.compile(r'" *(?=[,\r\n]|\Z)')


class BadFileError(Exception):
    """The file as a whole cannot be taken. The message is the reason."""


@dataclass(frozen=True)
class Header:
    """The columns of a file: for each, in the file's order, the table's column it is, or None for an unknown one."""

    columns: tuple[str | None, ...]
    unknown: tuple[str, ...]


class Record(NamedTuple):
    """A row of a file as text: the line it begins on (the header is line 1), and what is broken, if anything is."""

    line: int
    raw_line: str
    fields: list[str]
    reason: str | None = None


def is_compressed(path: Path) -> bool:
    """Tell whether the file's name says gzip."""
    return path.name.lower().endswith(".gz")


def check_compression(path: Path) -> None:
    """Read a compressed file to its end, where its checksum stands: engines do not compare it.

    Raises BadFileError where the file is cut off or damaged.
    """
    if is_compressed(path):
        with _readable(), _open_bytes(path) as file:
            while file.read(READ_AT_ONCE):
                pass


def names_in_header(path: Path) -> list[str]:
    """Return the column names in the file's first line, trimmed.

    Raises BadFileError where the file is empty, not text, or unreadable, or where its first line cannot be read.
    """
    with _readable(), _open_bytes(path) as file:
        start = file.read(SNIFFED_BYTES)
    if not start.strip():
        raise BadFileError("empty")
    if start.startswith(GZIP_MAGIC):
        raise BadFileError("not text: the file is gzip-compressed; name it .csv.gz")
    if b"\x00" in start:
        raise BadFileError("not text: it holds NUL bytes (UTF-16, perhaps; UTF-8 is expected)")
    if len(start) == SNIFFED_BYTES and not re.search(rb"[\r\n]", start.lstrip()):
        raise BadFileError(f"no header: the first line is longer than {SNIFFED_BYTES} bytes")
    header = next(records(io.StringIO(start.decode("utf-8-sig", errors="replace"), newline="")), None)
    if header is None:
        raise BadFileError("empty")
    if header.reason:
        raise BadFileError(f"the header cannot be read, {header.reason}: {header.raw_line[:200]}")
    return [name.strip() for name in header.fields]


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
    rows = records(_lines(path), len(header.columns))
    next(rows, None)
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        while batch := list(islice(rows, BATCH_ROWS)):
            lines, raw_lines, rows_of_fields, reasons = zip(*batch, strict=True)
            by_place = list(zip(*(fields or nothing for fields in rows_of_fields), strict=True))
            columns: list[Any] = [*(by_place[place] for place in places), lines, raw_lines, reasons]
            writer.write_table(
                pa.Table.from_arrays(
                    [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)],
                    schema=schema,
                )
            )


def records(lines: Iterable[str], width: int | None = None) -> Iterator[Record]:
    """Split physical lines into rows of `width` fields by RFC 4180; lines without any content are no rows.

    Beyond the RFC, spaces around a quoted field are no part of it, and quotes inside an unquoted one are text. A row
    whose quoting is broken is its first line; the next line begins a new row, so that one stray quote costs one row.
    Bytes that are not UTF-8 must have been decoded with `surrogateescape`.
    """
    ahead: deque[str] = deque()
    source = iter(lines)
    number = 0
    while True:
        line = ahead.popleft() if ahead else next(source, None)
        if line is None:
            return
        number += 1
        text = line.rstrip("\r\n")
        if not text:
            continue
        if '"' not in text:
            yield _record(number, text, text.split(","), width)
            continue
        fields, length = _quoted_fields(line, ahead, source)
        if length > 1:
            text = (line + "".join(ahead.popleft() for _ in range(length - 1))).rstrip("\r\n")
        yield _record(number, text, fields, width)
        number += length - 1


def _quoted_fields(line: str, ahead: deque[str], source: Iterator[str]) -> tuple[list[str] | None, int]:
    """Return the fields of the row that begins with this line, and over how many lines it spreads; None: broken.

    Lines that had to be looked at are left in `ahead`.
    """
    fields: list[str] = []
    length = 1
    characters = 0
    place = 0
    while True:
        opening = OPENING_QUOTE.match(line, place)
        if opening is None:
            end = _end(UNQUOTED, line, place)
            fields.append(line[place:end])
        else:
            place = opening.end()
            quoted: list[str] = []
            while (end := _end(QUOTED, line, place)) == len(line):
                quoted.append(line[place:])
                characters += len(line)
                following = _following(length, ahead, source) if characters < LONGEST_RECORD else None
                if following is None:
                    return None, 1
                line, place, length = following, 0, length + 1
            closing = CLOSING_QUOTE.match(line, end)
            if closing is None:
                return None, 1
            fields.append("".join([*quoted, line[place:end]]).replace('""', '"'))
            end = closing.end()
        if not line.startswith(",", end):
            return fields, length
        place = end + 1


def _end(pattern: re.Pattern[str], line: str, place: int) -> int:
    """Return where a pattern that fits everywhere, if only emptily, ends."""
    return cast(re.Match[str], pattern.match(line, place)).end()


def _following(length: int, ahead: deque[str], source: Iterator[str]) -> str | None:
    """Return the line that follows the first `length` ones of a row, None at the end of the file."""
    if len(ahead) < length:
        line = next(source, None)
        if line is None:
            return None
        ahead.append(line)
    return ahead[length - 1]


def _record(number: int, text: str, fields: list[str] | None, width: int | None) -> Record:
    """Return the row of this text and these fields; None: its quoting is broken."""
    if not text.isascii() and (printable := _without_surrogates(text)) != text:
        return Record(number, printable, [], INVALID_UTF8)
    if fields is None:
        return Record(number, text, [], BROKEN_QUOTING)
    if len(fields) != width and width is not None:
        return Record(number, text, [], WRONG_NUMBER_OF_FIELDS)
    return Record(number, text, fields)


def _without_surrogates(text: str) -> str:
    """Return the text with bytes that were not UTF-8, which stand in it as surrogates, replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _open_bytes(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb") if is_compressed(path) else path.open("rb"))


def _lines(path: Path) -> Iterator[str]:
    with _readable(), _open_bytes(path) as file:
        yield from io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


@contextmanager
def _readable() -> Iterator[None]:
    """Turn what goes wrong while a file is read into a BadFileError."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise BadFileError(f"unreadable: {getattr(error, 'strerror', None) or error}") from error
