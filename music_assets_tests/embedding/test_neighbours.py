"""Searches among random vectors of very different lengths, compared with sorting all scores."""

import numpy as np
import pytest

from music_assets.embedding import neighbours
from music_assets.embedding.neighbours import VectorIndex

COUNT = 200


@pytest.fixture
def vectors() -> np.ndarray:
    generator = np.random.default_rng(1)
    return (generator.normal(size=(COUNT, 6)) * generator.exponential(size=(COUNT, 1)) ** 3).astype(np.float32)


@pytest.fixture
def query() -> np.ndarray:
    return np.random.default_rng(2).normal(size=6).astype(np.float32)


@pytest.mark.parametrize("first_block", [1, 7, COUNT, 10**6])
@pytest.mark.parametrize("k", [1, 10, COUNT, COUNT + 5])
@pytest.mark.parametrize("every", [1, 3], ids=["all rows", "every third row"])
def test_largest_products(
    vectors: np.ndarray, query: np.ndarray, monkeypatch: pytest.MonkeyPatch, first_block: int, k: int, every: int
) -> None:
    monkeypatch.setattr(neighbours, "FIRST_BLOCK", first_block)
    allowed = np.arange(COUNT) % every == 0
    rows, products = VectorIndex.build(vectors).largest_products(query, k, None if every == 1 else allowed)
    scores = np.where(allowed, vectors @ query, -np.inf)
    expected = np.argsort(-scores)[: min(k, np.count_nonzero(allowed))]
    assert rows.tolist() == expected.tolist()
    assert products == pytest.approx(scores[expected], rel=1e-4, abs=1e-5)


def test_products_read_only_the_rows_that_are_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the later rows read, their NaN would show."""
    monkeypatch.setattr(neighbours, "FIRST_BLOCK", 4)
    index = VectorIndex.build(np.diag([9, 8, 7, 6, 1, 1]).astype(np.float32))
    index.units[4:] = np.nan
    rows, products = index.largest_products(np.ones(6, np.float32), 2)
    assert (rows.tolist(), products.tolist()) == ([0, 1], [9, 8])


@pytest.mark.parametrize("every", [1, 3])
def test_neighbours_by_cosine_leave_out_the_row_itself(vectors: np.ndarray, every: int) -> None:
    allowed = np.arange(COUNT) % every == 0
    rows, cosines = VectorIndex.build(vectors).neighbours(6, 5, None if every == 1 else allowed)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.where(allowed, units @ units[6], -np.inf)
    scores[6] = -np.inf
    assert rows.tolist() == np.argsort(-scores)[:5].tolist()
    assert cosines == pytest.approx(scores[rows], abs=1e-5)


def test_vectors_of_rows(vectors: np.ndarray) -> None:
    rows = np.array([5, 0, 199])
    assert VectorIndex.build(vectors).vectors(rows) == pytest.approx(vectors[rows], rel=1e-5)
