"""Ridge regression between users and artists: each side's vectors from those of the other.

A user's vector u minimizes, over the artists a of the user's list with weights w that sum to 1,

    sum of w (1 - u·a)²  +  UNOBSERVED times the sum over all artists of (u·a)²  +  USER_RIDGE |u|²

so that the inner product is near 1 for artists of the list and near 0 for others. It depends on the list and the table
of artists alone: the training, refreshes and the service compute the same vector. Artists are fitted to users alike,
but with one ridge for all: the fewer listeners an artist has, the shorter its vector, and the later it is recommended.

Repeated in turns, this is implicit alternating least squares (Hu, Koren and Volinsky, 2008), which starts from word2vec
here. The ridge of trained artists draws them towards their word vectors, so that similarity does not suffer.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
from threadpoolctl import threadpool_limits

from music_assets.embedding.interactions import Ints

Floats = npt.NDArray[np.float32]

UNOBSERVED = 0.0013
"""Weight of each artist that is not in a user's list, where the list weighs 1."""
USER_RIDGE = 0.12
FREQUENCY_POWER = 0.3
"""An artist with n listeners weighs n ** -FREQUENCY_POWER: rare artists distinguish lists."""
SATURATION = 1.0
"""Half-way point of the saturation of plays: weights 1, 3 and 5 of `transforms.interactions` become 1, 1.5 and 1.67."""
UNKNOWN_PLAYS = 0.01
"""Weight of an artist without plays, which only matters to lists that have no other."""
ROWS_PER_BLOCK = 1_024
PAIRS_PER_BLOCK = 50_000
"""Limits of a block, so that a thread needs 40 MB."""


def pair_weights(weights: npt.NDArray[Any], listeners: npt.NDArray[Any]) -> Floats:
    """Return how much pairs of user and artist count, from the weights of the interactions and the artists' listeners.

    Only the ratios within a list matter.
    """
    plays = np.where(weights > 0, weights, UNKNOWN_PLAYS).astype(np.float32)
    return np.asarray((1 + SATURATION) * plays / (plays + SATURATION) * listeners**-FREQUENCY_POWER, np.float32)


def user_vectors(pairs: "scipy.sparse.csr_matrix", artists: Floats, threads: int = 1) -> Floats:
    """Return a vector for each row of pair weights, from the vectors of the columns; zeros where nothing is known."""
    lengths = np.diff(pairs.indptr)
    totals = np.repeat(np.asarray(pairs.sum(axis=1), np.float32).ravel(), lengths)
    shares = scipy.sparse.csr_matrix((pairs.data / totals, pairs.indices, pairs.indptr), pairs.shape)
    return Ridge.of_users(artists).fit_rows(shares, artists, threads)


def artist_vectors(
    pairs: "scipy.sparse.csr_matrix", users: Floats, towards: Floats, unobserved: float, ridge: float, threads: int = 1
) -> Floats:
    """Return a vector for each column of pair weights, from the vectors of the rows; zeros for empty columns.

    The ridge draws the vectors `towards` the given ones. An unobserved pair weighs `unobserved`; the others weigh 1 on
    average.
    """
    scaled = pairs.T.tocsr()
    scaled.data /= scaled.data.mean()
    return Ridge.build(users, unobserved, ridge).fit_rows(scaled, users, threads, towards)


@dataclass(frozen=True)
class Ridge:
    """Solves (V'WV + base) x = V'w + ridge t for weights w, the diagonal of W, of vectors V, drawn towards t.

    `base` is that of all vectors with the target 0, and of the ridge.
    """

    ridge: float
    base: Floats
    root: Floats
    """A matrix whose product with its transpose is the inverse of `base`."""

    @classmethod
    def of_users(cls, artists: Floats) -> "Ridge":
        """Return the regression of users on the vectors of all artists. The weights of a list must sum to 1."""
        return cls.build(artists, UNOBSERVED, USER_RIDGE)

    @classmethod
    def build(cls, vectors: Floats, unobserved: float, ridge: float) -> "Ridge":
        """Return the regression on all `vectors`, each with the target 0 and the weight `unobserved`."""
        base = unobserved * (vectors.T @ vectors).astype(np.float64) + ridge * np.eye(vectors.shape[1])
        root = np.linalg.inv(np.linalg.cholesky(base)).T
        return cls(ridge, base.astype(np.float32), root.astype(np.float32))

    def fit(self, vectors: Floats, weights: Floats, towards: Floats | None = None) -> Floats:
        """Return a solution for each list of a batch, given vectors (batch, pairs, dimensions) and their weights.

        `towards` (batch, dimensions) is 0 by default.
        """
        if towards is None:
            return self._fit(vectors, weights, np.ones((*weights.shape, 1), np.float32))
        # What is left of the targets after the solution without pairs.
        alone = np.asarray(self.ridge * towards @ self.root @ self.root.T, np.float32)
        left = np.asarray(1 - vectors @ alone[:, :, None], np.float32)
        return np.asarray(self._fit(vectors, weights, left) + alone, np.float32)

    def _fit(self, vectors: Floats, weights: Floats, targets: Floats) -> Floats:
        columns = vectors.transpose(0, 2, 1)
        if vectors.shape[1] >= vectors.shape[2]:
            weighted = columns * weights[:, None, :]
            return np.asarray(np.linalg.solve(weighted @ vectors + self.base, weighted @ targets)[:, :, 0])
        # The dual problem, with an equation for each pair, is smaller.
        turned = vectors @ self.root
        gram = turned @ turned.transpose(0, 2, 1)
        diagonal = np.arange(vectors.shape[1])
        gram[:, diagonal, diagonal] += 1 / weights
        return np.asarray((turned.transpose(0, 2, 1) @ np.linalg.solve(gram, targets))[:, :, 0] @ self.root.T)

    def fit_rows(
        self, pairs: "scipy.sparse.csr_matrix", vectors: Floats, threads: int, towards: Floats | None = None
    ) -> Floats:
        """Return a solution for each row of pair weights, given the vectors of the columns; zeros for empty rows."""
        solutions = np.zeros((pairs.shape[0], vectors.shape[1]), np.float32)

        def fill(rows: Ints) -> None:
            length = pairs.indptr[rows[0] + 1] - pairs.indptr[rows[0]]
            places = pairs.indptr[rows][:, None] + np.arange(length)
            drawn = None if towards is None else towards[rows]
            solutions[rows] = self.fit(vectors[pairs.indices[places]], pairs.data[places], drawn)

        # BLAS would start threads of its own in each of these.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(fill, _blocks(np.diff(pairs.indptr))):
                pass
        return solutions


def _blocks(lengths: npt.NDArray[np.integer]) -> Iterator[Ints]:
    """Yield the indices of rows of the same length, which can be solved together; empty rows are left out."""
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    for rows in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        if len(rows):
            step = min(ROWS_PER_BLOCK, max(1, PAIRS_PER_BLOCK // int(lengths[rows[0]])))
            yield from (rows[start : start + step] for start in range(0, len(rows), step))
