"""The newest snapshot, looked up before every query: read from disk only when the pointer file has changed."""

import logging

from music_assets.data_root import DataRoot
from music_assets.service.problems import ProblemError
from music_assets.storage.published_snapshot import POINTER, PublishedSnapshot, newest_snapshot
from music_assets.tables import PUBLISHED_TABLES, Table

log = logging.getLogger(__name__)


class Snapshots:
    """The published snapshots of a data root."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._pointer = root.snapshots / POINTER
        self._state: tuple[int, int] | None = None
        self._newest: PublishedSnapshot | None = None

    def newest(self) -> PublishedSnapshot:
        """Return the newest intact snapshot. Raises NothingPublishedError, and ProblemError if it cannot be read."""
        state = self._pointer_state()
        if self._newest is None or state != self._state or not self._newest.is_intact:
            try:
                self._newest, self._state = newest_snapshot(self._root), state
            except OSError as error:
                log.error("The data root cannot be read: %s", error)
                raise ProblemError("unreadable", "The service cannot read its data.", {"Retry-After": "30"}) from None
        return self._newest

    def _pointer_state(self) -> tuple[int, int] | None:
        try:
            status = self._pointer.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns


def published_tables(snapshot: PublishedSnapshot) -> list[Table]:
    """Return the declared tables in the snapshot."""
    return [table for table in PUBLISHED_TABLES if table.full_name in snapshot.tables]
