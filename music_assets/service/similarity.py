"""Whose taste resembles whose: the published vectors in memory, indexed anew when others are published.

Artists and users share one space, so an index of the artists answers for both. 800,000 artists take 160 MB.
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

ROWS_AT_ONCE = 50_000
MEMORY_LIMIT = "256MB"


@dataclass(frozen=True)
class Space:
    """The vectors of one table: `keys` tells the key of each row, `rows` the row of each key."""

    keys: list[Any]
    rows: dict[Any, int]
    index: CosineIndex

    def row(self, key: Any) -> int:
        """Return the row of a key. Raises ProblemError where it has no vector."""
        try:
            return self.rows[key]
        except KeyError:
            raise ProblemError("not-found", "There is no vector under exactly this name or number.") from None


@dataclass(frozen=True)
class Found:
    """Keys, the nearest first, each with its cosine."""

    keys: list[Any]
    cosines: list[float]


class Similarity:
    """Answers from the newest published vectors.

    Every method raises ProblemError where nothing was trained yet, or the key is unknown; NothingPublishedError.
    """

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._building = asyncio.Lock()
        self._versions: tuple[int, ...] | None = None
        self._spaces: dict[Table, Space] = {}

    async def artists_like(self, artist: str, count: int) -> Found:
        """Return the artists nearest to an artist."""
        return await self._others(ARTIST_EMBEDDING, artist, count)

    async def users_like(self, user_id: int, count: int) -> Found:
        """Return the users nearest to a user."""
        return await self._others(USER_EMBEDDING, user_id, count)

    async def artists_for(self, user_id: int, count: int) -> Found:
        """Return the artists nearest to a user."""
        spaces = await self._current()
        users, artists = spaces[USER_EMBEDDING], spaces[ARTIST_EMBEDDING]
        vector = users.index.vector(users.row(user_id))
        rows, cosines = await asyncio.to_thread(artists.index.search, vector, count)
        return Found([artists.keys[row] for row in rows.tolist()], cosines.tolist())

    async def _others(self, table: Table, key: Any, count: int) -> Found:
        space = (await self._current())[table]
        rows, cosines = await asyncio.to_thread(space.index.neighbours, space.row(key), count)
        return Found([space.keys[row] for row in rows.tolist()], cosines.tolist())

    async def _current(self) -> dict[Table, Space]:
        """Return the newest vectors; whoever comes while they are read waits for them."""
        if _versions(self._snapshots.newest()) != self._versions:
            async with self._building:
                newest = self._snapshots.newest()
                if _versions(newest) != self._versions:
                    spaces = await asyncio.to_thread(_read, newest)
                    self._spaces, self._versions = spaces, _versions(newest)
        if not self._spaces[ARTIST_EMBEDDING].keys:
            raise ProblemError("not-trained", "The embeddings have not been trained yet.")
        return self._spaces


def _versions(snapshot: PublishedSnapshot) -> tuple[int, ...]:
    tables = (snapshot.tables.get(table.full_name) for table in EMBEDDING_TABLES)
    return tuple(-1 if table is None else table.version for table in tables)


def _read(snapshot: PublishedSnapshot) -> dict[Table, Space]:
    return {table: _space(snapshot.path, table) for table in EMBEDDING_TABLES if table.full_name in snapshot.tables}


def _space(path: Path, table: Table) -> Space:
    keys: list[Any] = []
    vectors: list[np.ndarray] = [np.empty((0, EMBEDDING_DIMENSIONS), np.float32)]
    for some_keys, some_vectors in _batches(path, table):
        keys += some_keys
        vectors.append(some_vectors)
    rows = {key: row for row, key in enumerate(keys)}
    return Space(keys, rows, CosineIndex.build(np.concatenate(vectors)))


def _batches(path: Path, table: Table) -> Iterator[tuple[list[Any], np.ndarray]]:
    names = ", ".join(column.name for column in table.columns)
    with duckdb.connect(str(path), read_only=True, config={"memory_limit": MEMORY_LIMIT, "threads": 1}) as connection:
        reader: Any = connection.sql(f"SELECT {names} FROM {table.full_name}").to_arrow_reader(ROWS_AT_ONCE)
        for batch in reader:
            key, *dimensions = batch.columns
            yield key.to_pylist(), np.column_stack(dimensions).astype(np.float32)
