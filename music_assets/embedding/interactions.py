"""The user-artist interaction matrix. What word2vec reads is written by `corpus.py`."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy  # scipy.sparse is imported on first use; most runs never need it

from music_assets.tables import REFRESH_RANKINGS

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Interactions:
    """A sparse matrix of users by artists, row by row; an interaction takes 5 bytes, so 25 million take 125 MB.

    The interactions of user index i are `starts[i]` to `starts[i + 1]`; each has an artist index and a weight, 0 or
    more. Artists are ordered by number of listeners, most first, then by name.
    """

    user_ids: npt.NDArray[np.int32]
    artist_names: pa.Array
    starts: Ints
    artists: npt.NDArray[np.int32]
    weights: npt.NDArray[np.uint8]

    @property
    def listeners(self) -> Ints:
        """The number of distinct users per artist; interactions of weight 0 do not count."""
        return np.bincount(self.artists[self.weights > 0], minlength=len(self.artist_names))

    @property
    def users(self) -> npt.NDArray[np.int32]:
        """The user index of each interaction."""
        return np.repeat(np.arange(len(self.user_ids), dtype=np.int32), np.diff(self.starts))

    def sum_by_user(self, values: npt.NDArray[np.generic]) -> Ints:
        """Return the sum of `values`, one per interaction, for each user; 0 for a user without interactions."""
        sums = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
        return np.diff(sums[self.starts])

    def matrix(self) -> "scipy.sparse.csr_matrix":
        """Return the weights as a sparse matrix of users by artists."""
        shape = (len(self.user_ids), len(self.artist_names))
        return scipy.sparse.csr_matrix((self.weights.astype(np.float32), self.artists, self.starts), shape)

    def select(self, mask: Bools) -> "Interactions":
        """Return the interactions where the mask is true; user and artist indices do not change."""
        starts = np.concatenate(([0], np.cumsum(self.sum_by_user(mask))))
        return replace(self, starts=starts, artists=self.artists[mask], weights=self.weights[mask])


def read_interactions(batches: Iterable[pa.RecordBatch]) -> Interactions:
    """Read batches of `user_id`, `artist_name` and `weight`, one row per user and artist.

    Raises ValueError if there are no rows, or if the rows are not ordered by user.
    """
    indices: dict[str, int] = {}
    users, artists, weights = [], [], []
    for batch in batches:
        names = batch.column("artist_name").dictionary_encode()
        codes = np.fromiter((indices.setdefault(name, len(indices)) for name in names.dictionary.to_pylist()), np.int32)
        users.append(batch.column("user_id").to_numpy().astype(np.int32))
        artists.append(codes[names.indices.to_numpy()])
        weights.append(batch.column("weight").to_numpy().astype(np.uint8))
    if not indices:
        raise ValueError(f"No user has an artist yet. Drop both CSV files and run the job {REFRESH_RANKINGS} first.")
    return _index(np.concatenate(users), np.concatenate(artists), np.concatenate(weights), pa.array(list(indices)))


def _index(
    users: npt.NDArray[np.int32], artists: npt.NDArray[np.int32], weights: npt.NDArray[np.uint8], names: pa.Array
) -> Interactions:
    if np.any(np.diff(users) < 0):
        raise ValueError("Interactions must be ordered by user_id.")
    firsts = np.flatnonzero(np.diff(users, prepend=users[0] - np.int64(1)))
    listeners = np.bincount(artists[weights > 0], minlength=len(names))
    order = pc.sort_indices(
        pa.table({"listeners": listeners, "name": names}),
        sort_keys=[("listeners", "descending"), ("name", "ascending")],
    )
    indices = np.empty(len(names), np.int32)
    indices[order.to_numpy()] = np.arange(len(names), dtype=np.int32)
    return Interactions(users[firsts], names.take(order), np.append(firsts, len(users)), indices[artists], weights)
