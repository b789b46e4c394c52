"""Files that people publicly reported trouble with, in tools of this kind: what is loaded of each, and what is said.

They are in `field_cases/`. `*_users.csv` is for `user_data`, the others for `user_top_artists`.
"""

import logging
from pathlib import Path

import pytest

from music_assets.ingest.csv_header import BadFileError
from music_assets.tables import RAW_TABLES, USER_DATA, USER_TOP_ARTISTS, Table
from music_assets_tests.support.ingest_harness import IngestHarness
from music_assets_tests.support.project import Project

FOLDER = Path(__file__).with_name("field_cases")
ALL = sorted(path.name for path in FOLDER.iterdir())
NO_INT, UTF8, FIELDS, QUOTING = "not an integer", "invalid UTF-8", "wrong number of fields", "broken quoting"
OK_USERS = [(1, "Germany", 100), (2, "France", 200), (3, "Germany", 300), (4, "Brazil", 400)]
OK_ARTISTS = [
    (1, 1, "Radiohead", 60, "m1"),
    (1, 2, "Beirut", 40, "m2"),
    (2, 1, "Air", 120, "m3"),
    (2, 2, "Björk", 80, "m4"),
    (3, 1, "Radiohead", 200, "m1"),
    (3, 2, "Can", 100, "m5"),
    (4, 1, "Sepultura", 400, "m6"),
]
CP1252_NAMES = (
    *("Radiohead", "Björk", "Sigur Rós", "Air", "Can", "Muse", "Abba", "Cher", "Moby", "Sade", "Beirut", "Motörhead"),
    *("Oasis", "Blur", "Pulp", "Suede", "Garbage", "Hole", "Nirvana", "Pixies"),
)
CP1252 = [(1, rank, name, 1_000 - rank, None) for rank, name in enumerate(CP1252_NAMES, 1)]

SAME_AS_OK = (
    *("ok_artists.csv", "ARTISTS_UPPER.CSV", "ARTISTS_UPPER.CSV.GZ", "artists.csv.gz", "blank_first_artists.csv"),
    *("excel_trailing_blank_artists.csv", "excel_trailing_newlines_artists.csv", "header_case_artists.csv"),
    *("header_nbsp_artists.csv", "mixed_eol_artists.csv", "old_mac_cr_artists.csv", "pretty_quoted_artists.csv"),
    *("trailing_comma_artists.csv", "utf8_bom_artists.csv"),
)
LOADED: dict[str, tuple[list, list]] = {
    **{name: (OK_ARTISTS, []) for name in SAME_AS_OK},
    "ok_users.csv": (OK_USERS, []),
    "backslash_n_artists.csv": (
        [
            (1, 1, "\\N", 100, "\\N"),
            (2, 1, "Air", 120, "\\N"),
            (2, 2, "NULL", 5, "NULL"),
            (3, 1, "None", 6, "None"),
            (3, 2, "NaN", 7, "NaN"),
            (4, 1, "null", 8, None),
        ],
        [(8, "artist_name", "missing artist_name", '4,2,"",9,')],
    ),
    "backslash_n_small_artists.csv": ([(1, 1, "Radiohead", 60, "\\N"), (2, 1, "Air", 120, "\\N")], []),
    "backslash_n_small_users.csv": ([(1, None, 100), (2, None, 200), (3, "Germany", 300)], []),
    "backslash_n_users.csv": (
        [(1, None, 100), (2, "France", None), (3, "Germany", 300), *((user, "Brazil", 400) for user in range(4, 11))],
        [],
    ),
    "cat_two_bom_artists.csv": (
        OK_ARTISTS * 2,
        [(9, "user_id", NO_INT, "\ufeffuser_id,rank,artist_name,playcount,mbid")],
    ),
    "country_change_users.csv": ([(2, "Germany", 200)], []),
    "cp1252_all_artists.csv": (
        [],
        [
            (2, None, UTF8, "1,1,Bj\ufffdrk,5,"),
            (3, None, UTF8, "2,1,Sigur R\ufffds,6,"),
            (4, None, UTF8, "3,1,Mot\ufffdrhead,7,"),
        ],
    ),
    "cp1252_some_artists.csv": (
        [row for row in CP1252 if row[2].isascii()],
        [
            (3, None, UTF8, "1,2,Bj\ufffdrk,998,"),
            (4, None, UTF8, "1,3,Sigur R\ufffds,997,"),
            (13, None, UTF8, "1,12,Mot\ufffdrhead,988,"),
        ],
    ),
    "ctrl_z_artists.csv": (OK_ARTISTS, [(9, None, FIELDS, "\x1a")]),
    "double_bom_users.csv": ([(1, "Germany", 5)], []),
    "excel_dates_artists.csv": ([(1, 1, "May-68", 5, "1.23E+05")], []),
    "hive_default_users.csv": (
        [(1, None, 100), (2, "unknown", 5), (3, None, 5), (4, None, 5), (5, "Unspecified", 5)],
        [],
    ),
    "joined_users_artists.csv": ([(1, 1, "Air", 1, None)], []),
    "lastfm_backslash_quote_artists.csv": (
        [(1, 2, "Sade", 10, None)],
        [(2, None, QUOTING, '1,1,"\\"Weird Al\\" Yankovic",29,m')],
    ),
    "lastfm_html_artists.csv": ([(1, 1, "Simon &amp; Garfunkel", 29, "m"), (1, 2, "Simon & Garfunkel", 10, None)], []),
    "lastfm_quotes_artists.csv": (
        [
            (1, 2, "Tyler, The Creator", 10, None),
            (1, 4, "!!!", 8, None),
            (1, 5, "+44", 7, None),
            (1, 6, "-", 6, None),
            (1, 7, "=1+1", 5, None),
            (1, 8, "@", 4, None),
            (1, 9, "1349", 3, None),
            (1, 10, "01", 2, None),
            (1, 11, "  Drake", 1, None),
            (1, 12, "drake", 1, None),
            (1, 13, "AC\\DC", 1, None),
        ],
        [(2, None, QUOTING, '1,1,"weird al" yankovic,29,m'), (4, None, FIELDS, "1,3,Earth, Wind & Fire,9,")],
    ),
    "latin1_artists.csv": (
        [row for row in OK_ARTISTS if row[2].isascii()],
        [(5, None, UTF8, "2,2,Bj\ufffdrk,80,m4")],
    ),
    "nbsp_text_users.csv": (
        [
            (1, "Germany", 100),
            (2, "Germany", 200),
            (3, None, 300),
            (4, "Germany", 400),
            (5, "germany", 10),
            (6, "GERMANY", 10),
            (7, "DE", 10),
            (8, "Deutschland", 10),
            (9, "Cote d'Ivoire", 5),
            (10, "Côte d\u2019Ivoire", 5),
        ],
        [],
    ),
    "nfc_nfd_artists.csv": (
        [
            (1, 1, "Bj\u00f6rk", 10, None),
            (2, 1, "Bjo\u0308rk", 10, None),
            (3, 1, "Sigur Rós", 5, None),
            (4, 1, "SIGUR RÓS", 5, None),
        ],
        [],
    ),
    "one_play_artists.csv": ([(1, 1, "Radiohead", 1, None)], []),
    "own_export_artists.csv": (
        [
            *OK_ARTISTS,
            (4, 1, "Sepultura", 400, None),
            (4, 2, "Angra", 55, None),
            (901, 1, "Ghost", 500, None),
            (902, 1, "Ghost", 500, None),
        ],
        [],
    ),
    "pandas_index_artists.csv": (OK_ARTISTS[:2], []),
    "pandas_nan_users.csv": ([(1, "Germany", None), (2, None, 200), (3, None, 300), (4, None, 400)], []),
    "scientific_users.csv": (
        [(3, "Germany", 300), (4, "Brazil", 400), (5, "Brazil", 500)],
        [
            (2, "total_scrobbles", NO_INT, "1,Germany,1e5"),
            (3, "total_scrobbles", NO_INT, "2,France,1.0E+05"),
            (7, "total_scrobbles", NO_INT, "6,Brazil,\xa0600"),
            (8, "total_scrobbles", NO_INT, "7,Brazil,700\xa0"),
        ],
    ),
    "single_quote_artists.csv": ([(2, 1, "Air", 5, None)], [(2, None, FIELDS, "1,1,'Tyler, the Creator',5,")]),
    "space_after_comma_artists.csv": (
        [(user, rank, f" {artist}", plays, f" {mbid}") for user, rank, artist, plays, mbid in OK_ARTISTS],
        [],
    ),
    "space_quoted_artists.csv": ([(1, 1, "Tyler, the Creator", 5, "m")], []),
    "thousands_artists.csv": (
        [(2, 1, "Air", 120, "m3")],
        [
            (2, "playcount", NO_INT, '1,1,Radiohead,"1,234",m1'),
            (4, "playcount", NO_INT, "3,1,Can,1.234,"),
            (5, "playcount", NO_INT, "4,1,Abba,1\xa0234,"),
            (6, "playcount", NO_INT, "5,1,Cher,1 234,"),
        ],
    ),
    "zero_plays_artists.csv": ([(1, 1, "Radiohead", 0, None), (2, 1, "Air", None, None)], []),
    "zero_width_users.csv": ([(1, "Germany", 100), (2, "Germany", 200), (3, "Germany", 1)], []),
}
"""File: the rows that are loaded; line, column, reason and text of each rejected one."""

ZIP = "a zip archive or an Excel workbook: unpack the archive, or save the sheet as CSV UTF-8"
MISSING = "column user_id, artist_name missing from the header, which is: {}. Expected: user_id, rank, artist_name, "
DELETE = "Delete it; the header must be the first line"
UTF16 = "not UTF-8 but UTF-16: export it as UTF-8, or set MUSIC_ASSETS_ENCODING={} and drop it again"
BAD = {
    "artists_zip_named.csv": f"not text: {ZIP}",
    "comment_line_artists.csv": f"the first line is a comment: # export 2024-05-01. {DELETE}",
    "header_camel_artists.csv": MISSING.format("userId,rank,artistName,playCount,mbid"),
    "header_spaces_artists.csv": MISSING.format("user id,rank,artist name,playcount,mbid"),
    "header_dup_artists.csv": "column mbid appears more than once in the header, which is: user_id,rank,artist_name,",
    "header_missing_artists.csv": "the header, which is: 1,1,Radiohead,60,m1, ",
    "macos_resource_._artists.csv": "not text: metadata that macOS wrote next to a file (AppleDouble): delete it",
    "pipe_artists.csv": "the separator looks like '|': export with commas. The first line is: user_id|rank|",
    "semicolon_artists.csv": "the separator looks like ';': export with commas. The first line is: user_id;rank;",
    "semicolon_users.csv": "the separator looks like ';': export with commas. The first line is: user_id;country;",
    "sep_line_comma_artists.csv": f"the first line is only for Excel: sep=,. {DELETE}",
    "sep_line_semicolon_artists.csv": "the separator looks like ';': export with commas. The first line is: sep=;",
    "tab_artists.csv": "the separator looks like a tab: export with commas. The first line is: user_id\\trank\\t",
    "utf16_bom_comma_artists.csv": UTF16.format("utf-16"),
    "utf16_bom_tab_artists.csv": UTF16.format("utf-16"),
    "utf16_nobom_artists.csv": UTF16.format("utf-16-le"),
}
"""File: why it is rejected as a whole, both in a drop folder and by `music-assets drop`."""

SUFFIX = "its name ends neither in .csv nor in .csv.gz: rename it if it is CSV with commas"
IGNORED = {
    "_export_users.csv": 'its name begins with "_", which marks a file in progress: rename it when it is complete',
    "artists.csv.bz2": "compressed with bzip2: decompress it, or compress it with gzip as .csv.gz",
    "artists.csv.txt": SUFFIX,
    "artists.csv.zip": ZIP,
    "artists.csv.zst": "compressed with zstd: decompress it, or compress it with gzip as .csv.gz",
    "artists.txt": SUFFIX,
    "artists.zip": ZIP,
    "tab_artists.tsv": "tab-separated values: export with commas, as .csv",
}
"""File: why it is left in the drop folder, and refused by `music-assets drop`."""

REFUSED_BY_DROP = {"joined_users_artists.csv": "fits more than one table. Expected: user_data: user_id,"}
NOTES = {
    "joined_users_artists.csv": "unknown columns ignored: country, total_scrobbles",
    "own_export_artists.csv": "unknown columns ignored: source_file, ingested_at",
    "pandas_index_artists.csv": 'unknown columns ignored: ""',
    "trailing_comma_artists.csv": 'unknown columns ignored: ""',
}
NOT_UTF8 = {"cp1252_all_artists.csv": 3, "cp1252_some_artists.csv": 3, "latin1_artists.csv": 1}


def table_of(name: str) -> Table:
    return USER_DATA if name.endswith("_users.csv") else USER_TOP_ARTISTS


def drop(harness: IngestHarness, name: str) -> Path:
    return harness.drop(table_of(name), name, (FOLDER / name).read_bytes())


def test_every_file_has_a_case() -> None:
    assert sorted([*LOADED, *BAD, *IGNORED]) == ALL


@pytest.mark.parametrize("name", LOADED)
def test_loaded(harness: IngestHarness, name: str) -> None:
    good, rejected = LOADED[name]
    drop(harness, name)
    (report,) = harness.load(table_of(name)).files
    assert (report.outcome, report.rows, report.rejects) == ("loaded", len(good), len(rejected))
    assert report.note == NOTES.get(name, "")
    assert harness.delivered(table_of(name)) == sorted(good, key=repr)
    assert harness.rejected() == sorted(rejected, key=repr)
    assert harness.waiting() == []


@pytest.mark.parametrize("name", BAD)
def test_rejected_as_a_whole(harness: IngestHarness, name: str) -> None:
    drop(harness, name)
    (report,) = harness.load(table_of(name)).files
    expected = (
        BAD[name] if name != "header_missing_artists.csv" else "column user_id, rank, artist_name, playcount, mbid"
    )
    assert report.outcome == "rejected"
    assert report.note.startswith(expected)
    assert (harness.root.rejected / name).read_bytes() == (FOLDER / name).read_bytes()
    assert expected in (harness.root.rejected / f"{name}.reason.txt").read_text()
    assert harness.waiting() == []


@pytest.mark.parametrize("name", IGNORED)
def test_left_where_it_is(harness: IngestHarness, name: str, caplog: pytest.LogCaptureFixture) -> None:
    dropped = drop(harness, name)
    with caplog.at_level(logging.WARNING):
        assert harness.load(table_of(name)).files == []
    assert f"Ignored in {dropped.parent}: {name}: {IGNORED[name]}" in caplog.messages
    assert harness.waiting() == [name]


@pytest.mark.parametrize("name", [*BAD, *IGNORED, *REFUSED_BY_DROP])
def test_refused_by_drop(harness: IngestHarness, name: str) -> None:
    with pytest.raises(BadFileError) as error:
        harness.landing.place(FOLDER / name)
    assert (BAD | IGNORED | REFUSED_BY_DROP)[name] in str(error.value)
    assert harness.waiting() == []


@pytest.mark.parametrize("name", sorted(LOADED.keys() - REFUSED_BY_DROP.keys()))
def test_accepted_by_drop(harness: IngestHarness, name: str) -> None:
    assert harness.landing.place(FOLDER / name) == harness.root.drop_folder(table_of(name)) / name


@pytest.mark.parametrize("name", NOT_UTF8)
def test_bytes_that_are_not_utf8_are_kept(harness: IngestHarness, name: str) -> None:
    """`rejected_rows` shows U+FFFD in their place, and the CSV file is deleted."""
    drop(harness, name)
    harness.load(USER_TOP_ARTISTS)
    assert (harness.root.rejected / name).read_bytes() == (FOLDER / name).read_bytes()
    reason = (harness.root.rejected / f"{name}.reason.txt").read_text()
    assert f"{NOT_UTF8[name]} x invalid UTF-8" in reason
    assert "The file looks like Windows-1252; set MUSIC_ASSETS_ENCODING=windows-1252 and drop it again." in reason


def test_the_job_loads_them_all_at_once(tmp_path: Path) -> None:
    """Some are the same bytes; these count once."""
    project = Project(tmp_path, reject_fail_share=1)
    for name in ALL:
        (project.root.drop_folder(table_of(name)) / name).write_bytes((FOLDER / name).read_bytes())
    assert project.refresh().success
    left = sorted(path.name for table in RAW_TABLES for path in project.root.drop_folder(table).iterdir())
    assert left == sorted(IGNORED)
    kept = [path.name for path in project.root.rejected.iterdir() if not path.name.endswith(".reason.txt")]
    assert sorted(kept) == sorted([*BAD, *NOT_UTF8])
