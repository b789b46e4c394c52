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


@pytest.mark.parametrize(
    "delivered",
    [
        *(
            "",
            None,
            "  ",
            "\t",
            "none",
            "None",
            " NONE ",
            "null",
            "Null\n",
            "NaN",
            "nan",
            "N/A",
            "n/a",
            "NA",
            " - ",
            "\\N",
        ),
        *("\\n", "__HIVE_DEFAULT_PARTITION__", "\u00a0", "\u200b\ufeff", "\u3000na\u200b", "\u00ad-\u2060"),
    ],
)
def test_unknown_country(cleaned: Cleaned, delivered: str | None) -> None:
    assert [row["country"] for row in cleaned(USER_DATA, ("1", delivered, ""))] == [None]


def test_known_country_is_only_trimmed(cleaned: Cleaned) -> None:
    expected = {
        "Germany": "Germany",
        "  Korea, Republic of\t": "Korea, Republic of",
        "\u00a0Mali\u200b": "Mali",
        "\ufeff\u2003Chad\u3000": "Chad",
        "San\u00a0Marino": "San\u00a0Marino",
        **{name: name for name in ("nonesuch", "NULL island", "GERMANY", "Côte  d'Ivoire", "--", "N.A.", "unknown")},
    }
    found = [row["country"] for row in cleaned(USER_DATA, *(("1", country, "") for country in expected))]
    assert found == list(expected.values())


@pytest.mark.parametrize("delivered", ["", "\\N", "\\n", "NaN", "nan", " NAN\t", None])
def test_unknown_number(cleaned: Cleaned, delivered: str | None) -> None:
    (row,) = cleaned(USER_DATA, ("1", "Mali", delivered))
    assert (row["total_scrobbles"], row["reason"]) == (None, None)


@pytest.mark.parametrize(
    ("delivered", "expected"),
    [
        *(("60.0", 60), ("60.000", 60), ("+5.0", 5), (" 7.0 ", 7), ("-0.0", 0), ("007.0", 7)),
        ("9223372036854775807.0", 2**63 - 1),
    ],
)
def test_integer_with_zeros_after_the_point(cleaned: Cleaned, delivered: str, expected: int) -> None:
    (row,) = cleaned(USER_TOP_ARTISTS, ("3.0", "50.0", "a", delivered, ""))
    assert (row["user_id"], row["rank"], row["playcount"], row["reason"]) == (3, 50, expected, None)


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
        (("NaN", "1", "a", "1", ""), "user_id", "not an integer"),
        (("1", "\\N", "a", "1", ""), "rank", "not an integer"),
        (("2147483648.0", "1", "a", "1", ""), "user_id", "out of range"),
        (("1", "51.0", "a", "1", ""), "rank", "rank outside 1 to 50"),
        (("1", "1", "a", "-1.0", ""), "playcount", "negative count"),
        *(
            (("1", "1", "a", text, ""), "playcount", "not an integer")
            for text in ("3.7", "60.", ".0", "1,234", "1.0e3", "N/A", " ")
        ),
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
