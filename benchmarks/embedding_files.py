"""What trainers of embeddings read and write, ours and the peers' alike.

They read `pairs.parquet`: user_id, artist_name and weight, ordered by user. They write `artists.npz` and `users.npz`,
each with the `keys` (names, ids) and their `vectors`, which score an artist for a user by their product.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PAIRS = "pairs.parquet"
DIMENSIONS = 50

Floats = npt.NDArray[np.float32]


def unit(vectors: npt.NDArray[Any]) -> Floats:
    """Return the vectors at length 1, so that their product is the cosine; a vector of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def write(folder: Path, kind: str, keys: Sequence[Any] | npt.NDArray[Any], vectors: Floats) -> None:
    """Write the vectors of `artists` or `users`."""
    np.savez(folder / f"{kind}.npz", keys=np.asarray(keys), vectors=vectors)


def read(folder: Path, kind: str) -> tuple[npt.NDArray[Any], Floats]:
    """Return keys and vectors of `artists` or `users`."""
    with np.load(folder / f"{kind}.npz") as file:
        return file["keys"], file["vectors"]
