"""Cleaning: the value of delivered text, and the first defect of a row."""

from collections.abc import Callable
from pathlib import Path

import pytest

from music_assets.engines.duckdb import DuckDBEngine
from music_assets.ingest.cleaning import clean
from music_assets.tables import USER_DATA, USER_TOP_ARTISTS, Table
from music_assets_tests.support.ingest_harness import table_on

Cleaned = Callable[..., list[dict]]


@pytest.fixture
def cleaned(duckdb_engine: DuckDBEngine, tmp_path: Path) -> Cleaned:
    """Clean rows of text for a table."""

    def run(table: Table, *rows: tuple[str | None, ...]) -> list[dict]:
        schema = {column.name: "string" for column in table.delivered} | {"line": "int64"}
        raw = table_on(duckdb_engine, tmp_path, schema, [(*row, line) for line, row in enumerate(rows)])
        return sorted(clean(raw, table).to_pyarrow().to_pylist(), key=lambda row: row["line"])

    return run


def test_declared_columns_come_first(cleaned: Cleaned) -> None:
    (row,) = cleaned(USER_TOP_ARTISTS, ("1", "2", " Moby ", "3", "m"))
    assert list(row.items()) == [
        ("user_id", 1),
        ("rank", 2),
        ("artist_name", " Moby "),
        ("playcount", 3),
        ("mbid", "m"),
        ("line", 0),
        ("column_name", None),
        ("reason", None),
    ]


@pytest.mark.parametrize("delivered", ["", None, "  ", "\t", "none", "None", " NONE ", "null", "Null\n"])
def test_unknown_country(cleaned: Cleaned, delivered: str | None) -> None:
    assert [row["country"] for row in cleaned(USER_DATA, ("1", delivered, ""))] == [None]


def test_known_country_is_only_trimmed(cleaned: Cleaned) -> None:
    delivered = ("Germany", "  Korea, Republic of\t", "nonesuch", "NULL island", "GERMANY", "Côte  d'Ivoire")
    found = [row["country"] for row in cleaned(USER_DATA, *(("1", country, "") for country in delivered))]
    assert found == ["Germany", "Korea, Republic of", "nonesuch", "NULL island", "GERMANY", "Côte  d'Ivoire"]


@pytest.mark.parametrize("word", ["none", "NULL", "None"])
def test_artist_may_be_called_none(cleaned: Cleaned, word: str) -> None:
    (row,) = cleaned(USER_TOP_ARTISTS, ("1", "1", word, "", word))
    assert (row["artist_name"], row["mbid"], row["reason"]) == (word, word, None)


def test_empty_text_means_null(cleaned: Cleaned) -> None:
    empty, missing = cleaned(USER_TOP_ARTISTS, ("1", "1", "a", "", ""), ("1", "1", "a", None, None))
    assert {**empty, "line": 1} == missing
    assert (missing["playcount"], missing["mbid"], missing["reason"]) == (None, None, None)


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        ((None, "1", "a", "1", ""), "user_id", "missing user_id"),
        (("1", None, "a", "1", ""), "rank", "not an integer"),
        (("1", "1", None, "1", ""), "artist_name", "missing artist_name"),
        (("1", "1", "\t \r\n", "1", ""), "artist_name", "missing artist_name"),
        (("1", "1", "a", "+", ""), "playcount", "not an integer"),
        (("1", "1", "a", "--1", ""), "playcount", "not an integer"),
        (("1", "1", "a", "1\x00", ""), "playcount", "not an integer"),
        (("1", "1", "a", "1e400", ""), "playcount", "not an integer"),
        (("1", "1", "a", "9" * 400, ""), "playcount", "out of range"),
        (("1", "1", "a", "Infinity", ""), "playcount", "not an integer"),
        (("1", "1", "a", "true", ""), "playcount", "not an integer"),
        (("1", "1", "a", "-9223372036854775809", ""), "playcount", "out of range"),
        (("x", "x", "", "x", ""), "user_id", "not an integer"),
    ],
)
def test_first_defect_is_reported(cleaned: Cleaned, row: tuple[str | None, ...], column: str, reason: str) -> None:
    (found,) = cleaned(USER_TOP_ARTISTS, row)
    assert (found["column_name"], found["reason"]) == (column, reason)
