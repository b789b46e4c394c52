"""Redaction of text files: removes the rows that contain one of some numbers, for example user ids."""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from music_assets.data_root import durable_write

GZIP_MAGIC = b"\x1f\x8b\x08"
START_BYTES = 1 << 16
MAXIMUM_ROW_LINES = 100
"""Lines over which a quoted field may extend. With more lines, a quote is taken for a stray one."""
ARCHIVES = (b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")
"""First bytes of zip, zstd, bzip2, xz and 7z files."""


class UnsearchableError(Exception):
    """The file is an archive, or damaged, so that its rows cannot be read."""


def number_pattern(numbers: Iterable[int]) -> str:
    """Return a regular expression, for Python and Arrow, that finds a number as a field or word of its own.

    A letter, digit, underscore or hyphen next to it makes it a part of something else, such as a UUID or a negative
    number; leading zeros and a fraction do not.
    """
    return rf"(^|[^0-9A-Za-z_-])0*({'|'.join(map(str, numbers))})([^0-9A-Za-z_-]|$)"


def redact(path: Path, numbers: Sequence[int]) -> int:
    """Remove the rows that contain one of the numbers, and return how many were removed.

    The file is replaced atomically, and only if there are any. Raises UnsearchableError.
    """
    pattern = re.compile(number_pattern(numbers))
    found = count(path, numbers)
    if found:
        with _rows(path) as (rows, encoding, is_compressed), durable_write(path) as target:
            compressed = gzip.GzipFile("", "wb", fileobj=target, mtime=0) if is_compressed else None
            (compressed or target).writelines(row.encode(encoding) for row in rows if not pattern.search(row))
            if compressed:
                compressed.close()
    return found


def count(path: Path, numbers: Sequence[int]) -> int:
    """Return the number of rows that contain one of the numbers. Raises UnsearchableError."""
    pattern = re.compile(number_pattern(numbers))
    with _rows(path) as (rows, _, _):
        return sum(bool(pattern.search(row)) for row in rows)


@contextmanager
def _rows(path: Path) -> Iterator[tuple[Iterator[str], str, bool]]:
    """Open a file and yield its rows, its encoding, and whether it is compressed with gzip, whatever its name."""
    try:
        with path.open("rb") as raw:
            is_compressed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        with gzip.open(path, "rb") if is_compressed else path.open("rb") as file:
            start = file.read(START_BYTES)
            if start.startswith(ARCHIVES):
                raise UnsearchableError(f"{path} is an archive")
            file.seek(0)
            encoding = _encoding(start)
            yield _split(io.TextIOWrapper(cast(BinaryIO, file), encoding, newline="")), encoding, is_compressed
    except (EOFError, UnicodeDecodeError, gzip.BadGzipFile, zlib.error) as error:
        raise UnsearchableError(f"{path} is damaged: {error}") from error


def _encoding(start: bytes) -> str:
    """Return an encoding that keeps every byte: UTF-16, or else Latin-1, which has the digits and commas of UTF-8."""
    if start.startswith(codecs.BOM_UTF16_LE) or start[1:2] == b"\0":
        return "utf-16-le"
    if start.startswith(codecs.BOM_UTF16_BE) or start[:1] == b"\0":
        return "utf-16-be"
    return "latin-1"


def _split(lines: TextIO) -> Iterator[str]:
    """Yield the rows. A row with an open quote continues in the next lines."""
    pending: list[str] = []
    is_open = False
    for line in lines:
        pending.append(line)
        is_open ^= line.count('"') % 2 == 1
        if not is_open:
            yield "".join(pending)
            pending = []
        elif len(pending) > MAXIMUM_ROW_LINES:
            yield from pending
            pending, is_open = [], False
    yield from pending
