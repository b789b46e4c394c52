"""Weights of interactions, computed by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from music_assets.engines.base import Engine
from music_assets.transforms.interactions import weighted_interactions
from music_assets_tests.support.ingest_harness import table_on

SCHEMA = {"user_id": "int32", "artist_name": "string", "playcount": "int64"}
Weights = Callable[..., list[tuple[int, str, int]]]


@pytest.fixture
def weights(engine: Engine, tmp_path: Path) -> Weights:
    """Return a function from rows of user, artist and playcount to rows of user, artist and weight."""

    def compute(*rows: tuple[int, str, int | None]) -> list[tuple[int, str, int]]:
        weighted = weighted_interactions(table_on(engine, tmp_path, SCHEMA, rows))
        return [tuple(row.values()) for row in weighted.to_pyarrow().to_pylist()]

    return compute


def test_weight_is_rounded_logarithm_plus_one(weights: Weights) -> None:
    plays = {"a": 1, "b": 3, "c": 4, "d": 10, "e": 31, "f": 32, "g": 91_424}
    expected = {"a": 1, "b": 1, "c": 2, "d": 2, "e": 2, "f": 3, "g": 6}
    assert weights(*((1, name, count) for name, count in plays.items())) == [(1, n, w) for n, w in expected.items()]


def test_unplayed_artists_have_weight_0(weights: Weights) -> None:
    assert weights((1, "a", 0), (1, "b", None)) == [(1, "a", 0), (1, "b", 0)]


def test_plays_of_an_artist_listed_twice_are_summed(weights: Weights) -> None:
    assert weights((1, "a", 20), (1, "a", 20), (1, "a", None)) == [(1, "a", 3)]


def test_rows_are_ordered_by_user_then_artist(weights: Weights) -> None:
    assert weights((2, "b", 1), (1, "z", 1), (2, "a", 1)) == [(1, "z", 1), (2, "a", 1), (2, "b", 1)]
