"""Compressed files that expand too much. The corpus (`test_csv_corpus.py`) tests headers and damaged files."""

import gzip
from pathlib import Path

import pytest

from music_assets.ingest.csv_header import BadFileError, check_compression
from music_assets.tables import USER_DATA
from music_assets_tests.support.ingest_harness import IngestHarness

HEADER = b"user_id,country,total_scrobbles\n"


def test_decompression_bomb_is_rejected(harness: IngestHarness) -> None:
    harness.drop(USER_DATA, "bomb.csv.gz", gzip.compress(HEADER + b"1,Germany,5\n" * (8 << 20)))
    harness.drop(USER_DATA, "good.csv", HEADER + b"6,Malta,1\n")
    assert {file.name: file.outcome for file in harness.load(USER_DATA).files} == {
        "bomb.csv.gz": "rejected",
        "good.csv": "loaded",
    }
    reason = (harness.root.rejected / "bomb.csv.gz.reason.txt").read_text()
    assert "expands to more than 200 times its size. If it should, drop it uncompressed" in reason


def test_small_file_may_expand_more(tmp_path: Path) -> None:
    path = tmp_path / "uniform.csv.gz"
    path.write_bytes(gzip.compress(HEADER + b"1,Germany,5\n" * (4 << 20)))
    assert path.stat().st_size * 200 < 12 * (4 << 20)
    check_compression(path)


def test_bomb_of_many_members_is_found(tmp_path: Path) -> None:
    path = tmp_path / "members.csv.gz"
    path.write_bytes(gzip.compress(bytes(16 << 20)) * 20)
    with pytest.raises(BadFileError, match="expands"):
        check_compression(path)
