"""From word vectors to an embedding of every artist and every user.

An artist's embedding has length 1. Its first 49 dimensions are its taste: its word vector, or, for an artist too rare
to train, the weighted mean of its listeners' vectors. Its last dimension marks which of the two it is. Such a mean is
close to every user, because users are means too: without the mark, the rarest artists would come first in every
ranking by cosine. The mark does not change the order among trained artists, nor among the others.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import scipy

from music_assets.embedding.interactions import Bools, Interactions
from music_assets.embedding.word2vec import DIMENSIONS, WordVectors

TRAINED_MARK = 0.5
ESTIMATED_MARK = -0.3
ROWS_PER_BATCH = 65_536

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embeddings:
    """One vector per artist and per user, in the order of the interactions' indices."""

    artist_names: pa.Array
    artists: Floats
    user_ids: npt.NDArray[np.int32]
    users: Floats

    def write_artists(self, path: Path) -> None:
        """Write `artist_name`, `dim_0` … `dim_49` as parquet."""
        _write(path, "artist_name", self.artist_names, self.artists)

    def write_users(self, path: Path) -> None:
        """Write `user_id`, `dim_0` … `dim_49` as parquet."""
        _write(path, "user_id", pa.array(self.user_ids), self.users)


def embed(interactions: Interactions, word_vectors: WordVectors) -> Embeddings:
    """Return the embeddings of all artists and users.

    A user's vector is the weighted mean of the user's trained artists, or of the other artists if none is trained.
    Those are estimated step by step: rare artists from their listeners, then more users from these artists. Artists
    and users not connected to any trained artist get the mean of all trained artists. Where all weights are 0, each
    interaction counts the same.
    """
    trained = np.zeros(len(interactions.artist_names), bool)
    trained[word_vectors.artists] = True
    taste = np.zeros((len(trained), DIMENSIONS), np.float32)
    taste[trained] = normalize(word_vectors.vectors)
    weights = interactions.matrix()
    weights.data += np.float32(1e-3) * (weights.data == 0)
    _estimate_rare(taste, trained, weights)
    mark = np.where(trained, np.float32(TRAINED_MARK), np.float32(ESTIMATED_MARK))[:, None]
    artists = np.hstack((taste * np.sqrt(1 - mark**2), mark))
    users, reached = _weighted_mean(weights, artists, trained)
    others, reached_by_others = _weighted_mean(weights, artists, ~trained)
    users[~reached] = others[~reached]
    users[~(reached | reached_by_others)] = artists[trained].mean(axis=0)
    return Embeddings(interactions.artist_names, artists, interactions.user_ids, users)


def _estimate_rare(taste: Floats, trained: Bools, weights: "scipy.sparse.csr_matrix") -> None:
    """Fill in the rows of artists that are not trained, one step further from the trained ones at a time."""
    known, average = trained.copy(), taste[trained].mean(axis=0)
    while not known.all():
        users, reached = _weighted_mean(weights, taste, known)
        means, estimated = _weighted_mean(weights.T, normalize(users), reached)
        new = estimated & ~known
        if not new.any():
            taste[~known] = normalize(average[None])
            return
        taste[new] = normalize(means[new])
        known |= new


def _weighted_mean(weights: "scipy.sparse.csr_matrix", vectors: Floats, known: Bools) -> tuple[Floats, Bools]:
    """Return the weighted mean of the known vectors for each row of the matrix, and which rows have any."""
    masked = weights @ scipy.sparse.diags_array(known.astype(np.float32))
    totals = np.asarray(masked.sum(axis=1)).reshape(-1, 1)
    means = np.asarray(masked @ vectors) / np.where(totals > 0, totals, 1)
    return means.astype(np.float32), totals[:, 0] > 0


def normalize(vectors: Floats) -> Floats:
    """Scale each row to length 1; rows of zeros do not change."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def _write(path: Path, key: str, keys: pa.Array, vectors: Floats) -> None:
    # In batches: the doubles of all rows would take twice the memory of the vectors.
    schema = pa.schema([(key, keys.type), *((f"dim_{number}", pa.float64()) for number in range(vectors.shape[1]))])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(keys), ROWS_PER_BATCH):
            block = vectors[start : start + ROWS_PER_BATCH].astype(np.float64)
            writer.write_batch(pa.record_batch([keys[start : start + len(block)], *block.T], schema=schema))
