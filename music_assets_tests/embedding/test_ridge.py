"""Ridge regression, compared with numpy's least squares on the whole problem, one row for each pair."""

import numpy as np
import pytest
import scipy

from music_assets.embedding import ridge
from music_assets.embedding.ridge import artist_vectors, pair_weights, user_vectors

ROWS, COLUMNS, DIMENSIONS = 12, 40, 8


def pairs_and_vectors(density: float, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return random weights, 0 where a pair is not observed, and random vectors of the columns."""
    generator = np.random.default_rng(seed)
    weights = generator.uniform(0.2, 3, (ROWS, COLUMNS)) * (generator.random((ROWS, COLUMNS)) < density)
    return weights, generator.normal(size=(COLUMNS, DIMENSIONS)).astype(np.float32)


def least_squares(
    vectors: np.ndarray, observed: np.ndarray, base: float, penalty: float, towards: float = 0
) -> np.ndarray:
    """Minimize the weighted squares: 1 for each observed pair, 0 for every pair, and `towards` for every component."""
    scale = np.sqrt(np.concatenate([observed, np.full(len(vectors), base), np.full(DIMENSIONS, penalty)]))
    design = np.vstack([vectors, vectors, np.eye(DIMENSIONS)]) * scale[:, None]
    target = np.repeat([1.0, 0.0, towards], [len(vectors), len(vectors), DIMENSIONS]) * scale
    return np.linalg.lstsq(design, target)[0]


@pytest.mark.parametrize("density", [0.08, 0.2, 0.9], ids=["few pairs", "as many as dimensions", "many"])
@pytest.mark.parametrize("threads", [1, 3])
def test_user_vectors_are_the_least_squares_solution(density: float, threads: int) -> None:
    weights, artists = pairs_and_vectors(density)
    found = user_vectors(scipy.sparse.csr_matrix(weights.astype(np.float32)), artists, threads)
    assert any(row.any() for row in weights)
    for row, vector in zip(weights, found, strict=True):
        share = row / row.sum() if row.any() else row
        expected = least_squares(artists, share, ridge.UNOBSERVED, ridge.USER_RIDGE)
        assert vector == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("density", [0.08, 0.9])
@pytest.mark.parametrize("towards", [0, 0.3])
def test_artist_vectors_are_the_least_squares_solution(density: float, towards: float) -> None:
    weights, _ = pairs_and_vectors(density)
    users = np.random.default_rng(4).normal(size=(ROWS, DIMENSIONS)).astype(np.float32)
    drawn = np.full((COLUMNS, DIMENSIONS), towards, np.float32)
    found = artist_vectors(scipy.sparse.csr_matrix(weights.astype(np.float32)), users, drawn, unobserved=2, ridge=0.7)
    observed = weights / weights[weights > 0].mean()
    for column, vector in zip(observed.T, found, strict=True):
        expected = least_squares(users, column, 2, 0.7, towards) if column.any() else np.zeros(DIMENSIONS)
        assert vector == pytest.approx(expected, abs=1e-4)


def test_size_of_blocks_does_not_change_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, artists = pairs_and_vectors(0.2)
    pairs = scipy.sparse.csr_matrix(weights.astype(np.float32))
    whole = user_vectors(pairs, artists)
    monkeypatch.setattr(ridge, "ROWS_PER_BLOCK", 2)
    monkeypatch.setattr(ridge, "PAIRS_PER_BLOCK", 1)
    assert user_vectors(pairs, artists) == pytest.approx(whole, abs=1e-6)


def test_only_ratios_within_a_list_matter() -> None:
    weights, artists = pairs_and_vectors(0.2)
    pairs = scipy.sparse.csr_matrix(weights.astype(np.float32))
    assert user_vectors(pairs * 7, artists) == pytest.approx(user_vectors(pairs, artists), abs=1e-5)


def test_weights_by_hand() -> None:
    """Plays saturate: 2 w / (w + 1). One listener weighs 1, four weigh 4 ** -0.3 = 0.6598."""
    found = pair_weights(np.array([1, 3, 3, 0]), np.array([1, 1, 4, 1]))
    assert found == pytest.approx([1, 1.5, 1.5 * 0.6598, 0.02 / 1.01], rel=1e-4)
