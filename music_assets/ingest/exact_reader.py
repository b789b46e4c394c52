"""CSV files as they are delivered: their header, and the exact reading of files that are not flawless.

An engine reads a flawless file by itself, fast. Where it meets any defect, `read_exactly` decides, the same for every
engine: which rows there are, on which line each begins, and which of them are broken.
"""

import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from music_assets.tables import Table

WRONG_NUMBER_OF_FIELDS = "wrong number of fields"
BROKEN_QUOTING = "broken quoting"
INVALID_UTF8 = "invalid UTF-8"
TOO_LONG = "line longer than 2,000,000 characters"

GZIP_MAGIC = b"\x1f\x8b"
MOST_EXPANSION = 200
"""A compressed CSV file shrinks to a tenth, a very uniform one to a hundredth; a bomb to a thousandth."""
ALWAYS_EXPANDED = 64 << 20
"""Bytes to which every file may expand."""
LONGEST_RECORD = 2_000_000
"""Characters of a line, without its end; also those over which a quote may stay open: it is broken otherwise."""
KEPT_OF_LONG_LINE = 1_000
LONG_LINE = "\udc00"
"""Stands before what is kept of a line that is too long: no text that was decoded holds it."""
SNIFFED_BYTES = 1 << 16
READ_AT_ONCE = 1 << 20
CHARACTERS_IN_BLOCK = 1 << 22
"""Read and split at once; more than SNIFFED_BYTES, so that the header stands in the first block."""
SURROGATE = re.compile(r"[\udc00\udc80-\udcff]")
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
    """A row of a file as text: the line it begins on (the header is line 1), and its fields, or why it has none."""

    line: int
    raw_line: str
    fields: list[str] | None
    reason: str | None = None


ROWS = pa.schema(
    [("line", pa.int64()), ("raw_line", pa.string()), ("fields", pa.list_(pa.string())), ("reason", pa.string())]
)
"""Records as a table."""


def is_compressed(path: Path) -> bool:
    """Tell whether the file's name says gzip."""
    return path.name.lower().endswith(".gz")


def size_of(path: Path) -> int:
    """Return the bytes that the file takes. Raises BadFileError where it is gone."""
    with _readable():
        return path.stat().st_size


def check_compression(path: Path) -> None:
    """Read a compressed file to its end, where its checksum stands: engines do not compare it.

    Raises BadFileError where the file is cut off or damaged, or expands so much that it must be a bomb.
    """
    if is_compressed(path):
        with opened(path) as file:
            most = max(ALWAYS_EXPANDED, MOST_EXPANSION * path.stat().st_size)
            expanded = 0
            while block := file.read(READ_AT_ONCE):
                expanded += len(block)
                if expanded > most:
                    raise BadFileError(
                        f"expands to more than {MOST_EXPANSION} times its size. If it is meant to, drop it uncompressed"
                    )


def may_hold_long_line(path: Path) -> bool:
    """Tell whether half of LONGEST_RECORD bytes stand somewhere without a line end, as in each line that is too long.

    For an engine that would hold a line of any length in memory whole. Raises BadFileError where the file is
    unreadable.
    """
    length = LONGEST_RECORD // 2
    with opened(path) as file:
        while block := file.read(length):
            if len(block) == length and b"\n" not in block:
                return True
    return False


def names_in_header(path: Path) -> list[str]:
    """Return the column names in the file's first line, trimmed.

    Raises BadFileError where the file is empty, not text, or unreadable, or where its first line cannot be read.
    """
    header = header_record(path)
    if header.fields is None:
        raise BadFileError(f"the header cannot be read, {header.reason}: {header.raw_line[:200]}")
    return [name.strip() for name in header.fields]


def header_record(path: Path) -> Record:
    """Return the file's first row, as text; bytes in it that are not UTF-8 are replaced.

    Raises BadFileError where the file is empty, not text, or unreadable.
    """
    with opened(path) as file:
        start = file.read(SNIFFED_BYTES)
    if not start.strip():
        raise BadFileError("empty")
    if start.startswith(GZIP_MAGIC):
        raise BadFileError("not text: the file is gzip-compressed; name it .csv.gz")
    if b"\x00" in start:
        raise BadFileError("not text: it holds NUL bytes (UTF-16, perhaps; UTF-8 is expected)")
    if len(start) == SNIFFED_BYTES and not re.search(rb"[\r\n]", start.lstrip()):
        raise BadFileError(f"no header: the first line is longer than {SNIFFED_BYTES} bytes")
    lines = io.StringIO(start.decode("utf-8-sig", errors="replace"), newline="").readlines()
    header = next(records(lines, range(len(lines)), iter(())), None)
    if header is None:
        raise BadFileError("empty")
    return header


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
    """Write the rows of the file as text, as `texts` returns them, to the parquet file `target`.

    Raises BadFileError where the file cannot be read to its end.
    """
    names = [name for name in header.columns if name is not None]
    with pq.ParquetWriter(target, _text_schema(header), compression="zstd", use_dictionary=names) as writer:
        for rows in texts(path, header):
            writer.write_table(rows)


def read_at_once(path: Path, header: Header) -> pa.Table:
    """Return all rows of the file as text, as `texts` does."""
    return pa.concat_tables([_text_schema(header).empty_table(), *texts(path, header)])


def texts(path: Path, header: Header) -> Iterator[pa.Table]:
    """Return the rows of the file as text, some at a time, in no order.

    Their columns: the table's delivered ones, then `line`, `raw_line`, and `broken`, the reason why a row has no
    fields, or NULL. Raises BadFileError where the file cannot be read to its end.
    """
    places = [place for place, name in enumerate(header.columns) if name is not None]
    for rows in _rows(_blocks(path), len(header.columns)):
        fields = [pc.list_element(rows["fields"], place) for place in places]
        yield pa.table([*fields, rows["line"], rows["raw_line"], rows["reason"]], schema=_text_schema(header))


def _text_schema(header: Header) -> pa.Schema:
    return pa.schema(
        [(name, pa.string()) for name in header.columns if name is not None]
        + [("line", pa.int64()), ("raw_line", pa.string()), ("broken", pa.string())]
    )


def _rows(blocks: Iterator[list[str]], width: int) -> Iterator[pa.Table]:
    """Split blocks of lines into the rows below the header: tables of ROWS, each in no order.

    One by one are read only lines with a quote or with bytes that are not UTF-8, which no Arrow array takes.
    """
    lines = next(blocks, [])
    next(records(lines, range(len(lines)), blocks), None)
    number = 1
    while lines:
        length = len(lines)
        special = [
            place
            for place, line in enumerate(lines)
            if '"' in line or (not line.isascii() and SURROGATE.search(line) is not None)
        ]
        others = list(records(lines, special, blocks, number, width))
        columns = [pa.array([row[place] for row in others], field.type) for place, field in enumerate(ROWS)]
        yield pa.concat_tables([_plain_rows(lines[:length], number, width), pa.table(columns, schema=ROWS)])
        number += length
        lines = lines[length:] or next(blocks, [])


def _plain_rows(lines: list[str], number: int, width: int) -> pa.Table:
    """Split lines without quotes into rows as `records` does, all at once; the first line has this number."""
    texts = pc.ascii_rtrim(pa.array(lines, pa.string()), "\r\n")
    filled = pc.not_equal(texts, "")
    numbers = pa.arange(number, number + len(lines)).filter(filled)
    texts = texts.filter(filled)
    fields = pc.split_pattern(texts, ",")
    whole = pc.equal(pc.list_value_length(fields), width)
    return pa.table(
        [numbers, texts, pc.if_else(whole, fields, None), pc.if_else(whole, None, WRONG_NUMBER_OF_FIELDS)], schema=ROWS
    )


def records(
    lines: list[str], places: Iterable[int], more: Iterator[list[str]], number: int = 1, width: int | None = None
) -> Iterator[Record]:
    """Take the rows of `width` fields that begin at these places out of physical lines, by RFC 4180.

    Lines without any content are no rows. Beyond the RFC, spaces around a quoted field are no part of it, and quotes
    inside an unquoted one are text. A row whose quoting is broken is its first line; the next line begins a new row, so
    that one stray quote costs one row. Bytes that are not UTF-8 must have been decoded with `surrogateescape`.

    `number` is that of the first line. Lines taken are left empty; those that a quoted field needs beyond the last are
    fetched from `more` and appended.
    """
    for place in places:
        text = lines[place].rstrip("\r\n")
        if not text:
            continue
        if text.startswith(LONG_LINE):
            lines[place] = ""
            yield Record(number + place, _without_surrogates(text[1:]), None, TOO_LONG)
            continue
        fields, length = _quoted_fields(lines, place, more) if '"' in text else (text.split(","), 1)
        if length > 1:
            text = "".join(lines[place : place + length]).rstrip("\r\n")
        lines[place : place + length] = [""] * length
        yield _record(number + place, text, fields, width)


def _quoted_fields(lines: list[str], first: int, more: Iterator[list[str]]) -> tuple[list[str] | None, int]:
    """Return the fields of the row that begins at `first`, and over how many lines it spreads; None: broken.

    Where the lines do not suffice, further ones are appended.
    """
    line = lines[first]
    fields: list[str] = []
    length = 1
    characters = 0
    place = 0
    while True:
        quote = line.find('"', place)
        if quote < 0:
            return fields + line[place:].rstrip("\r\n").split(","), length
        comma = line.rfind(",", place, quote)
        if comma >= 0:
            fields += line[place:comma].split(",")
            place = comma + 1
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
                if first + length == len(lines):
                    lines += next(more, [])
                if first + length == len(lines) or characters >= LONGEST_RECORD:
                    return None, 1
                line, place, length = lines[first + length], 0, length + 1
                if line.startswith(LONG_LINE):
                    return None, 1
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


def _record(number: int, text: str, fields: list[str] | None, width: int | None) -> Record:
    """Return the row of this text and these fields; None: its quoting is broken."""
    if not text.isascii() and (printable := _without_surrogates(text)) != text:
        return Record(number, printable, None, INVALID_UTF8)
    if fields is None:
        return Record(number, text, None, BROKEN_QUOTING)
    if len(fields) != width and width is not None:
        return Record(number, text, None, WRONG_NUMBER_OF_FIELDS)
    return Record(number, text, fields)


def _without_surrogates(text: str) -> str:
    """Return the text with bytes that were not UTF-8, which stand in it as surrogates, replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """Open the file, uncompressed. Raises BadFileError where it cannot be opened, or within, read on."""
    with _readable(), gzip.open(path, "rb") if is_compressed(path) else path.open("rb") as file:
        yield cast(io.BufferedReader, file)


def _blocks(path: Path) -> Iterator[list[str]]:
    """Read the file's lines, with their ends, a few million characters at a time, however long a line is."""
    with opened(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        rest, cut = "", 0
        ended = False
        while not ended:
            block = text.read(CHARACTERS_IN_BLOCK)
            ended = len(block) < CHARACTERS_IN_BLOCK
            lines = io.StringIO(rest + block, newline="").readlines()
            rest = "" if ended else lines.pop()
            if lines:
                yield _without_long_lines(lines, cut)
                cut = 0
            if len(rest) > LONGEST_RECORD and not rest.endswith(("\r", "\n")):
                cut += len(rest) - LONGEST_RECORD - 1
                rest = rest[: LONGEST_RECORD + 1]


def _without_long_lines(lines: list[str], cut: int) -> list[str]:
    """Return the lines with only the start of those that are too long; `cut` characters of the first are gone."""
    if max(map(len, lines)) <= LONGEST_RECORD:
        return lines
    lengths = [len(line.rstrip("\r\n")) for line in lines]
    lengths[0] += cut
    return [
        f"{LONG_LINE}{line[:KEPT_OF_LONG_LINE]} … ({length:,} characters)\n" if length > LONGEST_RECORD else line
        for line, length in zip(lines, lengths, strict=True)
    ]


@contextmanager
def _readable() -> Iterator[None]:
    """Turn what goes wrong while a file is read into a BadFileError."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise BadFileError(f"unreadable: {getattr(error, 'strerror', None) or error}") from error
