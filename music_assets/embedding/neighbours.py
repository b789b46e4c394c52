"""Nearest neighbours by cosine, exact, through faiss."""

from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from music_assets.embedding.vectors import Floats, unit


@dataclass(frozen=True)
class Neighbours:
    """Rows of vectors, by number; each is answered with the rows nearest to a vector and their cosines."""

    index: faiss.IndexFlatIP

    @classmethod
    def of(cls, vectors: Floats) -> "Neighbours":
        """Index the vectors, one a row. They are copied at length 1: 4 bytes a number."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(unit(vectors))
        return cls(index)

    def vector(self, number: int) -> Floats:
        """Return the vector of a row, at length 1."""
        return np.asarray(self.index.reconstruct(number), np.float32)

    def nearest(self, vector: Floats, count: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the numbers of the rows nearest to the vector, the nearest first, and the cosines."""
        cosines, numbers = self.index.search(unit(vector[None]), min(count, self.index.ntotal))
        return numbers[0], cosines[0]

    def others(self, number: int, count: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the rows nearest to a row of the index, which itself is left out."""
        numbers, cosines = self.nearest(self.vector(number), count + 1)
        kept = numbers != number
        return numbers[kept][:count], cosines[kept][:count]
