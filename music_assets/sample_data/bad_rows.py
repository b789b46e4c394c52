"""Rows that ingest has to reject, mixed into generated files."""

import csv
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from music_assets.sample_data.names import csv_field

Defect = tuple[int, bytes | None]
"""A column, and the bytes that replace its field in a good row; None removes the field."""

USER_DEFECTS: tuple[Defect, ...] = (
    (2, None),  # wrong number of fields
    (1, b'"Germany" (West)'),  # broken quoting
    (1, b"C\xf4te d'Ivoire"),  # invalid UTF-8
    (0, b"abc"),  # not an integer
    (0, b"2147483648"),  # out of range
    (0, b""),  # missing user_id
    (2, b"-1"),  # negative count
    (1, b"Congo, the Democratic Republic of the"),  # wrong number of fields
    (1, b'"Germany'),  # broken quoting
    (1, b"\xff\xfe"),  # invalid UTF-8
    (2, b"3.7"),  # not an integer
    (2, b"9223372036854775808"),  # out of range
    (2, b"1e3"),  # not an integer
    (2, b"12 plays"),  # not an integer
)
TOP_ARTIST_DEFECTS: tuple[Defect, ...] = (
    (4, None),  # wrong number of fields
    (2, b'"Weird Al" Yankovic'),  # broken quoting
    (2, b"Bj\xf6rk"),  # invalid UTF-8
    (3, b"3.7"),  # not an integer
    (3, b"9223372036854775808"),  # out of range
    (1, b"51"),  # rank outside 1 to 50
    (0, b""),  # missing user_id
    (2, b""),  # missing artist_name
    (3, b"-5"),  # negative count
    (2, b"Tyler, the Creator"),  # wrong number of fields
    (2, b'"Broken Quote'),  # broken quoting
    (2, b"Sigur R\xc3"),  # invalid UTF-8
    (3, b"abc"),  # not an integer
    (0, b"2147483648"),  # out of range
    (1, b"0"),  # rank outside 1 to 50
    (2, b"   "),  # missing artist_name
    (3, b"1e3"),  # not an integer
    (1, b"first"),  # not an integer
    (0, b"7.0"),  # not an integer
    (1, b"-1"),  # rank outside 1 to 50
)


class DirtyWriter:
    """Writes the lines of a file, with bad rows at random places between them; `share` is their share of all rows."""

    def __init__(self, file: BinaryIO, defects: Sequence[Defect], share: float) -> None:
        self.file = file
        self.defects = defects
        self.bad_per_good = share / (1 - share)
        self.good = 0
        self.bad = 0

    def write(self, lines: pa.Array, rng: np.random.Generator) -> None:
        """Write an array of good lines, each with its line feed, and the bad rows due by now."""
        _, offset_buffer, text = lines.buffers()
        offsets = np.frombuffer(offset_buffer, np.int32)
        self.good += len(lines)
        due = round(self.good * self.bad_per_good) - self.bad
        written = 0
        for place in np.sort(rng.integers(len(lines), size=due)).tolist():
            self.file.write(text[written : offsets[place]])
            written = offsets[place]
            self.file.write(_with_defect(lines[place].as_py(), self.defects[self.bad % len(self.defects)]))
            self.bad += 1
        self.file.write(text[written : offsets[len(lines)]])


def _with_defect(line: str, defect: Defect) -> bytes:
    column, replacement = defect
    (row,) = csv.reader([line])
    fields = [csv_field(field).encode() for field in row]
    fields[column : column + 1] = [] if replacement is None else [replacement]
    return b",".join(fields) + b"\n"
