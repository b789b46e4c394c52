"""Who listens to whom, in memory: 6 bytes a pair, so that 25 million pairs take 150 MB.

Reading it from the sentences table, and leaving pairs out of it. What word2vec makes of it stands elsewhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy  # scipy.sparse loads when it is first used, which a refresh does not

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Listening:
    """The pairs of user and artist, user after user.

    The pairs of user number i are `starts[i]` to `starts[i + 1]`; each has an artist's number and a weight of 0 or
    more. Artists are numbered from the one with most listeners to the one with fewest, equals by name.
    """

    user_ids: npt.NDArray[np.int32]
    artist_names: pa.Array
    starts: Ints
    artists: npt.NDArray[np.int32]
    weights: npt.NDArray[np.uint8]

    @property
    def listeners(self) -> Ints:
        """How many distinct users listen to each artist, by the artist's number; pairs of weight 0 do not count."""
        return np.bincount(self.artists[self.weights > 0], minlength=len(self.artist_names))

    @property
    def users(self) -> npt.NDArray[np.int32]:
        """The user's number of each pair."""
        return np.repeat(np.arange(len(self.user_ids), dtype=np.int32), np.diff(self.starts))

    def sum_by_user(self, values: npt.NDArray[np.generic]) -> Ints:
        """Return the sum of the pairs' values for each user, 0 for a user without pairs."""
        sums = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
        return np.diff(sums[self.starts])

    def matrix(self) -> "scipy.sparse.csr_matrix":
        """Return the weights as a sparse matrix, users by artists."""
        shape = (len(self.user_ids), len(self.artist_names))
        return scipy.sparse.csr_matrix((self.weights.astype(np.float32), self.artists, self.starts), shape)

    def only(self, pairs: Bools) -> "Listening":
        """Return the marked pairs alone; users and artists keep their numbers."""
        starts = np.concatenate(([0], np.cumsum(self.sum_by_user(pairs))))
        return replace(self, starts=starts, artists=self.artists[pairs], weights=self.weights[pairs])


def read_listening(batches: Iterable[pa.RecordBatch]) -> Listening:
    """Read batches of `user_id`, `artist_name` and `weight`, ordered by user, one row for each pair.

    Raises ValueError where there is no row, or where the rows of a user do not stand together.
    """
    numbers: dict[str, int] = {}
    users, artists, weights = [], [], []
    for batch in batches:
        names = batch.column("artist_name").dictionary_encode()
        codes = np.fromiter((numbers.setdefault(name, len(numbers)) for name in names.dictionary.to_pylist()), np.int32)
        users.append(batch.column("user_id").to_numpy().astype(np.int32))
        artists.append(codes[names.indices.to_numpy()])
        weights.append(batch.column("weight").to_numpy().astype(np.uint8))
    if not numbers:
        raise ValueError("No user has an artist yet. Drop the two CSV files and run the job refresh_rankings first.")
    return _number(np.concatenate(users), np.concatenate(artists), np.concatenate(weights), pa.array(list(numbers)))


def _number(
    users: npt.NDArray[np.int32], artists: npt.NDArray[np.int32], weights: npt.NDArray[np.uint8], names: pa.Array
) -> Listening:
    if np.any(np.diff(users) < 0):
        raise ValueError("The sentences must be ordered by user_id.")
    firsts = np.flatnonzero(np.diff(users, prepend=users[0] - np.int64(1)))
    listeners = np.bincount(artists[weights > 0], minlength=len(names))
    order = pc.sort_indices(
        pa.table({"listeners": listeners, "name": names}),
        sort_keys=[("listeners", "descending"), ("name", "ascending")],
    )
    numbers = np.empty(len(names), np.int32)
    numbers[order.to_numpy()] = np.arange(len(names), dtype=np.int32)
    return Listening(users[firsts], names.take(order), np.append(firsts, len(users)), numbers[artists], weights)
