"""Properties of the exact CSV reader for any bytes. Python's csv module is the oracle where its rules are the same."""

import csv
import io
import re
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq

from music_assets.ingest.csv_header import BadFileError, CsvFile, read_header
from music_assets.ingest.exact_reader import write_text
from music_assets.tables import USER_DATA

HEADER = b"user_id,country,total_scrobbles\n"
HEADERS = [HEADER, b'"user_id" ,x,COUNTRY,total_scrobbles\r\n', b"\xef\xbb\xbf" + HEADER]
PIECES = [
    b",",
    b'"',
    b'""',
    b"\n",
    b"\r\n",
    b"\r",
    b" ",
    b"1",
    b"x",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xc3\xa9",
    b"\0",
    b"-",
]
"""Pieces of which fuzzed files consist, mostly: what the reader has rules for."""
DIFFERENT_RULES = re.compile(r'(^|[,\r\n]) "|" +([,\r\n]|$)|(^|[\r\n]),+([\r\n]|$)')
"""Spaces around a quoted field, and lines of commas only: ignored by the reader, not by the csv module."""
LINE_ENDS = re.compile(r"\r\n|\r|\n")

csv.field_size_limit(1 << 30)


def check(path: Path, content: bytes) -> int:
    """Read these bytes as a file of users and check the rows. Returns their number, which is 0 for a bad file."""
    path.write_bytes(content)
    try:
        header = read_header(path, USER_DATA)
        write_text(CsvFile(path, header, path.name, datetime.min), path.with_suffix(".parquet"))
    except BadFileError as error:
        assert str(error)
        return 0
    rows = sorted(pq.read_table(path.with_suffix(".parquet")).to_pylist(), key=lambda row: row["line"])
    text = content.decode("utf-8-sig", "replace")
    _check_every_line_is_in_one_row(text, rows)
    names = [name for name in header.columns if name is not None]
    for row in rows:
        if row["broken"] is None and not DIFFERENT_RULES.search(row["raw_line"]):
            (expected,) = _python_reads(row["raw_line"])
            assert len(expected) == len(header.columns), row
            assert [row[name] for name in names] == [
                field for field, name in zip(expected, header.columns, strict=True) if name
            ], row
    _check_against_the_oracle(content, [[row[name] for name in header.columns if name] for row in rows], rows, header)
    return len(rows)


def _python_reads(text: str) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]


def _check_every_line_is_in_one_row(text: str, rows: list[dict]) -> None:
    """Check that each line with more than commas is in exactly one row, good or rejected."""
    lines = LINE_ENDS.split(text)
    seen: set[int] = set()
    for row in rows:
        spread = range(row["line"], row["line"] + len(LINE_ENDS.split(row["raw_line"])))
        assert seen.isdisjoint(spread), row
        seen |= set(spread)
        assert LINE_ENDS.split(row["raw_line"]) == lines[spread.start - 1 : spread.stop - 1], row
    first = min(seen, default=len(lines) + 1)
    missing = [
        line for number, line in enumerate(lines, 1) if line.strip(",") and number not in seen and number >= first
    ]
    assert missing == []


def _check_against_the_oracle(content: bytes, found: list[list[str]], rows: list[dict], header: object) -> None:
    """Check that the rows are those of the csv module, if that reads the whole file without an error."""
    try:
        text = content.decode("utf-8-sig")
        _, *expected = _python_reads(text)
    except (UnicodeDecodeError, csv.Error):
        return
    width = len(header.columns)  # type: ignore[attr-defined]
    if DIFFERENT_RULES.search(text) or any(len(row) != width for row in expected):
        return
    wanted = [name is not None for name in header.columns]  # type: ignore[attr-defined]
    assert [row["broken"] for row in rows] == [None] * len(expected)
    assert found == [[field for field, kept in zip(row, wanted, strict=True) if kept] for row in expected]
