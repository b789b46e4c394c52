"""From word vectors to an embedding of every artist and every user."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from music_assets.embedding.interactions import Bools, Interactions, Ints
from music_assets.embedding.ridge import Floats, artist_vectors, artist_weights, pair_weights, user_vectors
from music_assets.embedding.word2vec import Hyperparameters, WordVectors
from music_assets.tables import ARTIST_EMBEDDING, USER_EMBEDDING, Table

ROWS_PER_BATCH = 65_536
SMALLEST_DIRECTION = 1e-5
"""Share of the sum of squares below which a direction of the users' vectors is noise."""


Log = Callable[[str], None]
"""Takes a line for the log of a run."""


def no_log(line: str) -> None:
    """Drop the line."""


@dataclass(frozen=True)
class Embeddings:
    """One vector per artist and per user, in the order of the interactions' indices.

    For each artist also the number of users that list it, and whether word2vec has trained it.
    """

    artist_names: pa.Array
    artists: Floats
    listeners: Ints
    trained: Bools
    user_ids: npt.NDArray[np.int32]
    users: Floats

    def write_artists(self, path: Path) -> None:
        """Write the rows of `artist_embedding` as parquet."""
        write_vectors(path, ARTIST_EMBEDDING, self.artist_names, self.artists, self.listeners, self.trained)

    def write_users(self, path: Path) -> None:
        """Write the rows of `user_embedding` as parquet."""
        write_vectors(path, USER_EMBEDDING, pa.array(self.user_ids), self.users)


def embed(
    interactions: Interactions,
    word_vectors: WordVectors,
    hyperparameters: Hyperparameters,
    threads: int = 1,
    start: Embeddings | None = None,
    log: Log = no_log,
) -> Embeddings:
    """Return the embeddings of all artists and users, by ridge regression of artists and users in turns.

    It starts with users placed by the word vectors, or, for a single round, with the users of `start`. Artists whose
    listeners share nothing with a trained artist get a vector of zeros, and their listeners that of the average user.
    """
    listeners = np.bincount(interactions.artists, minlength=len(interactions.artist_names))
    pairs = interactions.matrix()
    pairs.data = pair_weights(interactions.weights, artist_weights(listeners)[interactions.artists])
    ridge = hyperparameters.ridge or hyperparameters.min_listeners_for(len(interactions.user_ids))
    words, trained = normalize(word_vectors.vectors), np.zeros(len(listeners), bool)
    trained[word_vectors.artists] = True
    users = start.users if start else user_vectors(pairs[:, word_vectors.artists], words, threads)
    rounds = 1 if start else hyperparameters.rounds
    for number in range(1, rounds + 1):
        log(f"ridge regression: round {number} of {rounds}")
        users = whiten(users)
        artists = artist_vectors(pairs, users, hyperparameters.unobserved, ridge, threads)
        artists = scale(artists, listeners)
        users = user_vectors(pairs, artists, threads)
    unknown = ~users.any(axis=1)
    users[unknown] = users.mean(axis=0)
    return Embeddings(interactions.artist_names, artists, listeners, trained, interactions.user_ids, users)


def whiten(vectors: Floats) -> Floats:
    """Transform the vectors linearly, so that they vary alike in all directions and their mean squared length is 1.

    Directions that hold next to nothing are not blown up.
    """
    moments = (vectors.T @ vectors).astype(np.float64)
    moments += max(SMALLEST_DIRECTION * moments.trace(), np.finfo(np.float32).tiny) * np.eye(len(moments))
    return scale(np.asarray(vectors @ np.linalg.inv(np.linalg.cholesky(moments)).T), np.ones(len(vectors)))


def scale(vectors: Floats, weights: npt.NDArray[Any]) -> Floats:
    """Scale all rows alike, so that the weighted mean of their squared lengths is 1, which ridges are relative to."""
    size = np.average((vectors**2).sum(axis=1), weights=weights)
    return np.asarray(vectors / np.sqrt(size or 1), np.float32)


def normalize(vectors: Floats) -> Floats:
    """Scale each row to length 1; rows of zeros do not change."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def write_vectors(path: Path, table: Table, keys: pa.Array, vectors: Floats, *others: npt.NDArray[np.generic]) -> None:
    """Write keys, vectors and further columns as parquet, in the columns of the table."""
    # In batches: the doubles of all rows would take twice the memory of the vectors.
    schema = table.schema.to_pyarrow()
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(keys), ROWS_PER_BATCH):
            rows = slice(start, start + ROWS_PER_BATCH)
            columns = [keys[rows], *vectors[rows].astype(np.float64).T, *(other[rows] for other in others)]
            arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
