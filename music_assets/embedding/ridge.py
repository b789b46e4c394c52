"""Ridge regression between users and artists: each side's vectors from those of the other.

A user's vector u minimizes, over the artists a of the user's list with weights w (`balance_lists`),

    sum of w (1 - u·a)²  +  UNOBSERVED times the sum over all artists of (u·a)²  +  USER_RIDGE |u|²

so that the inner product is near 1 for artists of the list and near 0 for others. It depends on the list and the table
of artists alone: the training, refreshes and the service compute the same vector. Artists are fitted to users alike,
but with one ridge for all: the fewer listeners an artist has, the shorter its vector, and the later it is recommended.

Repeated in turns, this is implicit alternating least squares (Hu, Koren and Volinsky, 2008), which starts from word2vec
here. Users are whitened before artists are fitted to them: inner products stay the same, but cosines between artists
weigh the directions in which tastes differ most.
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

UNOBSERVED = 0.02
"""Weight of each artist that is not in a user's list, where a list of 50 artists weighs about 9."""
USER_RIDGE = 0.7
FREQUENCY_POWER = 0.4
"""Artists weigh by the number of listeners to the power of -FREQUENCY_POWER: rare artists distinguish lists."""
FEW_LISTENERS = 2
"""Half-way point of the saturation of listeners: what hardly anybody else lists says little about taste."""
SATURATION = 1.0
"""Half-way point of the saturation of plays: weights 1, 3 and 5 of `transforms.interactions` become 1, 1.5 and 1.67."""
UNKNOWN_PLAYS = 0.01
"""Weight of an artist without plays, which only matters to lists that have no other."""
ROWS_PER_BLOCK = 1_024
PAIRS_PER_BLOCK = 50_000
"""Limits of a block, so that a thread needs 40 MB."""


def artist_weights(listeners: npt.NDArray[Any]) -> Floats:
    """Return how much each artist counts in a list, from the listeners of all artists; 1 on average over the lists."""
    weights = listeners ** (1 - FREQUENCY_POWER) / (listeners + FEW_LISTENERS)
    return np.asarray(weights / np.average(weights, weights=listeners), np.float32)


def pair_weights(weights: npt.NDArray[Any], of_artists: Floats) -> Floats:
    """Return how much pairs of user and artist count, from the weights of the interactions and of the artists."""
    plays = np.where(weights > 0, weights, UNKNOWN_PLAYS).astype(np.float32)
    return np.asarray((1 + SATURATION) * plays / (plays + SATURATION) * of_artists, np.float32)


def balance_lists(pairs: "scipy.sparse.csr_matrix") -> "scipy.sparse.csr_matrix":
    """Divide the weights of each row by the square root of their sum, between equal rows and equal pairs."""
    roots = np.sqrt(np.asarray(pairs.sum(axis=1), np.float32).ravel())
    data = pairs.data / np.repeat(roots, np.diff(pairs.indptr))
    return scipy.sparse.csr_matrix((data, pairs.indices, pairs.indptr), pairs.shape)


def user_vectors(pairs: "scipy.sparse.csr_matrix", artists: Floats, threads: int = 1) -> Floats:
    """Return a vector for each row of pair weights, from the vectors of the columns; zeros where nothing is known."""
    return Ridge.of_users(artists).fit_rows(balance_lists(pairs), artists, threads)


def artist_vectors(
    pairs: "scipy.sparse.csr_matrix", users: Floats, unobserved: float, ridge: float, threads: int = 1
) -> Floats:
    """Return a vector for each column of pair weights, from the vectors of the rows; zeros for empty columns.

    An unobserved pair weighs `unobserved`; the others weigh 1 on average.
    """
    scaled = balance_lists(pairs).T.tocsr()
    scaled.data /= scaled.data.mean()
    return Ridge.build(users, unobserved, ridge).fit_rows(scaled, users, threads)


@dataclass(frozen=True)
class Ridge:
    """Solves (V'WV + base) x = V'w for weights w, the diagonal of W, of vectors V.

    `base` is that of all vectors with the target 0, and of the ridge.
    """

    base: Floats
    root: Floats
    """A matrix whose product with its transpose is the inverse of `base`."""

    @classmethod
    def of_users(cls, artists: Floats) -> "Ridge":
        """Return the regression of users on the vectors of all artists, for balanced lists."""
        return cls.build(artists, UNOBSERVED, USER_RIDGE)

    @classmethod
    def build(cls, vectors: Floats, unobserved: float, ridge: float) -> "Ridge":
        """Return the regression on all `vectors`, each with the target 0 and the weight `unobserved`."""
        base = unobserved * (vectors.T @ vectors).astype(np.float64) + ridge * np.eye(vectors.shape[1])
        root = np.linalg.inv(np.linalg.cholesky(base)).T
        return cls(base.astype(np.float32), root.astype(np.float32))

    def fit(self, vectors: Floats, weights: Floats) -> Floats:
        """Return a solution for each list of a batch, given vectors (batch, pairs, dimensions) and their weights."""
        targets = np.ones((*weights.shape, 1), np.float32)
        if vectors.shape[1] >= vectors.shape[2]:
            weighted = vectors.transpose(0, 2, 1) * weights[:, None, :]
            return np.asarray(np.linalg.solve(weighted @ vectors + self.base, weighted @ targets)[:, :, 0])
        # The dual problem, with an equation for each pair, is smaller.
        turned = vectors @ self.root
        gram = turned @ turned.transpose(0, 2, 1)
        diagonal = np.arange(vectors.shape[1])
        gram[:, diagonal, diagonal] += 1 / weights
        return np.asarray((turned.transpose(0, 2, 1) @ np.linalg.solve(gram, targets))[:, :, 0] @ self.root.T)

    def fit_rows(self, pairs: "scipy.sparse.csr_matrix", vectors: Floats, threads: int) -> Floats:
        """Return a solution for each row of pair weights, given the vectors of the columns; zeros for empty rows."""
        solutions = np.zeros((pairs.shape[0], vectors.shape[1]), np.float32)

        def fill(rows: Ints) -> None:
            length = pairs.indptr[rows[0] + 1] - pairs.indptr[rows[0]]
            places = pairs.indptr[rows][:, None] + np.arange(length)
            solutions[rows] = self.fit(vectors[pairs.indices[places]], pairs.data[places])

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
