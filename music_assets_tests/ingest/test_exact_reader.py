"""The exact reader: lines that are too long, line numbers, and many rejects."""

from datetime import datetime
from pathlib import Path

import pytest

from music_assets.ingest.csv_header import CsvFile, read_header
from music_assets.ingest.csv_records import MAXIMUM_ROW_LENGTH
from music_assets.ingest.exact_reader import BLOCK_CHARACTERS, read_text
from music_assets.tables import USER_DATA
from music_assets_tests.support.ingest_harness import IngestHarness

HEADER = "user_id,country,total_scrobbles\n"
TOO_LONG = "line longer than 2,000,000 characters"


def read(folder: Path, content: str) -> list[tuple[int, str | None, str]]:
    """Write a file, and return the line, the reason and the raw text of each row."""
    path = folder / "a.csv"
    path.write_bytes(content.encode())
    parts = read_text(CsvFile(path, read_header(path, USER_DATA), path.name, datetime.min))
    rows = [row for part in parts for row in part.to_pylist()]
    return sorted((row["line"], row["broken"], row["raw_line"]) for row in rows)


def test_line_of_50_mb_is_one_rejected_row(harness: IngestHarness) -> None:
    """Neither `rejected_rows` nor the memory contains the whole line."""
    long = "2," + "é," * 25_000_000
    harness.drop(USER_DATA, "a.csv", f"{HEADER}1,Germany,1\n{long}\n3,Mali,3\nx,Mali,3\n")
    (file,) = harness.load(USER_DATA).files
    assert (file.outcome, file.rows, file.rejects) == ("loaded", 2, 2)
    assert harness.delivered(USER_DATA) == [(1, "Germany", 1), (3, "Mali", 3)]
    assert harness.rejected() == [
        (3, None, TOO_LONG, long[:1000] + " … (50,000,002 characters)"),
        (5, "user_id", "not an integer", "x,Mali,3"),
    ]


def test_file_with_a_long_line_is_copied(harness: IngestHarness) -> None:
    """`rejected_rows` shows only the start of the line, and the dropped file is deleted."""
    content = f"{HEADER}1,Germany,1\n2,{'a' * MAXIMUM_ROW_LENGTH},\n"
    dropped = harness.drop(USER_DATA, "a.csv", content)
    harness.drop(USER_DATA, "b.csv", f"{HEADER}x,Mali,3\n")
    harness.load(USER_DATA)
    assert not dropped.exists()
    kept, reason = sorted(harness.root.rejected.iterdir())
    assert (kept.name, kept.read_text()) == ("a.csv", content)
    assert f"1 x {TOO_LONG}" in reason.read_text()


@pytest.mark.parametrize("more", [0, 1])
def test_maximum_length(harness: IngestHarness, more: int) -> None:
    country = "a" * (MAXIMUM_ROW_LENGTH - 3 + more)
    harness.drop(USER_DATA, "a.csv", f"{HEADER}1,{country},\n")
    (file,) = harness.load(USER_DATA).files
    assert (file.rows, file.rejects) == (1 - more, more)
    assert harness.delivered(USER_DATA) == [(1, country, None)][more:]


@pytest.mark.parametrize("end", ["\n", "\r\n", ""], ids=["LF", "CRLF", "no end"])
@pytest.mark.parametrize("letter", ["a", "é", "\U0001d518"])
def test_length_is_in_characters_without_the_line_end(tmp_path: Path, letter: str, end: str) -> None:
    longest = "1," + letter * (MAXIMUM_ROW_LENGTH - 3) + ","
    assert read(tmp_path, HEADER + longest + end) == [(2, None, longest)]
    shown = "1," + letter * 998 + " … (2,000,001 characters)"
    assert read(tmp_path, HEADER + longest[:-1] + letter + "," + end) == [(2, TOO_LONG, shown)]


def test_long_line_inside_quotes(tmp_path: Path) -> None:
    """A quoted field cannot continue in a line that is cut."""
    long = "a" * (BLOCK_CHARACTERS + MAXIMUM_ROW_LENGTH)
    rows = read(tmp_path, f'{HEADER}1,"Ger\n{long}",1\n2,Mali,2\n3,"{long}",3\n')
    assert [(line, reason) for line, reason, _ in rows] == [
        (2, "broken quoting"),
        (3, TOO_LONG),
        (4, None),
        (5, TOO_LONG),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("shift", range(4))
def test_lines_are_counted_across_blocks(tmp_path: Path, end: str, shift: int) -> None:
    """A line end may be split between two blocks."""
    head = HEADER.replace("\n", end) + f"1,,{end}"
    filling = "2," + "a" * (BLOCK_CHARACTERS - len(head) - 3 - shift) + ","
    rows = read(tmp_path, f"{head}{filling}{end}3,,{end}{end}5,,{end}")
    assert [(line, reason) for line, reason, _ in rows] == [(2, None), (3, TOO_LONG), (4, None), (6, None)]
    assert rows[1][2].endswith(f" … ({len(filling):,} characters)")


def test_many_rejects(harness: IngestHarness) -> None:
    rows = "".join(f"{user},,1\nx{user},,1\n" for user in range(50_000))
    harness.drop(USER_DATA, "a.csv", HEADER + rows)
    report = harness.load(USER_DATA)
    assert [(file.rows, file.rejects) for file in report.files] == [(50_000, 50_000)]
    assert dict(report.reject_reasons) == {"not an integer": 50_000}
    assert [row[3] for row in sorted(harness.rejected())] == [f"x{user},,1" for user in range(50_000)]
