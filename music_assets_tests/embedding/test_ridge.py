"""Ridge regression, compared with numpy's least squares on the whole problem, one row for each pair."""

import numpy as np
import pytest
import scipy

from music_assets.embedding import ridge
from music_assets.embedding.ridge import artist_vectors, artist_weights, pair_weights, user_vectors

ROWS, COLUMNS, DIMENSIONS = 12, 40, 8


def pairs_and_vectors(density: float, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return random weights, 0 where a pair is not observed, and random vectors of the columns."""
    generator = np.random.default_rng(seed)
    weights = generator.uniform(0.2, 3, (ROWS, COLUMNS)) * (generator.random((ROWS, COLUMNS)) < density)
    return weights, generator.normal(size=(COLUMNS, DIMENSIONS)).astype(np.float32)


def least_squares(vectors: np.ndarray, observed: np.ndarray, base: float, penalty: float) -> np.ndarray:
    """Minimize the weighted squares: the target is 1 for each observed pair, 0 for every pair and every component."""
    scale = np.sqrt(np.concatenate([observed, np.full(len(vectors), base), np.full(DIMENSIONS, penalty)]))
    design = np.vstack([vectors, vectors, np.eye(DIMENSIONS)]) * scale[:, None]
    target = np.repeat([1.0, 0.0, 0.0], [len(vectors), len(vectors), DIMENSIONS]) * scale
    return np.linalg.lstsq(design, target)[0]


def balanced(row: np.ndarray) -> np.ndarray:
    return row / np.sqrt(row.sum()) if row.any() else row


@pytest.mark.parametrize("density", [0.08, 0.2, 0.9], ids=["few pairs", "as many as dimensions", "many"])
@pytest.mark.parametrize("threads", [1, 3])
def test_user_vectors_are_the_least_squares_solution(density: float, threads: int) -> None:
    weights, artists = pairs_and_vectors(density)
    found = user_vectors(scipy.sparse.csr_matrix(weights.astype(np.float32)), artists, threads)
    assert any(row.any() for row in weights)
    for row, vector in zip(weights, found, strict=True):
        expected = least_squares(artists, balanced(row), ridge.UNOBSERVED, ridge.USER_RIDGE)
        assert vector == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("density", [0.08, 0.9])
def test_artist_vectors_are_the_least_squares_solution(density: float) -> None:
    weights, _ = pairs_and_vectors(density)
    users = np.random.default_rng(4).normal(size=(ROWS, DIMENSIONS)).astype(np.float32)
    found = artist_vectors(scipy.sparse.csr_matrix(weights.astype(np.float32)), users, unobserved=2, ridge=0.7)
    observed = np.array([balanced(row) for row in weights])
    observed /= observed[observed > 0].mean()
    for column, vector in zip(observed.T, found, strict=True):
        expected = least_squares(users, column, 2, 0.7) if column.any() else np.zeros(DIMENSIONS)
        assert vector == pytest.approx(expected, abs=1e-4)


def test_size_of_blocks_does_not_change_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, artists = pairs_and_vectors(0.2)
    pairs = scipy.sparse.csr_matrix(weights.astype(np.float32))
    whole = user_vectors(pairs, artists)
    monkeypatch.setattr(ridge, "ROWS_PER_BLOCK", 2)
    monkeypatch.setattr(ridge, "PAIRS_PER_BLOCK", 1)
    assert user_vectors(pairs, artists) == pytest.approx(whole, abs=1e-6)


def test_plays_saturate() -> None:
    """A weight of w counts 2 w / (w + 1), one of 0 as 0.01."""
    found = pair_weights(np.array([1, 3, 3, 0]), np.array([1, 1, 0.5, 1], np.float32))
    assert found == pytest.approx([1, 1.5, 0.75, 0.02 / 1.01])


def test_weights_of_artists_by_hand() -> None:
    """With 1, 4 and 32 listeners: 1 / 3, 4 ** 0.6 / 6 = 0.38290 and 32 ** 0.6 / 34 = 0.23529, which is 8 / 34.

    The mean over the 37 pairs is (0.33333 + 4 * 0.38290 + 32 * 0.23529) / 37 = 0.25390.
    """
    assert artist_weights(np.array([1, 4, 32])) == pytest.approx([1.3129, 1.5081, 0.92672], rel=1e-4)


def test_artist_without_listeners_has_no_weight() -> None:
    assert artist_weights(np.array([3, 0])).tolist() == [1, 0]
