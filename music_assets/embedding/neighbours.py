"""Exact search among vectors: by cosine, and by inner product."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from music_assets.embedding.interactions import Bools, Ints
from music_assets.embedding.ridge import Floats
from music_assets.embedding.vectors import normalize

FIRST_BLOCK = 16_384
"""Rows that a search by inner product looks at first; each further block is as large as all before."""


@dataclass(frozen=True)
class VectorIndex:
    """The rows of a matrix as unit vectors, the longest row first, with their lengths.

    `rows` has the row number at each place, `places` the place of each row. Searches return row numbers, best first,
    and their scores; they leave out rows where `allowed` is false.
    """

    units: Floats
    lengths: Floats
    rows: Ints
    places: Ints

    @classmethod
    def build(cls, vectors: Floats) -> "VectorIndex":
        """Index a copy of the rows."""
        lengths = np.linalg.norm(vectors, axis=1)
        rows = np.argsort(-lengths, kind="stable")
        return cls(normalize(vectors[rows]), lengths[rows], rows, np.argsort(rows))

    def vectors(self, rows: Ints) -> Floats:
        """Return rows of the matrix."""
        places = self.places[rows]
        return np.asarray(self.units[places] * self.lengths[places, None])

    def largest_cosines(self, vector: Floats, k: int, allowed: Bools | None = None) -> tuple[Ints, Floats]:
        """Return the k rows with the largest cosines to a vector."""
        cosines = self.units @ normalize(vector[None])[0]
        return _largest(*_permitted(self.rows, cosines, allowed), k)

    def largest_products(self, vector: Floats, k: int, allowed: Bools | None = None) -> tuple[Ints, Floats]:
        """Return the k rows with the largest inner products with a vector.

        A product is at most that of the lengths, so the search ends where no later row can be among the best.
        """
        rows, products = np.empty(0, np.int64), np.empty(0, np.float32)
        for block in _blocks(len(self.rows)):
            if len(rows) == k and products[-1] >= np.linalg.norm(vector) * self.lengths[block.start]:
                break
            found = self.units[block] @ vector * self.lengths[block]
            more_rows, more_products = _permitted(self.rows[block], found, allowed)
            rows, products = np.concatenate([rows, more_rows]), np.concatenate([products, more_products])
            rows, products = _largest(rows, products, k)
        return rows, products

    def neighbours(self, row: int, k: int, allowed: Bools | None = None) -> tuple[Ints, Floats]:
        """Return the k rows with the largest cosines to a row, without the row itself."""
        rows, cosines = self.largest_cosines(self.vectors(np.array([row]))[0], k + 1, allowed)
        others = rows != row
        return rows[others][:k], cosines[others][:k]


def _blocks(count: int) -> Iterator[slice]:
    start, stop = 0, min(FIRST_BLOCK, count)
    while start < count:
        yield slice(start, stop)
        start, stop = stop, min(2 * stop, count)


def _permitted(rows: Ints, scores: Floats, allowed: Bools | None) -> tuple[Ints, Floats]:
    if allowed is None:
        return rows, scores
    permitted = allowed[rows]
    return rows[permitted], scores[permitted]


def _largest(rows: Ints, scores: Floats, k: int) -> tuple[Ints, Floats]:
    places = np.argpartition(scores, -k)[-k:] if k < len(scores) else np.arange(len(scores))
    places = places[np.argsort(-scores[places], kind="stable")]
    return rows[places], scores[places]
