"""Weights of a user's artists, against values worked out by hand."""

from collections.abc import Callable
from pathlib import Path

import ibis.expr.types as ir
import pytest

from music_assets.engines.base import Engine
from music_assets.transforms.interactions import sentences
from music_assets_tests.support.ingest_harness import table_on

SCHEMA = {"user_id": "int32", "artist_name": "string", "playcount": "int64"}
Weights = Callable[..., list[tuple[int, str, int]]]


@pytest.fixture
def weights(engine: Engine, tmp_path: Path) -> Weights:
    """Compute the sentences of rows of user, artist and plays."""
    return lambda *rows: [tuple(row.values()) for row in of(table_on(engine, tmp_path, SCHEMA, rows))]


def of(rows: ir.Table) -> list[dict]:
    return sentences(rows).to_pyarrow().to_pylist()


def test_the_weight_is_the_rounded_logarithm_plus_one(weights: Weights) -> None:
    plays = {"a": 1, "b": 3, "c": 4, "d": 10, "e": 31, "f": 32, "g": 91_424}
    expected = {"a": 1, "b": 1, "c": 2, "d": 2, "e": 2, "f": 3, "g": 6}
    assert weights(*((1, name, count) for name, count in plays.items())) == [(1, n, w) for n, w in expected.items()]


def test_no_plays_and_unknown_plays_weigh_nothing_but_the_pair_stays(weights: Weights) -> None:
    assert weights((1, "a", 0), (1, "b", None)) == [(1, "a", 0), (1, "b", 0)]


def test_an_artist_listed_twice_counts_once_with_the_sum(weights: Weights) -> None:
    assert weights((1, "a", 20), (1, "a", 20), (1, "a", None)) == [(1, "a", 3)]


def test_rows_come_ordered_by_user_then_artist(weights: Weights) -> None:
    assert weights((2, "b", 1), (1, "z", 1), (2, "a", 1)) == [(1, "z", 1), (2, "a", 1), (2, "b", 1)]
