"""The layout keeps neighbours together, and copes with few or equal rows."""

import numpy as np
import pytest

from music_assets.embedding.layout import plane


def test_planted_groups_stay_apart() -> None:
    chance = np.random.default_rng(1)
    groups = np.repeat(np.arange(6), 40)
    centres = chance.normal(size=(6, 50))
    places = plane((centres[groups] + chance.normal(scale=0.4, size=(240, 50))).astype(np.float32))
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (groups[distances.argmin(axis=1)] == groups).mean() > 0.98


def test_same_rows_have_the_same_places() -> None:
    vectors = np.random.default_rng(2).normal(size=(30, 50)).astype(np.float32)
    assert np.array_equal(plane(vectors), plane(vectors))


@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_few_or_equal_rows_have_places(count: int) -> None:
    chance = np.random.default_rng(3)
    for vectors in (chance.normal(size=(count, 50)), np.ones((count, 50)), np.zeros((count, 50))):
        places = plane(vectors.astype(np.float32))
        assert places.shape == (count, 2)
        assert np.isfinite(places).all()
