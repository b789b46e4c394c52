"""Nearest neighbours among the published vectors, which are held in memory and reloaded after a training.

Artists and users share one vector space, so the index of artists also serves users. 800,000 artists need 160 MB.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from music_assets.embedding.neighbours import CosineIndex
from music_assets.service.problems import ProblemError
from music_assets.service.snapshots import Snapshots
from music_assets.storage.published_snapshot import PublishedSnapshot
from music_assets.tables import ARTIST_EMBEDDING, EMBEDDING_DIMENSIONS, EMBEDDING_TABLES, USER_EMBEDDING, Table

ROWS_PER_BATCH = 50_000
MEMORY_LIMIT = "256MB"


@dataclass(frozen=True)
class VectorTable:
    """The vectors of one table: the key of each row, the row of each key, and the index over the rows."""

    keys: list[Any]
    rows: dict[Any, int]
    index: CosineIndex

    def row(self, key: Any) -> int:
        """Return the row of a key. Raises ProblemError if the key has no vector."""
        try:
            return self.rows[key]
        except KeyError:
            raise ProblemError("not-found", f"{key!r} has no vector. Names must match exactly.") from None


@dataclass(frozen=True)
class Matches:
    """Keys and their cosine similarities, most similar first."""

    keys: list[Any]
    similarities: list[float]


class Similarity:
    """Finds nearest neighbours in the newest published vectors.

    Every method raises ProblemError if no training has been published or the key is unknown, and NothingPublishedError.
    """

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._loading = asyncio.Lock()
        self._versions: tuple[int, ...] | None = None
        self._vectors: dict[Table, VectorTable] = {}

    async def similar_artists(self, artist: str, count: int) -> Matches:
        """Return the artists nearest to an artist."""
        return await self._others(ARTIST_EMBEDDING, artist, count)

    async def similar_users(self, user_id: int, count: int) -> Matches:
        """Return the users nearest to a user."""
        return await self._others(USER_EMBEDDING, user_id, count)

    async def artists_near_user(self, user_id: int, count: int) -> Matches:
        """Return the artists nearest to a user."""
        vectors = await self._current()
        users, artists = vectors[USER_EMBEDDING], vectors[ARTIST_EMBEDDING]
        vector = users.index.vector(users.row(user_id))
        rows, similarities = await asyncio.to_thread(artists.index.search, vector, count)
        return Matches([artists.keys[row] for row in rows.tolist()], similarities.tolist())

    async def _others(self, table: Table, key: Any, count: int) -> Matches:
        vectors = (await self._current())[table]
        rows, similarities = await asyncio.to_thread(vectors.index.neighbours, vectors.row(key), count)
        return Matches([vectors.keys[row] for row in rows.tolist()], similarities.tolist())

    async def _current(self) -> dict[Table, VectorTable]:
        """Return the newest vectors. One request loads them; concurrent ones wait for it."""
        if _versions(self._snapshots.newest()) != self._versions:
            async with self._loading:
                newest = self._snapshots.newest()
                if _versions(newest) != self._versions:
                    self._vectors = await asyncio.to_thread(_load, newest)
                    self._versions = _versions(newest)
        if not self._vectors[ARTIST_EMBEDDING].keys:
            raise ProblemError("not-trained", "No embeddings have been published yet.")
        return self._vectors


def _versions(snapshot: PublishedSnapshot) -> tuple[int, ...]:
    tables = (snapshot.tables.get(table.full_name) for table in EMBEDDING_TABLES)
    return tuple(-1 if table is None else table.version for table in tables)


def _load(snapshot: PublishedSnapshot) -> dict[Table, VectorTable]:
    return {
        table: _load_table(snapshot.path, table) for table in EMBEDDING_TABLES if table.full_name in snapshot.tables
    }


def _load_table(path: Path, table: Table) -> VectorTable:
    keys: list[Any] = []
    vectors: list[np.ndarray] = [np.empty((0, EMBEDDING_DIMENSIONS), np.float32)]
    for batch_keys, batch_vectors in _batches(path, table):
        keys += batch_keys
        vectors.append(batch_vectors)
    rows = {key: row for row, key in enumerate(keys)}
    return VectorTable(keys, rows, CosineIndex.build(np.concatenate(vectors)))


def _batches(path: Path, table: Table) -> Iterator[tuple[list[Any], np.ndarray]]:
    names = ", ".join((*table.key, *(f"dim_{number}" for number in range(EMBEDDING_DIMENSIONS))))
    with duckdb.connect(str(path), read_only=True, config={"memory_limit": MEMORY_LIMIT, "threads": 1}) as connection:
        reader: Any = connection.sql(f"SELECT {names} FROM {table.full_name}").to_arrow_reader(ROWS_PER_BATCH)
        for batch in reader:
            key, *dimensions = batch.columns
            yield key.to_pylist(), np.column_stack(dimensions).astype(np.float32)
