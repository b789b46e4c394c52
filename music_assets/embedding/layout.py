"""A map of vectors: places in the plane where neighbours by cosine lie close together.

As in UMAP (McInnes et al. 2018), neighbours attract each other and random pairs repel each other, from the first two
principal components on. 10,000 vectors take two seconds of one core.
"""

import numpy as np
import scipy

from music_assets.embedding.interactions import Ints
from music_assets.embedding.ridge import Floats
from music_assets.embedding.vectors import normalize

NEIGHBOURS = 15
EPOCHS = 200
REPELLING = 5
"""Random other points that repel a point in an epoch."""
REPULSION = 5.0
LONGEST_STEP = 4.0
WIDTH = 10.0 / 3
"""Standard deviation of the coordinates at the start."""
BLOCK = 1_024


def plane(vectors: Floats, seed: int = 0) -> Floats:
    """Return two coordinates for each row. The same rows and seed give the same places."""
    units = normalize(vectors)
    count = len(units)
    places = principal_components(units)
    deviations = places.std(axis=0)
    places = np.asarray(places / np.where(deviations > 0, deviations, 1) * WIDTH, np.float32)
    near = _neighbours(units, min(NEIGHBOURS, count - 1))
    edges = scipy.sparse.csr_matrix(
        (np.ones(near.size, np.float32), (near.ravel(), np.arange(near.size))), (count, near.size)
    )
    chance = np.random.default_rng(seed)
    for epoch in range(EPOCHS):
        pulls = _attraction(places[:, None] - places[near])
        pull = pulls.sum(axis=1) - edges @ pulls.reshape(-1, 2)  # a neighbour is pulled the other way
        push = _repulsion(places[:, None] - places[chance.integers(count, size=(count, REPELLING))]).sum(axis=1)
        step = pull / NEIGHBOURS + push * REPULSION / REPELLING
        places += (1 - epoch / EPOCHS) * np.clip(step, -LONGEST_STEP, LONGEST_STEP)
    return places


def principal_components(vectors: Floats) -> Floats:
    """Return the first two principal components of the rows, padded with 0 if there are fewer."""
    centred = vectors - vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    found = (left * sizes)[:, :2]
    return np.asarray(np.pad(found, ((0, 0), (0, 2 - found.shape[1]))), np.float32)


def _neighbours(units: Floats, count: int) -> Ints:
    """Return the rows with the largest cosines to each row, in any order."""
    found = np.empty((len(units), count), np.int64)
    for start in range(0, len(units), BLOCK):
        cosines = units[start : start + BLOCK] @ units.T
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -np.inf
        found[start : start + BLOCK] = np.argpartition(cosines, -count, axis=1)[:, len(units) - count :]
    return found


def _attraction(differences: Floats) -> Floats:
    return np.asarray(-2 * differences / (1 + np.square(differences).sum(axis=-1, keepdims=True)))


def _repulsion(differences: Floats) -> Floats:
    squares = np.square(differences).sum(axis=-1, keepdims=True)
    forces = 2 * differences / ((0.01 + squares) * (1 + squares))
    return np.asarray(np.clip(forces, -LONGEST_STEP, LONGEST_STEP))
