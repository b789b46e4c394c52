"""Current rows computed by hand. Random histories are in test_rankings."""

import dataclasses
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import ibis.expr.types as ir
import pytest

from music_assets.engines.base import Engine
from music_assets.tables import USER_DATA, USER_TOP_ARTISTS, Table
from music_assets.transforms.current_rows import current_rows
from music_assets_tests.support.ingest_harness import table_on

MONDAY, TUESDAY = datetime(2024, 1, 1), datetime(2024, 1, 2)


TableOf = Callable[[Table, list[tuple]], ir.Table]
Current = Callable[[Table, list[tuple]], list[tuple]]


@pytest.fixture
def table_of(engine: Engine, tmp_path: Path) -> TableOf:
    """Return a function from rows to a table of the engine."""
    return lambda table, rows: table_on(
        engine, tmp_path, {name: str(kind) for name, kind in table.schema.items()}, rows
    )


@pytest.fixture
def current(table_of: TableOf) -> Current:
    """Return a function from a history to its current rows, sorted."""
    return lambda table, rows: current_of(table_of(table, rows), table)


def current_of(history: ir.Table, table: Table) -> list[tuple]:
    found = current_rows(history, table).to_pyarrow().to_pylist()
    assert all(list(row) == [column.name for column in table.columns] for row in found)
    return sorted((tuple(row.values()) for row in found), key=repr)


def test_later_drop_wins_even_with_nulls(current: Current) -> None:
    rows = [(1, None, None, "b", TUESDAY), (1, "Chad", 9, "a", MONDAY), (2, "Mali", 1, "a", MONDAY)]
    assert current(USER_DATA, rows) == [rows[0], rows[2]]


@pytest.mark.parametrize("reverse", [False, True])
def test_tie_break_within_a_file(current: Current, reverse: bool) -> None:
    """More scrobbles first, then the country; NULL last in both."""
    rows = [
        (1, "Chad", 5, "a", MONDAY),
        (1, "Mali", 7, "a", MONDAY),
        (2, "Mali", 7, "a", MONDAY),
        (2, "Chad", 7, "a", MONDAY),
        (3, "Chad", None, "a", MONDAY),
        (3, None, 0, "a", MONDAY),
        (4, None, 7, "a", MONDAY),
        (4, "Peru", 7, "a", MONDAY),
    ]
    expected = [rows[1], rows[3], rows[5], rows[7]]
    assert current(USER_DATA, rows[::-1] if reverse else rows) == expected


@pytest.mark.parametrize("reverse", [False, True])
def test_each_rank_of_a_user_is_replaced_separately(current: Current, reverse: bool) -> None:
    rows = [
        (1, 1, "Moby", 5, None, "a", MONDAY),
        (1, 2, "Zaz", 4, None, "a", MONDAY),
        (1, 50, "Abba", 3, None, "a", MONDAY),
        (1, 2, "Cher", 1, None, "b", TUESDAY),
        (2, 1, "Moby", None, "m", "b", TUESDAY),
        (2, 1, "Moby", None, None, "b", TUESDAY),
        (2, 1, "Zaz", None, None, "b", TUESDAY),
    ]
    expected = [rows[0], rows[3], rows[2], rows[4]]
    assert current(USER_TOP_ARTISTS, rows[::-1] if reverse else rows) == sorted(expected, key=repr)


def test_keys_are_found_among_all_ranks(current: Current) -> None:
    """As many ranks as a user can have need more than 32 bits."""
    first = [(1, rank, f"artist {rank}", 5, None, "a", MONDAY) for rank in range(1, 51)]
    ties = [(1, rank, "Moby", 4, None, "a", MONDAY) for rank in (1, 31, 32, 50)]
    later = [(1, rank, "Zaz", 1, None, "b", TUESDAY) for rank in (2, 30, 33, 49)]
    expected = [row for row in first if row[1] not in (2, 30, 33, 49)] + later
    assert current(USER_TOP_ARTISTS, [*first, *ties]) == sorted(first, key=repr)
    assert current(USER_TOP_ARTISTS, [*first, *later]) == sorted(expected, key=repr)
    assert current(USER_TOP_ARTISTS, [*first, *ties, *later]) == sorted(expected, key=repr)


def test_tie_break_ignores_a_missing_column(table_of: TableOf) -> None:
    rows = [
        (1, 1, "Zaz", 5, "a", "f", MONDAY),
        (1, 1, "Moby", 5, "m", "f", MONDAY),
        (1, 1, "Moby", 4, "b", "f", MONDAY),
    ]
    found = current_rows(table_of(USER_TOP_ARTISTS, rows).drop("mbid"), USER_TOP_ARTISTS).to_pyarrow().to_pylist()
    assert [(row["artist_name"], row["playcount"]) for row in found] == [("Moby", 5)]


def test_equal_rows_count_once(current: Current) -> None:
    row = (1, 1, "Moby", 5, None, "a", MONDAY)
    assert current(USER_TOP_ARTISTS, [row] * 3) == [row]


def test_empty_history(current: Current) -> None:
    assert current(USER_TOP_ARTISTS, []) == []


def test_key_that_does_not_fit_into_bits_is_an_error(table_of: TableOf) -> None:
    wide = dataclasses.replace(USER_TOP_ARTISTS, key=("user_id", "playcount"))
    with pytest.raises(ValueError, match="user_top_artists: the key must be user_id and one column"):
        current_rows(table_of(wide, []), wide)
