"""The fast reader: the same result as the exact reader, and few false alarms."""

import gzip
import tracemalloc
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_assets.engines.duckdb import DuckDBEngine
from music_assets.ingest.csv_header import BadFileError, CsvFile, read_header
from music_assets.ingest.fast_reader import PossibleDefectError, convert
from music_assets.ingest.parser import ParsedFile, Parser
from music_assets.tables import USER_DATA, USER_TOP_ARTISTS, Table
from music_assets_tests.support.properties import examples

HEADERS = {
    USER_DATA: [b"user_id,country,total_scrobbles", b'\xef\xbb\xbf"user_id","country",x,"total_scrobbles"'],
    USER_TOP_ARTISTS: [b"user_id,rank,artist_name,playcount,mbid", b"mbid,Playcount,artist_name,Rank,user_id"],
}
GOOD = [b"1", b"2", b'"3"', b"+4", b"05", b"-0"]
ODD = [
    *(b"", b'""', b" ", b'" "', b" 1", b"1 ", b"\t1", b"\x0b1", b"\xc2\xa01", b'" 1"', b'"1 "', b' "1"', b'"1" '),
    *(b"-1", b"+", b"-", b"+-1", b"51", b"1.0", b".5", b"1e2", b"0x1F", b"1_0", b"2147483648", b"9" * 19, b"9" * 20),
    *(b"a", b"\xc3\xa9", b"a b", b'"a,b"', b'"a,""b"",c"', b'"a\nb"', b'"a\r\nb"', b'"a\rb"', b"a\rb"),
    *(b'"', b'a"b', b'a"b"c', b'"a"b', b'"a""', b'""a', b'a""', b"a\\", b"\xff", b"\xef\xbb\xbf", b"\xef\xbb\xbf1"),
    *(b"1.0", b"60.00", b" 2.0", b"+3.0", b"-0.0", b"51.0", b"1.", b".0", b"2147483647.0", b"2147483648.0", b"1.5"),
    *(b"\\N", b"NaN", b" nan ", b'"NaN"', b"N/A", b"na", b"-", b" - ", b"__HIVE_DEFAULT_PARTITION__", b"-\xe2\x80\x8b"),
    *(b"\xe2\x80\x8bMali\xc2\xa0", b"\xe3\x80\x80", b"\xc2\xad", b"Ma\xc2\xa0li", b"\xe2\x80\x83\\n", b"\x1cna"),
    *(b"NULL", b" none", b"\xc2\xa0null", b"None\x0b", b"nulL\n", b'"null\r"', b"\xe2\x80\xa8", b"1,1", b","),
]
FIELD = st.one_of(st.sampled_from(GOOD), st.sampled_from(GOOD), st.sampled_from(ODD))
LINE_END = st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\r\n", b"\r", b"\n\n", b" \n", b"", b"\n,,\n", b"\n,,,,\n"])


@st.composite
def files(draw: st.DrawFn) -> tuple[Table, bytes]:
    """Draw a table, and a file for it with a few rows, each value of which may be odd."""
    table = draw(st.sampled_from([USER_DATA, USER_TOP_ARTISTS]))
    header = draw(st.sampled_from(HEADERS[table]))
    width = header.count(b",") + 1
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    lines = [
        b",".join(draw(st.lists(FIELD, min_size=width, max_size=width))) + draw(st.one_of(st.just(end), LINE_END))
        for _ in range(draw(st.integers(0, 4)))
    ]
    return table, header + end + b"".join(lines)


def csv_file(path: Path, table: Table, content: bytes) -> CsvFile:
    path.write_bytes(content)
    return CsvFile(path, read_header(path, table), path.name, datetime(2026, 1, 2, 3, 4, 5, 678))


def rows_of(parsed: ParsedFile | BadFileError) -> tuple[list[dict], list[dict]]:
    """Return the good rows and the rejected ones."""
    assert isinstance(parsed, ParsedFile)
    good, rejected = (
        sorted((row for file in part for row in pq.read_table(file).to_pylist()), key=repr)
        for part in (parsed.files, parsed.reject_files)
    )
    return good, rejected


@examples(120)
@given(file=files())
def test_result_is_that_of_the_exact_reader(
    tmp_path_factory: pytest.TempPathFactory, duckdb_engine: DuckDBEngine, file: tuple[Table, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("file")
    parser = Parser(duckdb_engine, folder / "scratch")
    subject = csv_file(folder / "rows.csv", *file)
    folders = [folder / name for name in ("fast", "fast_rejects", "exact", "exact_rejects")]
    for each in folders:
        each.mkdir()
    (fast,) = parser.parse([subject], folders[0], folders[1])
    without_rows = csv_file(folder / "none.csv", file[0], HEADERS[file[0]][0])
    exact, _ = parser.parse([subject, without_rows], folders[2], folders[3])
    assert rows_of(fast) == rows_of(exact)


ROWS = b"1,1,Moby,5,m1\n2,1,Zaz,,\n"
TITLE = HEADERS[USER_TOP_ARTISTS][0] + b"\n"
WITHOUT_DEFECT = {
    "plain": TITLE + ROWS,
    "no line end at the end": TITLE + ROWS[:-1],
    "line ends of Windows": (TITLE + ROWS).replace(b"\n", b"\r\n"),
    "byte order mark": b"\xef\xbb\xbf" + TITLE + ROWS,
    "every field quoted": b"\n".join(
        b",".join(b'"%b"' % field for field in line.split(b",")) for line in (TITLE + ROWS).splitlines()
    ),
    "commas, quotes and lines in names": TITLE + b'1,1,"a, ""b"",\nc",5,\n2,1,"""",5,"x"\n',
    "other order, unknown column": b"playcount,x,MBID,artist_name,rank,user_id\n5,,m1,Moby,1,1\n,\xc3\xa9,,Zaz,1,2\n",
    "no rows": TITLE,
    "more than one block": TITLE + b'1,1,"a,\n""b""\n",5,"\n"\n' * 300_000,
}


@pytest.mark.parametrize("name", WITHOUT_DEFECT)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_files_without_defects_are_converted(tmp_path: Path, name: str, suffix: str) -> None:
    content = gzip.compress(WITHOUT_DEFECT[name]) if suffix == ".csv.gz" else WITHOUT_DEFECT[name]
    subject = csv_file(tmp_path / f"rows{suffix}", USER_TOP_ARTISTS, content)
    convert(subject, tmp_path / "rows.parquet")
    written = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert len(written) == {"no rows": 0, "more than one block": 300_000}.get(name, 2)
    assert {row["source_file"] for row in written} <= {subject.source_file}
    assert {row["ingested_at"] for row in written} <= {subject.ingested_at}


@pytest.mark.parametrize(
    "rows",
    {
        "too short": b"1,1,Moby,5\n",
        "too long": b"1,1,Moby,5,,\n",
        "blank line": ROWS + b"\n",
        "quote within": b'1,1,12" mix,5,\n',
        "two quotes within": b'1,1,12" "mix,5,\n',
        "quote left open": b'1,1,"Moby,5,\n',
        "text after a quote": b'1,1,"Moby"x,5,\n',
        "carriage return": b"1,1,Mo\rby,5,\n",
        "carriage return alone": ROWS.replace(b"\n", b"\r"),
        "byte order mark": b"\xef\xbb\xbf" + ROWS,
        "not UTF-8": b"1,1,\xff,5,\n",
        "blanks for a number": b"1,1,Moby, ,\n",
        "not an integer": b"1,1,Moby,5.0,\n",
        "a long line": ROWS + b"1,1,%b,5,\n" % (b"x" * 2_500_000),
        "large rows": b"1,1,%b,5,\n" % (b"x" * 2_000) * 1_000,
        "a quote open for long": ROWS + b'1,1,"%b",5,\n' % ((b"x" * 70 + b"\n") * 20_000),
    }.items(),
    ids=lambda case: case[0],
)
def test_possible_defects(tmp_path: Path, rows: tuple[str, bytes]) -> None:
    subject = csv_file(tmp_path / "rows.csv", USER_TOP_ARTISTS, TITLE + rows[1])
    with pytest.raises(PossibleDefectError):
        convert(subject, tmp_path / "rows.parquet")


def test_file_that_is_one_line_is_not_read_whole(tmp_path: Path) -> None:
    subject = csv_file(tmp_path / "rows.csv", USER_TOP_ARTISTS, (TITLE + ROWS * 500_000).replace(b"\n", b"\r"))
    tracemalloc.start()
    try:
        with pytest.raises(PossibleDefectError):
            convert(subject, tmp_path / "rows.parquet")
        assert tracemalloc.get_traced_memory()[1] < subject.path.stat().st_size / 2
    finally:
        tracemalloc.stop()
