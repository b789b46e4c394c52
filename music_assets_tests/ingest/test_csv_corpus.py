"""A corpus of CSV files: which rows of each are loaded, which are rejected, on which line, and why.

The folder `csv_corpus/` contains readable files: in `good/` the same two rows in many spellings, in `bad/` files that
cannot be loaded. Files with bytes that editors do not show are built here.
"""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_assets.data_root import DataRoot
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.ingest.landing import Landing
from music_assets.tables import REJECTED_ROWS, USER_DATA, USER_TOP_ARTISTS, Table
from music_assets_tests.support.ingest_harness import IngestHarness
from music_assets_tests.support.properties import examples

CORPUS = Path(__file__).with_name("csv_corpus")
GOOD = sorted((CORPUS / "good").iterdir())
HEADER = b"user_id,rank,artist_name,playcount,mbid\n"
TWO_ROWS = HEADER + b"1,1,Moby,5,m1\n2,1,Zaz,7,m2\n"
EXPECTED = [(1, 1, "Moby", 5, "m1"), (2, 1, "Zaz", 7, "m2")]

FEW, QUOTING, UTF8 = "wrong number of fields", "broken quoting", "invalid UTF-8"
NO_INT, RANGE, RANK = "not an integer", "out of range", "rank outside 1 to 50"
NO_USER, NO_ARTIST, NEGATIVE = "missing user_id", "missing artist_name", "negative count"

ROWS = {
    "names.csv": (
        [
            (1, 1, "Tyler, the Creator", 5, None),
            (1, 2, '"Weird Al" Yankovic', 4, None),
            (1, 3, "two\nlines", 3, None),
            (1, 4, '12" mix', 2, None),
            (1, 5, " Drake ", 1, None),
            (1, 6, "宇多田ヒカル", 0, None),
            (1, 7, "NULL", None, None),
            (1, 8, "back\\slash", None, None),
        ],
        [],
    ),
    "limits.csv": ([(-(2**31), 1, "b", 0, None), (2**31 - 1, 50, "a", 2**63 - 1, None)], []),
    "header_only.csv": ([], []),
    "wrong_number_of_fields.csv": (
        [(1, 1, "Moby", 5, "m1"), (1, 5, "Sade", 5, "m4")],
        [
            (3, None, FEW, "1,2,Zaz"),
            (4, None, FEW, "1,3,Abba,5,m2,"),
            (5, None, FEW, "1,4,Björk,5,m3,x,y"),
            (6, None, FEW, " "),
        ],
    ),
    "broken_quoting.csv": (
        [(1, 1, "Moby", 5, "m1"), (1, 4, "Sade", 5, "m4"), (1, 6, "Björk", 5, "m6")],
        [
            (3, None, QUOTING, '1,2,"Zaz,5,m2'),
            (4, None, QUOTING, '1,3,"Abba"x,5,m3'),
            (6, None, QUOTING, '1,5,Cher,5,"m5'),
            (8, None, QUOTING, '1,7,"Kate Bush,5,m7'),
        ],
    ),
    "not_an_integer.csv": (
        [(1, 1, "b", 1, None), (10, 1, "a", 2, None)],
        [
            (2, "playcount", NO_INT, "1,1,a,3.7,"),
            (3, "playcount", NO_INT, "2,1,a,1e3,"),
            (4, "playcount", NO_INT, "3,1,a,1_000,"),
            (5, "playcount", NO_INT, "4,1,a,abc,"),
            (6, "playcount", NO_INT, "5,1,a,0x1F,"),
            (7, "playcount", NO_INT, "6,1,a,５,"),
            (8, "playcount", NO_INT, "7,1,a,1 000,"),
            (9, "playcount", NO_INT, "8,1,a, ,"),
            (10, "playcount", NO_INT, "9,1,a,- 1,"),
            (13, "rank", NO_INT, "9,one,b,1,"),
        ],
    ),
    "out_of_range.csv": (
        [(2, 1, "a", 1, None)],
        [
            (2, "user_id", RANGE, "2147483648,1,a,1,"),
            (3, "user_id", RANGE, "-2147483649,1,a,1,"),
            (4, "playcount", RANGE, "1,1,a,9223372036854775808,"),
        ],
    ),
    "rank_outside.csv": (
        [(1, 50, "a", 1, None)],
        [
            (2, "rank", RANK, "1,0,a,1,"),
            (3, "rank", RANK, "1,51,a,1,"),
            (4, "rank", RANK, "1,-1,a,1,"),
            (5, "rank", RANK, "1,99999999999,a,1,"),
            (6, "rank", NO_INT, "1,,a,1,"),
        ],
    ),
    "missing.csv": (
        [(1, 4, "a", 1, None)],
        [
            (2, "user_id", NO_USER, ",1,a,1,"),
            (3, "user_id", NO_USER, '"  ",1,a,1,'),
            (4, "artist_name", NO_ARTIST, "1,1,,1,"),
            (5, "artist_name", NO_ARTIST, '1,2,"  ",1,'),
            (6, "artist_name", NO_ARTIST, '1,3,"",1,'),
        ],
    ),
    "negative_count.csv": (
        [(1, 2, "a", 0, None)],
        [(2, "playcount", NEGATIVE, "1,1,a,-1,"), (4, "playcount", NEGATIVE, "1,3,a,-9223372036854775808,")],
    ),
    "first_defect_counts.csv": (
        [],
        [
            (2, "user_id", NO_INT, "x,0,,-1,"),
            (3, "rank", RANK, "1,0,,-1,"),
            (4, "artist_name", NO_ARTIST, "1,1,,-1,"),
            (5, "playcount", NEGATIVE, "1,1,a,-1,"),
        ],
    ),
}
"""For each file: the rows that are loaded, and line, column, reason and raw text of each rejected one."""
USERS = {
    "unknown.csv": (
        [(1, "Germany", 5), (2, None, 5), (3, None, 5), (4, None, 5), (5, None, None), (6, "nonesuch", 0)],
        [],
    ),
    "negative_scrobbles.csv": (
        [(2, "Germany", 2), (3, "Germany", 3)],
        [
            (2, "total_scrobbles", NEGATIVE, "1,Germany,-1"),
            (3, "user_id", NO_USER, ",Germany,1"),
        ],
    ),
}
BYTES = {
    "invalid UTF-8": (
        TWO_ROWS + b'3,1,Bj\xf6rk,5,\n4,1,\xed\xa0\x80,5,\n5,1,"\xff\n5,\n',
        EXPECTED,
        [
            (4, None, UTF8, "3,1,Bj\ufffdrk,5,"),
            (5, None, UTF8, "4,1,\ufffd\ufffd\ufffd,5,"),
            (6, None, UTF8, '5,1,"\ufffd'),
            (7, None, FEW, "5,"),
        ],
    ),
    "quote in a row that is not UTF-8": (
        HEADER + b'1,1,"\xff, ""x""",5,\n2,1,"\xff\n",5,\n3,1,a,5,\n',
        [(3, 1, "a", 5, None)],
        [(2, None, UTF8, '1,1,"\ufffd, ""x""",5,'), (3, None, UTF8, '2,1,"\ufffd\n",5,')],
    ),
    "quoted rows after many lines": (
        HEADER + b'1,1,"a' + b"\n" * 300 + b'b",5,\n1,2,x\n',
        [(1, 1, "a" + "\n" * 300 + "b", 5, None)],
        [(303, None, FEW, "1,2,x")],
    ),
    "quoted fields of every shape": (
        HEADER + b'"1","1","","5",""\n1,2,"a ""b""",5,""""\n1,3,",",5,"a,""b"",c"\n1,4,"c"\n',
        [(1, 2, 'a "b"', 5, '"'), (1, 3, ",", 5, 'a,"b",c')],
        [(2, "artist_name", NO_ARTIST, '"1","1","","5",""'), (5, None, FEW, '1,4,"c"')],
    ),
    "header a second time": (
        TWO_ROWS + HEADER,
        EXPECTED,
        [(4, "user_id", NO_INT, HEADER.decode().strip())],
    ),
    "line separators of Unicode": (
        HEADER + "1,1,a\u2028b\u0085c\x0b,5,\n1,2,a,5\u2028,\n".encode(),
        [(1, 1, "a\u2028b\u0085c\x0b", 5, None)],
        [(3, "playcount", NO_INT, "1,2,a,5\u2028,")],
    ),
    "carriage returns alone": (
        TWO_ROWS.replace(b"\n", b"\r") + b"3,1\r",
        EXPECTED,
        [(4, None, FEW, "3,1")],
    ),
    "quoted field of 200,000 characters": (
        HEADER + b'1,1,"' + b"x" * 200_000 + b'",5,\n1,2\n',
        [(1, 1, "x" * 200_000, 5, None)],
        [(3, None, FEW, "1,2")],
    ),
    "line that is too long": (
        HEADER + b"1,1," + b"x" * 3_000_000 + b",5,\n1,2,y,5,\n",
        [(1, 2, "y", 5, None)],
        [(2, None, "line longer than 2,000,000 characters", "1,1," + "x" * 996 + " … (3,000,007 characters)")],
    ),
    "NUL in a name": (
        TWO_ROWS + b"3,1," + b"x" * 70_000 + b",5,\n4,1,a\x00b,5,\n5,1\n",
        [*EXPECTED, (3, 1, "x" * 70_000, 5, None), (4, 1, "a\x00b", 5, None)],
        [(6, None, FEW, "5,1")],
    ),
    "quoted field across two blocks": (
        HEADER
        + b"1,1,"
        + b"x" * 1_999_000
        + b",5,\n1,2,"
        + b"x" * 1_999_000
        + b',5,\n2,1,"'
        + b"y\n" * 200_000
        + b'y",5,\n3,1\n',
        [(1, 1, "x" * 1_999_000, 5, None), (1, 2, "x" * 1_999_000, 5, None), (2, 1, "y\n" * 200_000 + "y", 5, None)],
        [(200_005, None, FEW, "3,1")],
    ),
    "stray quote, then no other for long": (
        HEADER + b'1,1,"a,5,\n' + b"2,1,%b,5,\n" % (b"b" * 1000) * 3000,
        [(2, 1, "b" * 1000, 5, None)] * 3000,
        [(2, None, QUOTING, '1,1,"a,5,')],
    ),
}
BAD_BYTES = {
    "gzip.csv": (gzip.compress(TWO_ROWS), "gzip-compressed"),
    "plain.csv.gz": (TWO_ROWS, "Not a gzipped file"),
    "twice.csv.gz": (gzip.compress(gzip.compress(TWO_ROWS)), "compressed twice with gzip: decompress it once"),
    "cut_off.csv.gz": (gzip.compress(TWO_ROWS)[:-9], "ended before"),
    "damaged.csv.gz": (gzip.compress(TWO_ROWS)[:-8] + bytes(8), "CRC check failed"),
    "no_gzip_behind.csv.gz": (gzip.compress(TWO_ROWS) + b"more", "Not a gzipped file"),
    "empty.csv.gz": (gzip.compress(b""), "empty"),
    "utf16.csv": (TWO_ROWS.decode().encode("utf-16"), "not UTF-8 but UTF-16"),
    "utf16_be.csv": (TWO_ROWS.decode().encode("utf-16-be"), "MUSIC_ASSETS_ENCODING=utf-16-be"),
    "parquet.csv": (b"PAR1\x15\x04\x00\x00" + bytes(200) + b"PAR1", "a Parquet file: export it as CSV"),
    "zeros.csv": (bytes(300), "not text: it contains NUL bytes"),
    "endless.csv": (b"x" * 100_000, "no header"),
    "only_bom.csv": (b"\xef\xbb\xbf", "empty"),
}
BAD_FILES = {
    "empty.csv": "empty",
    "blank.csv": "empty",
    "missing_column.csv": "column playcount missing",
    "twice_a_column.csv": "column rank appears more than once",
    "no_header.csv": "column user_id, rank, artist_name, playcount, mbid missing",
    "open_quote_in_header.csv": "broken quoting",
    "text_behind_quote_in_header.csv": "broken quoting",
}


def check(harness: IngestHarness, table: Table, name: str, content: bytes, good: list, rejected: list) -> None:
    harness.drop(table, name, content)
    report = harness.load(table)
    assert harness.delivered(table) == sorted(good, key=repr)
    assert harness.rejected() == sorted(rejected, key=repr)
    assert [(file.outcome, file.rows, file.rejects) for file in report.files] == [("loaded", len(good), len(rejected))]
    assert report.reject_reasons.total() == len(rejected)
    assert not harness.waiting()


@pytest.mark.parametrize("name", ROWS)
def test_rows(harness: IngestHarness, name: str) -> None:
    check(harness, USER_TOP_ARTISTS, name, (CORPUS / name).read_bytes(), *ROWS[name])


@pytest.mark.parametrize("name", USERS)
def test_rows_of_users(harness: IngestHarness, name: str) -> None:
    check(harness, USER_DATA, name, (CORPUS / name).read_bytes(), *USERS[name])


@pytest.mark.parametrize("name", BYTES)
def test_bytes(harness: IngestHarness, name: str) -> None:
    content, good, rejected = BYTES[name]
    check(harness, USER_TOP_ARTISTS, "rows.csv", content, good, rejected)


def test_each_defect_is_found_in_a_file_without_others(harness: IngestHarness) -> None:
    """The fast reader must not miss it. With other defects in the file, it would be read exactly anyway."""
    expected = {
        f"{name}_{line}.csv": (reason, raw, column)
        for name, (_, rejected) in ROWS.items()
        for line, column, reason, raw in rejected
    }
    for number, (name, (_, raw, _)) in enumerate(expected.items()):
        harness.drop(USER_TOP_ARTISTS, name, HEADER + f"{raw}\n7,7,Good,{number},\n".encode())
    report = harness.load(USER_TOP_ARTISTS)
    assert {file.name: (file.rows, file.rejects) for file in report.files} == dict.fromkeys(expected, (1, 1))
    found = harness.rows(REJECTED_ROWS, "source_file", "reason", "raw_line", "column_name")
    assert {name: defect for name, *defect in found} == {name: list(defect) for name, defect in expected.items()}


def test_every_spelling_of_the_same_rows(harness: IngestHarness) -> None:
    """A file is loaded the same with a bad row added, which causes the whole file to be read exactly."""
    contents = {path.name: path.read_bytes() for path in GOOD}
    mixed = {
        f"mixed_{name}": content.rstrip(b"\n") + b"\n9,%d\n" % number
        for number, (name, content) in enumerate(contents.items())
    }
    compressed = {
        f"{name}.gz": gzip.compress((contents | mixed)[name] + b"\n") for name in ("bom.csv", "mixed_plain.csv")
    }
    members = {"members.CSV.GZ": gzip.compress(TWO_ROWS[:50]) + gzip.compress(TWO_ROWS[50:] + b"\n\n")}
    everything = contents | mixed | compressed | members
    for name, content in everything.items():
        harness.drop(USER_TOP_ARTISTS, name, content)
    harness.load(USER_TOP_ARTISTS)
    loaded: dict[str, list[tuple]] = {name: [] for name in everything}
    for *row, source, _ in harness.rows(USER_TOP_ARTISTS):
        loaded[source].append(tuple(row))
    assert loaded == dict.fromkeys(everything, EXPECTED)
    rejected = harness.rows(REJECTED_ROWS, "source_file", "reason")
    assert sorted(rejected) == sorted((name, FEW) for name in everything if name.startswith("mixed_"))
    assert not harness.waiting()


def test_unknown_columns_are_reported(harness: IngestHarness) -> None:
    name = "other_order_case_and_columns.csv"
    harness.drop(USER_TOP_ARTISTS, name, (CORPUS / "good" / name).read_bytes())
    assert harness.load(USER_TOP_ARTISTS).files[0].note == "unknown columns ignored: listeners"
    names = ",".join(f"column{number}" for number in range(1_000))
    harness.drop(USER_TOP_ARTISTS, "many.csv", f"user_id,rank,artist_name,playcount,mbid,{names}\n")
    note = harness.load(USER_TOP_ARTISTS).files[0].note
    assert note.startswith("unknown columns ignored: column0, column1, ")
    assert note.endswith(" …")
    assert len(note) < 230
    harness.drop(USER_TOP_ARTISTS, "long.csv", f"user_id,rank,artist_name,playcount,mbid,{'x' * 300}\n")
    assert harness.load(USER_TOP_ARTISTS).files[0].note == f"unknown columns ignored: {'x' * 200} …"


def test_bad_files_are_rejected_and_others_loaded(harness: IngestHarness) -> None:
    expected = BAD_FILES | {name: reason for name, (_, reason) in BAD_BYTES.items()}
    contents = {name: (CORPUS / "bad" / name).read_bytes() for name in BAD_FILES}
    contents |= {f"bytes_{name}": content for name, (content, _) in BAD_BYTES.items()}
    harness.drop(USER_TOP_ARTISTS, "first.csv", HEADER + b"1,1,Moby,5,m1\n")
    for name, content in contents.items():
        harness.drop(USER_TOP_ARTISTS, name, content)
    harness.drop(USER_TOP_ARTISTS, "last.csv", HEADER + b"2,1,Zaz,7,m2\n")

    report = harness.load(USER_TOP_ARTISTS)

    assert harness.delivered(USER_TOP_ARTISTS) == EXPECTED
    assert {file.name: file.outcome for file in report.files} == (
        dict.fromkeys(contents, "rejected") | {"first.csv": "loaded", "last.csv": "loaded"}
    )
    folder = harness.root.rejected
    for name, content in contents.items():
        assert (folder / name).read_bytes() == content
        assert expected[name.removeprefix("bytes_")] in (folder / f"{name}.reason.txt").read_text()
    assert not harness.waiting()


FIELDS = [b"a", b'"a"', b'"a,b"', b'"a""b"', b'"a\nb"', b'"a\r\nb"', b'"a\rb"', b'a"b', b'12"', b' "a"', b'"a" ',
    b'  "a"', b' "a,b" ', b'" a "', b"a\\", b'"a\\"', b"\xc3\xa9", b"\xe2\x80\xa8", b"\x0b", b'""""']  # fmt: skip
NUMBERS = [b"1", b'"2"', b" 3 ", b' "4" ', b"+5", b"06"]
LINES = st.tuples(
    st.sampled_from(NUMBERS), st.sampled_from(FIELDS), st.sampled_from([b"", b'""', *NUMBERS]), st.sampled_from(FIELDS)
).map(lambda fields: b"%b,1,%b,%b,%b" % fields)


@examples(20)
@given(lines=st.lists(LINES, min_size=1, max_size=40), end=st.sampled_from([b"\n", b"\r\n"]))
def test_fast_and_exact_reader_agree(
    tmp_path_factory: pytest.TempPathFactory, duckdb_engine: DuckDBEngine, lines: list[bytes], end: bytes
) -> None:
    """A file without defects is loaded the same with a bad row added, so that it is read exactly."""
    harness = IngestHarness(tmp_path_factory.mktemp("data"), duckdb_engine)
    for name, content in (("alone", lines), ("mixed", [*lines, b"9,9"])):
        harness.drop(USER_TOP_ARTISTS, f"{name}.csv", end.join([HEADER.strip(), *content, b""]))
    report = harness.load(USER_TOP_ARTISTS)
    assert [(file.rows, file.rejects) for file in report.files] == [(len(lines), 0), (len(lines), 1)]
    loaded: dict[str, list[tuple]] = {"alone.csv": [], "mixed.csv": []}
    for *row, source, _ in harness.rows(USER_TOP_ARTISTS):
        loaded[source].append(tuple(row))
    assert sorted(loaded["alone.csv"], key=repr) == sorted(loaded["mixed.csv"], key=repr)


def test_file_whose_name_is_a_pattern(harness: IngestHarness) -> None:
    """Browsers name a second download users[1].csv, which DuckDB would read as a pattern for users1.csv."""
    for number, name in enumerate(("u1.csv", "u[1].csv", "u*.csv", "u?.csv", "a b'c%20.csv", "{u1,x}.csv"), 1):
        harness.drop(USER_DATA, name, f"user_id,country,total_scrobbles\n{number},,\n")
    harness.load(USER_DATA)
    assert sorted(harness.rows(USER_DATA, "user_id", "source_file")) == [
        (1, "u1.csv"),
        (2, "u[1].csv"),
        (3, "u*.csv"),
        (4, "u?.csv"),
        (5, "a b'c%20.csv"),
        (6, "{u1,x}.csv"),
    ]


def test_target_table_is_found_by_the_header(tmp_path: Path) -> None:
    landing = Landing(DataRoot(tmp_path / "data"))
    for name, table in (("names.csv", USER_TOP_ARTISTS), ("unknown.csv", USER_DATA)):
        assert landing.place(CORPUS / name) == landing.root.drop_folder(table) / name
