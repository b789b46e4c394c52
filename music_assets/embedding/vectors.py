"""From the vectors that word2vec trained to a vector for every artist and every user.

An artist's vector has length 1. Its first 49 dimensions tell its taste: word2vec's vector, or for an artist too rare to
train on the weighted mean of its listeners' vectors. Its last dimension tells which of the two it is. Means lie close
to every user, being means as users are, so that without that dimension the rarest artists would come first in every
ranking by cosine. Among trained artists, and among the others, it changes no order.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy

from music_assets.embedding.interactions import Bools, Listening
from music_assets.embedding.word2vec import DIMENSIONS, WordVectors

TRAINED = 0.5
ESTIMATED = -0.3
ROWS_PER_BATCH = 65_536

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embeddings:
    """A vector of 50 dimensions for each artist and each user, in the order of the listening's numbers."""

    artist_names: pa.Array
    artists: Floats
    user_ids: npt.NDArray[np.int32]
    users: Floats

    def artist_table(self) -> pa.RecordBatchReader:
        """Return `artist_name` and the dimensions as DOUBLE columns `dim_0` to `dim_49`."""
        return _reader("artist_name", self.artist_names, self.artists)

    def user_table(self) -> pa.RecordBatchReader:
        """Return `user_id` and the dimensions as DOUBLE columns `dim_0` to `dim_49`."""
        return _reader("user_id", pa.array(self.user_ids), self.users)


def embed(listening: Listening, word_vectors: WordVectors) -> Embeddings:
    """Return the vectors of all artists and users.

    A user's vector is the weighted mean of the trained artists' vectors; a user without any gets the mean of the
    others', found step by step: rare artists from their listeners, then such users from their rare artists. Who is
    linked to no trained artist at all gets the mean of all trained artists. Where all weights are 0, they count alike.
    """
    known = np.zeros(len(listening.artist_names), bool)
    known[word_vectors.artists] = True
    taste = np.zeros((len(known), DIMENSIONS), np.float32)
    taste[known] = unit(word_vectors.vectors)
    common = taste[known].mean(axis=0)
    weights = listening.matrix()
    weights.data += np.float32(1e-3) * (weights.data == 0)
    _spread(taste, known.copy(), weights, common)
    certainty = np.where(known, np.float32(TRAINED), np.float32(ESTIMATED))[:, None]
    artists = np.hstack((taste * np.sqrt(1 - certainty**2), certainty))
    users, reached = _mean(weights, artists, known)
    others, reached_by_others = _mean(weights, artists, ~known)
    users[~reached] = others[~reached]
    users[~(reached | reached_by_others)] = artists[known].mean(axis=0)
    return Embeddings(listening.artist_names, artists, listening.user_ids, users)


def _spread(taste: Floats, known: Bools, weights: "scipy.sparse.csr_matrix", common: Floats) -> None:
    """Fill in the taste of the artists not known, from what is known, in as many steps as there are links between."""
    while not known.all():
        users, reached = _mean(weights, taste, known)
        means, estimated = _mean(weights.T, unit(users), reached)
        new = estimated & ~known
        if not new.any():
            taste[~known] = unit(common[None])
            return
        taste[new] = unit(means[new])
        known |= new


def _mean(weights: "scipy.sparse.csr_matrix", vectors: Floats, known: Bools) -> tuple[Floats, Bools]:
    """Return the weighted mean of the known vectors for each row of the matrix, and which rows have any."""
    masked = weights @ scipy.sparse.diags_array(known.astype(np.float32))
    totals = np.asarray(masked.sum(axis=1)).reshape(-1, 1)
    means = np.asarray(masked @ vectors) / np.where(totals > 0, totals, 1)
    return means.astype(np.float32), totals[:, 0] > 0


def unit(vectors: Floats) -> Floats:
    """Return the vectors, one a row, at length 1; vectors of zeros as they are."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def _reader(key: str, keys: pa.Array, vectors: Floats) -> pa.RecordBatchReader:
    names = [f"dim_{number}" for number in range(vectors.shape[1])]
    schema = pa.schema([(key, keys.type), *((name, pa.float64()) for name in names)])

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(keys), ROWS_PER_BATCH):
            block = vectors[start : start + ROWS_PER_BATCH].astype(np.float64)
            yield pa.record_batch([keys[start : start + len(block)], *block.T], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())
