"""Files in other encodings than UTF-8: read if the setting names the encoding, otherwise recognised."""

import gzip
from pathlib import Path

import pytest

from music_assets.data_root import DataRoot
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.ingest.csv_header import BadFileError
from music_assets.ingest.encoding import BLOCK_BYTES, describe_encoding, transcode
from music_assets.ingest.ingest import Ingest
from music_assets.ingest.landing import Landing
from music_assets.tables import USER_DATA, USER_TOP_ARTISTS
from music_assets_tests.support.ingest_harness import IngestHarness

HEADER = "user_id,rank,artist_name,playcount,mbid\n"
TEXT = HEADER + "1,1,Björk,5,\n2,1,“Weird Al”,6,\nx,1,Motörhead,7,\n"
ROWS = [(1, 1, "Björk", 5, None), (2, 1, "“Weird Al”", 6, None)]
REJECTED = [(4, "user_id", "not an integer", "x,1,Motörhead,7,")]


class InEncoding(IngestHarness):
    """A data root whose files are in another encoding."""

    def set_encoding(self, encoding: str) -> None:
        self.landing = Landing(self.root, settle_seconds=0, encoding=encoding)
        self.ingest = Ingest(self.landing, self.store, self.parser, retention_hours=24)


@pytest.fixture
def harness(tmp_path: Path, duckdb_engine: DuckDBEngine) -> InEncoding:
    return InEncoding(tmp_path / "data", duckdb_engine)


@pytest.mark.parametrize("encoding", ["windows-1252", "utf-16", "utf-16-le", "utf-32", "utf-7", "gb18030"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_files_are_read_in_the_encoding_that_is_set(harness: InEncoding, encoding: str, suffix: str) -> None:
    harness.set_encoding(encoding)
    content = TEXT.encode(encoding)
    harness.drop(USER_TOP_ARTISTS, f"a{suffix}", gzip.compress(content) if suffix == ".csv.gz" else content)
    (report,) = harness.load(USER_TOP_ARTISTS).files
    assert (report.outcome, report.rows, report.rejects) == ("loaded", 2, 1)
    assert harness.delivered(USER_TOP_ARTISTS) == sorted(ROWS, key=repr)
    assert harness.rejected() == REJECTED
    assert set(harness.rows(USER_TOP_ARTISTS, "source_file")) == {(f"a{suffix}",)}
    assert not harness.root.rejected.exists()
    assert harness.waiting() == []
    assert not list(harness.parser.scratch.folder.iterdir())


def test_the_kept_copy_is_loaded_when_it_is_dropped_again(harness: InEncoding) -> None:
    """Though its bytes were loaded before: in the other encoding they are another text."""
    harness.drop(USER_TOP_ARTISTS, "a.csv", TEXT.encode("windows-1252"))
    assert [(file.rows, file.rejects) for file in harness.load(USER_TOP_ARTISTS).files] == [(0, 3)]
    harness.set_encoding("windows-1252")
    harness.landing.place(harness.root.rejected / "a.csv")
    assert [(file.rows, file.rejects) for file in harness.load(USER_TOP_ARTISTS).files] == [(2, 1)]
    harness.set_encoding("cp1252")
    harness.landing.place(harness.root.rejected / "a.csv")
    assert [file.outcome for file in harness.load(USER_TOP_ARTISTS).files] == ["duplicate"]


def test_many_small_files(harness: InEncoding) -> None:
    harness.set_encoding("windows-1252")
    for user in range(30):
        harness.drop(USER_DATA, f"{user}.csv", f"user_id,country,total_scrobbles\n{user},Réunion,\n".encode("cp1252"))
    harness.load(USER_DATA)
    assert sorted(harness.rows(USER_DATA, "user_id", "country")) == [(user, "Réunion") for user in range(30)]


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (HEADER.encode() + b"1,1,\x81,5,\n", "windows-1252", "the byte at offset 44 cannot be decoded"),
        ((HEADER + "1,1,é,5,\n").encode("utf-16-le")[:-1], "utf-16-le", "the byte at offset 96 cannot be decoded"),
        (HEADER.encode() + b"x" * BLOCK_BYTES + b"\xe9", "gb18030", "the byte at offset 1,048,616 cannot be decoded"),
        (HEADER.encode(), "utf-16", "tream does not start with BOM"),
        ((HEADER + "\ud800").encode("utf-7", "surrogatepass"), "utf-7", "surrogates not allowed"),
    ],
    ids=["undefined byte", "cut off", "in the second block", "no byte order mark", "lone surrogate"],
)
def test_undecodable_file_is_rejected(harness: InEncoding, content: bytes, encoding: str, message: str) -> None:
    harness.set_encoding(encoding)
    harness.drop(USER_TOP_ARTISTS, "a.csv", content)
    (report,) = harness.load(USER_TOP_ARTISTS).files
    assert report.outcome == "rejected"
    assert report.note.startswith(f"not {encoding}: ")
    assert message in report.note
    assert (harness.root.rejected / "a.csv").read_bytes() == content


def test_full_disk_is_not_a_bad_file(tmp_path: Path) -> None:
    """The file would be moved to rejected/."""
    (tmp_path / "a.csv").write_bytes(TEXT.encode("cp1252") * 10_000)
    with pytest.raises(OSError, match="No space left"):
        transcode(tmp_path / "a.csv", Path("/dev/full"), "cp1252")


WINDOWS_1252 = "The file looks like Windows-1252; set MUSIC_ASSETS_ENCODING=windows-1252 and drop it again."
UNKNOWN = "The encoding is unknown; export the file as UTF-8, or set MUSIC_ASSETS_ENCODING to its encoding "
MIXED = "Other rows of the file are UTF-8: export these rows as UTF-8, too."


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (TEXT.encode("windows-1252"), WINDOWS_1252),
        ("1,Côte d'Ivoire,\n2,Åland,\n".encode("latin-1"), WINDOWS_1252),
        ("1,1,Кино,5,\n2,1,Сплин,6,\n".encode("windows-1251"), UNKNOWN),
        ("1,1,周杰伦,5,\n".encode("gbk"), UNKNOWN),
        (b"1,1,a\x81b,5,\n", UNKNOWN),
        (TEXT.encode() + "3,1,Mötley,5,\n".encode("cp1252"), MIXED),
    ],
)
def test_what_a_file_looks_like(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert describe_encoding(tmp_path / "a.csv").startswith(expected)


def test_header_is_read_in_the_encoding(tmp_path: Path) -> None:
    landing = Landing(DataRoot(tmp_path), encoding="utf-16")
    (tmp_path / "a.csv").write_bytes("user_id;country;total_scrobbles\n".encode("utf-16"))
    with pytest.raises(BadFileError, match="the separator looks like ';'"):
        landing.place(tmp_path / "a.csv")
