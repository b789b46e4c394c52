"""Rows of a CSV file by RFC 4180, split from physical lines in memory. Reading the lines belongs to `exact_reader`."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

WRONG_NUMBER_OF_FIELDS = "wrong number of fields"
BROKEN_QUOTING = "broken quoting"
INVALID_UTF8 = "invalid UTF-8"
TOO_LONG = "line longer than 2,000,000 characters"
MAXIMUM_ROW_LENGTH = 2_000_000
"""Characters of a line without its line end, and of the lines over which a quoted field may extend."""
LONG_LINE_MARK = "\udc00"
"""First character of a line that was cut because it is too long; decoded text never contains it."""
SURROGATE = re.compile(r"[\udc00\udc80-\udcff]")
UNQUOTED = re.compile(r"[^,\r\n]*")
OPENING_QUOTE = re.compile(r' ?"')
QUOTED = re.compile(r'(?:[^"]++|"")*+')
CLOSING_QUOTE = re.compile(r'" *(?=[,\r\n]|\Z)')


class Record(NamedTuple):
    """A row as text: its first line (the header is line 1), and its fields, or the reason why it has none."""

    line: int
    raw_line: str
    fields: list[str] | None
    reason: str | None = None


def split_records(
    lines: list[str],
    positions: Iterable[int],
    next_lines: Iterator[list[str]],
    first_line: int = 1,
    width: int | None = None,
) -> Iterator[Record]:
    """Split the rows that begin at these positions in `lines`; each should have `width` fields.

    Lines that are empty, or have separators only, are skipped. Beyond RFC 4180, spaces around a quoted field do not
    belong to it, and quotes inside an unquoted field are text. A row with broken quoting ends with its first line, so
    that a stray quote costs one row. Bytes that are not UTF-8 must have been decoded with `surrogateescape`.

    `first_line` is the line number of `lines[0]`. Lines that belong to a returned row are emptied. Where a quoted field
    continues beyond the last line, lines from `next_lines` are appended.
    """
    for position in positions:
        text = lines[position].rstrip("\r\n")
        if not text.strip(","):
            continue
        if text.startswith(LONG_LINE_MARK):
            lines[position] = ""
            yield Record(first_line + position, _replace_surrogates(text[1:]), None, TOO_LONG)
            continue
        fields, length = _quoted_fields(lines, position, next_lines) if '"' in text else (text.split(","), 1)
        if length > 1:
            text = "".join(lines[position : position + length]).rstrip("\r\n")
        lines[position : position + length] = [""] * length
        yield _record(first_line + position, text, fields, width)


def _quoted_fields(lines: list[str], position: int, next_lines: Iterator[list[str]]) -> tuple[list[str] | None, int]:
    """Return the fields of a row, or None if its quoting is broken, and the number of lines it spans."""
    row = _QuotedRow(lines, position, next_lines)
    fields = row.fields()
    return (None, 1) if fields is None else (fields, row.length)


class _QuotedRow:
    """Splits one row that contains quotes, line by line."""

    def __init__(self, lines: list[str], position: int, next_lines: Iterator[list[str]]) -> None:
        self.lines = lines
        self.position = position
        self.next_lines = next_lines
        self.line = lines[position]
        self.length = 1
        self.characters = 0

    def fields(self) -> list[str] | None:
        """Return the fields, or None if the quoting is broken."""
        fields: list[str] = []
        start = 0
        while True:
            quote = self.line.find('"', start)
            if quote < 0:
                return fields + self.line[start:].rstrip("\r\n").split(",")
            comma = self.line.rfind(",", start, quote)
            if comma >= 0:
                fields += self.line[start:comma].split(",")
                start = comma + 1
            field = self._field(start)
            if field is None:
                return None
            text, end = field
            fields.append(text)
            if not self.line.startswith(",", end):
                return fields
            start = end + 1

    def _field(self, start: int) -> tuple[str, int] | None:
        """Return the field that starts there, and where it ends, maybe in a later line; None: broken quoting."""
        opening = OPENING_QUOTE.match(self.line, start)
        if opening is None:
            end = _match_end(UNQUOTED, self.line, start)
            return self.line[start:end], end
        start = opening.end()
        parts: list[str] = []
        while (end := _match_end(QUOTED, self.line, start)) == len(self.line):
            parts.append(self.line[start:])
            start = 0
            if not self._advance():
                return None
        closing = CLOSING_QUOTE.match(self.line, end)
        if closing is None:
            return None
        return "".join([*parts, self.line[start:end]]).replace('""', '"'), closing.end()

    def _advance(self) -> bool:
        """Go to the next line. False at the end of the file, and where the row becomes too long."""
        self.characters += len(self.line)
        following = self.position + self.length
        if following == len(self.lines):
            self.lines += next(self.next_lines, [])
        if following == len(self.lines) or self.characters >= MAXIMUM_ROW_LENGTH:
            return False
        self.line = self.lines[following]
        self.length += 1
        return not self.line.startswith(LONG_LINE_MARK)


def _match_end(pattern: re.Pattern[str], line: str, start: int) -> int:
    """Return where a pattern that matches everywhere, though maybe nothing, ends."""
    return cast(re.Match[str], pattern.match(line, start)).end()


def _record(line: int, text: str, fields: list[str] | None, width: int | None) -> Record:
    if not text.isascii() and (replaced := _replace_surrogates(text)) != text:
        return Record(line, replaced, None, INVALID_UTF8)
    if fields is None:
        return Record(line, text, None, BROKEN_QUOTING)
    if len(fields) != width and width is not None:
        return Record(line, text, None, WRONG_NUMBER_OF_FIELDS)
    return Record(line, text, fields)


def _replace_surrogates(text: str) -> str:
    """Replace bytes that were not UTF-8, which `surrogateescape` decoded into surrogates."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
