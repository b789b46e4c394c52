"""Exact nearest neighbours by cosine, with faiss."""

from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from music_assets.embedding.vectors import Floats, normalize


@dataclass(frozen=True)
class CosineIndex:
    """An index over the rows of a matrix. Searches return row numbers, nearest first, and their cosines."""

    index: faiss.IndexFlatIP

    @classmethod
    def build(cls, vectors: Floats) -> "CosineIndex":
        """Index the rows, copied as unit vectors of float32."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(normalize(vectors))
        return cls(index)

    def vector(self, row: int) -> Floats:
        """Return a row as a unit vector."""
        return np.asarray(self.index.reconstruct(row), np.float32)

    def search(self, vector: Floats, k: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the k rows nearest to a vector."""
        cosines, rows = self.index.search(normalize(vector[None]), min(k, self.index.ntotal))
        return rows[0], cosines[0]

    def neighbours(self, row: int, k: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the k rows nearest to a row, without the row itself."""
        rows, cosines = self.search(self.vector(row), k + 1)
        others = rows != row
        return rows[others][:k], cosines[others][:k]
