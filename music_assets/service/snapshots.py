"""The newest snapshot, looked up before every query: read from disk only when the pointer file has changed.

From S3 it is fetched in the background, with all files that its views read. Queries use the last one meanwhile.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import duckdb
import pyarrow as pa

from music_assets.data_root import DataRoot, LayoutError
from music_assets.object_store import ObjectInfo, ObjectStoreError
from music_assets.service.problems import ProblemError
from music_assets.storage.published_snapshot import (
    POINTER,
    NothingPublishedError,
    PublishedSnapshot,
    fetch_files,
    newest_snapshot,
)
from music_assets.tables import PUBLISHED_TABLES, Table

log = logging.getLogger(__name__)


POLL_SECONDS = 0.5
"""Interval in which idle workers are moved to the newest snapshot. A query always uses the newest one."""
STORE_POLL_SECONDS = 2.0
"""Interval at which the pointer on S3 is checked."""
MEMORY_LIMIT = "256MB"
"""Memory that DuckDB may use to load what is held in memory."""
T = TypeVar("T")


class Snapshots:
    """The published snapshots of a data root."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._fetched: ObjectInfo | None = None
        self._failure = ""
        self.poll_seconds = STORE_POLL_SECONDS if root.store else POLL_SECONDS
        self._pointer = root.snapshots / POINTER
        self._state: tuple[int, int] | None = None
        self._newest: PublishedSnapshot | None = None

    def newest(self) -> PublishedSnapshot:
        """Return the newest intact snapshot. Raises NothingPublishedError, and ProblemError if it cannot be read."""
        if self._root.store:
            if self._newest is None:
                raise NothingPublishedError(f"No snapshot has been fetched from {self._root} yet.")
            return self._newest
        state = self._pointer_state()
        if self._newest is None or state != self._state or not self._newest.is_intact:
            try:
                self._newest, self._state = newest_snapshot(self._root), state
            except (OSError, LayoutError) as error:
                raise _unreadable(error) from None
        return self._newest

    def poll(self) -> None:
        """Fetch the newest snapshot if the data root is on S3. Call it in a thread: it may take minutes."""
        if not self._root.store:
            return
        try:
            pointer = self._root.store.find(self._root.relative(self._pointer))
            if pointer == self._fetched and self._newest and self._newest.is_intact:
                return
            newest = newest_snapshot(self._root)
            fetch_files(self._root, newest)
        except (ObjectStoreError, OSError, LayoutError, NothingPublishedError) as error:
            if str(error) != self._failure:
                log.warning("No newer snapshot is served: %s", error)
            self._failure = str(error)
        else:
            self._newest, self._fetched, self._failure = newest, pointer, ""

    def _pointer_state(self) -> tuple[int, int] | None:
        try:
            status = self._pointer.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns


@dataclass(frozen=True)
class Found:
    """Rows that were found in memory, and the data version of the snapshot that they come from."""

    rows: pa.RecordBatch
    data_version: str


class InMemory(Generic[T]):
    """What is held in memory of the newest snapshot. `load` reads it again when `version` returns something else."""

    def __init__(
        self,
        snapshots: Snapshots,
        load: Callable[[PublishedSnapshot], T],
        version: Callable[[PublishedSnapshot], Hashable],
    ) -> None:
        self._snapshots = snapshots
        self._load = load
        self._version = version
        self._loaded: tuple[Hashable, T] | None = None
        self._loading: asyncio.Task[None] | None = None

    async def current(self) -> tuple[T, str]:
        """Return what was loaded, and the data version of the newest snapshot.

        Raises NothingPublishedError, ProblemError if the snapshot cannot be read, and what `load` does.

        Requests wait for the same load. One that is cancelled does not end it, since its thread could not be stopped.
        """
        while (loaded := self._current()) is None:
            await asyncio.shield(self._load_in_background())
        return loaded

    async def find(self, search: Callable[[T], pa.RecordBatch]) -> Found:
        """Search in a thread. Raises what `current` raises, and what loading and `search` do."""
        loaded, data_version = await self.current()
        return Found(await asyncio.to_thread(search, loaded), data_version)

    def loaded(self) -> tuple[T, str] | None:
        """Return what `current` does; None if that would wait: then it is loaded in the background."""
        if (loaded := self._current()) is None:
            self._load_in_background()
        return loaded

    def _load_in_background(self) -> asyncio.Task[None]:
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load_newest())
        return self._loading

    async def _load_newest(self) -> None:
        newest, self._loaded = self._snapshots.newest(), None
        try:
            self._loaded = self._version(newest), await asyncio.to_thread(self._load, newest)
        except duckdb.Error as error:
            raise _unreadable(error) from None

    def _current(self) -> tuple[T, str] | None:
        newest = self._snapshots.newest()
        if self._loaded is None or self._loaded[0] != self._version(newest):
            return None
        return self._loaded[1], newest.data_version


def _unreadable(error: Exception) -> ProblemError:
    log.error("The data root cannot be read: %s", error)
    return ProblemError("unreadable", "The service cannot read its data.", {"Retry-After": "30"})


def open_in_service(snapshot: PublishedSnapshot) -> duckdb.DuckDBPyConnection:
    """Return a connection that loads rows. DuckDB demands the same configuration of all in the process."""
    return duckdb.connect(str(snapshot.path), read_only=True, config={"memory_limit": MEMORY_LIMIT, "threads": 1})


def published_tables(snapshot: PublishedSnapshot) -> list[Table]:
    """Return the declared tables in the snapshot."""
    return [table for table in PUBLISHED_TABLES if table.full_name in snapshot.tables]
