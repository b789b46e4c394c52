"""Recommendations and nearest neighbours from the published vectors, held in memory and reloaded when they change.

800,000 artists need 160 MB.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from music_assets.embedding.interactions import Bools, Ints
from music_assets.embedding.layout import plane
from music_assets.embedding.neighbours import VectorIndex
from music_assets.embedding.ridge import Floats, Ridge, artist_weights, pair_weights
from music_assets.service.problems import ProblemError
from music_assets.service.snapshots import Found, InMemory, Snapshots, open_in_service
from music_assets.storage.published_snapshot import PublishedSnapshot, PublishedTable
from music_assets.tables import ARTIST_EMBEDDING, EMBEDDING_DIMENSIONS, EMBEDDING_TABLES, USER_EMBEDDING, Table
from music_assets.transforms.interactions import weight_of

ROWS_PER_BATCH = 50_000
MAPPED_ARTISTS = 10_000
"""Artists on the map. More would take longer to load than a page may."""


@dataclass(frozen=True)
class VectorTable:
    """The vectors of one table: the key of each row, the row of each key, and the index over the rows."""

    key: pa.Field
    keys: list[Any]
    rows: dict[Any, int]
    index: VectorIndex

    def row(self, key: Any) -> int:
        """Return the row of a key. Raises ProblemError if the key has no vector."""
        try:
            return self.rows[key]
        except KeyError:
            raise ProblemError("not-found", f"{key!r} has no vector. Names must match exactly.") from None

    def table(self, found: tuple[Ints, Floats], score: str) -> pa.RecordBatch:
        """Return the keys of rows, and a column of their scores."""
        rows, scores = found
        keys = pa.array([self.keys[row] for row in rows.tolist()], self.key.type)
        return pa.record_batch({self.key.name: keys, score: pa.array(scores.astype(np.float64))})


@dataclass(frozen=True)
class Vectors:
    """The published vectors, the number of listeners of each artist, and what it takes to place a new user.

    `training` identifies the training: the vectors of users also change without one.
    """

    artists: VectorTable
    users: VectorTable
    listeners: Ints
    weights: Floats
    ridge: Ridge
    training: PublishedTable

    def artists_with(self, min_listeners: int) -> Bools | None:
        """Return a mask of the artists with as many listeners; None if all have."""
        return None if min_listeners <= 1 else self.listeners >= min_listeners

    def place(self, plays: Mapping[str, int]) -> tuple[Ints, Floats]:
        """Return the rows of the known artists of a list, given the plays by name, and the vector of its user.

        Raises ProblemError if no artist is known.
        """
        known = {
            self.artists.rows[name]: weight_of(count) for name, count in plays.items() if name in self.artists.rows
        }
        if not known:
            raise ProblemError("not-found", "None of the artists has a vector. Names must match exactly.")
        rows = np.fromiter(known, np.int64)
        weights = pair_weights(np.fromiter(known.values(), np.float32), self.weights[rows])
        vectors = self.artists.index.vectors(rows)
        return rows, self.ridge.fit(vectors[None], weights[None] / np.sqrt(weights.sum()))[0]


@dataclass(frozen=True)
class ArtistMap:
    """The artists with the most listeners, the largest first, and two coordinates of each."""

    names: list[str]
    listeners: Ints
    places: Floats


class Similarity:
    """Finds artists and users in the newest published vectors.

    Every method raises ProblemError if no training has been published or the key is unknown, and NothingPublishedError.
    """

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._vectors = InMemory(snapshots, _load, _versions)
        self._drawing = asyncio.Lock()
        self._map: tuple[PublishedTable, ArtistMap] | None = None

    @property
    def is_trained(self) -> bool:
        """Whether embeddings have been published."""
        tables = self._snapshots.newest().tables
        return all(table.full_name in tables and tables[table.full_name].rows for table in EMBEDDING_TABLES)

    async def similar_artists(self, artist: str, count: int, min_listeners: int = 1) -> Found:
        """Return the artists with the largest cosine to an artist."""

        def search(vectors: Vectors) -> pa.RecordBatch:
            artists = vectors.artists
            allowed = vectors.artists_with(min_listeners)
            return artists.table(artists.index.neighbours(artists.row(artist), count, allowed), "similarity")

        return await self._search(search)

    async def similar_users(self, user_id: int, count: int) -> Found:
        """Return the users with the largest cosine to a user."""

        def search(vectors: Vectors) -> pa.RecordBatch:
            users = vectors.users
            return users.table(users.index.neighbours(users.row(user_id), count), "similarity")

        return await self._search(search)

    async def artists_for_user(self, user_id: int, count: int, min_listeners: int = 1) -> Found:
        """Return the artists with the largest inner product with a user, those in the user's list among them."""

        def search(vectors: Vectors) -> pa.RecordBatch:
            vector = vectors.users.index.vectors(np.array([vectors.users.row(user_id)]))[0]
            allowed = vectors.artists_with(min_listeners)
            return vectors.artists.table(vectors.artists.index.largest_products(vector, count, allowed), "score")

        return await self._search(search)

    async def artists_for_list(self, plays: Mapping[str, int], count: int, min_listeners: int = 1) -> Found:
        """Return the artists outside a list with the largest inner product with its user, given the plays by name."""

        def search(vectors: Vectors) -> pa.RecordBatch:
            listed, vector = vectors.place(plays)
            allowed = vectors.artists_with(min_listeners)
            rows, scores = vectors.artists.index.largest_products(vector, count + len(listed), allowed)
            others = ~np.isin(rows, listed)
            return vectors.artists.table((rows[others][:count], scores[others][:count]), "score")

        return await self._search(search)

    async def artist_map(self) -> ArtistMap:
        """Return the map of the largest artists, which is computed once for each training."""
        vectors = _trained((await self._vectors.current())[0])
        async with self._drawing:
            if self._map is None or self._map[0] != vectors.training:
                self._map = vectors.training, await asyncio.to_thread(_artist_map, vectors)
            return self._map[1]

    async def _search(self, search: Callable[[Vectors], pa.RecordBatch]) -> Found:
        return await self._vectors.find(lambda vectors: search(_trained(vectors)))


def _trained(vectors: Vectors | None) -> Vectors:
    if vectors is None:
        raise ProblemError("not-trained", "No embeddings of this release have been published yet.")
    return vectors


def _artist_map(vectors: Vectors) -> ArtistMap:
    rows = np.argsort(-vectors.listeners, kind="stable")[:MAPPED_ARTISTS]
    names = [vectors.artists.keys[row] for row in rows.tolist()]
    return ArtistMap(names, vectors.listeners[rows], plane(vectors.artists.index.vectors(rows)))


def _versions(snapshot: PublishedSnapshot) -> tuple[PublishedTable | None, ...]:
    return tuple(snapshot.tables.get(table.full_name) for table in EMBEDDING_TABLES)


def _load(snapshot: PublishedSnapshot) -> Vectors | None:
    """Load the vectors; None if there are none, or those of release 0.1, whose inner products mean nothing."""
    if any(table.full_name not in snapshot.tables for table in EMBEDDING_TABLES):
        return None
    try:
        artists, vectors, listeners = _load_table(snapshot, ARTIST_EMBEDDING, ", coalesce(listeners, 0)")
    except duckdb.BinderException:  # that release has also published them, without the column
        return None
    if not listeners.all() or not artists.keys:
        return None
    users, _, _ = _load_table(snapshot, USER_EMBEDDING, "")
    training = snapshot.tables[ARTIST_EMBEDDING.full_name]
    return Vectors(artists, users, listeners, artist_weights(listeners), Ridge.of_users(vectors), training)


def _load_table(snapshot: PublishedSnapshot, table: Table, others: str) -> tuple[VectorTable, Floats, Ints]:
    keys: list[Any] = []
    vectors: list[Floats] = [np.empty((0, EMBEDDING_DIMENSIONS), np.float32)]
    listeners: list[Ints] = [np.empty(0, np.int64)]
    for key, *columns in _batches(snapshot, table, others):
        keys += key.to_pylist()
        vectors.append(np.column_stack(columns[:EMBEDDING_DIMENSIONS]).astype(np.float32))
        listeners += [column.to_numpy() for column in columns[EMBEDDING_DIMENSIONS:]]
    rows = {key: row for row, key in enumerate(keys)}
    found = np.concatenate(vectors)
    key = table.schema.to_pyarrow().field(table.key[0])
    return VectorTable(key, keys, rows, VectorIndex.build(found)), found, np.concatenate(listeners)


def _batches(snapshot: PublishedSnapshot, table: Table, others: str) -> Iterator[list[Any]]:
    names = ", ".join((*table.key, *(f"dim_{number}" for number in range(EMBEDDING_DIMENSIONS))))
    with open_in_service(snapshot) as connection:
        query = f"SELECT {names}{others} FROM {table.full_name}"
        reader: Any = connection.sql(query).to_arrow_reader(ROWS_PER_BATCH)
        for batch in reader:
            yield batch.columns
