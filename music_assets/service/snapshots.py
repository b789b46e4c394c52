"""Which snapshot is the newest: asked before every query, answered from memory as long as the pointer stands still."""

from music_assets.data_root import DataRoot
from music_assets.storage.published_snapshot import POINTER, PublishedSnapshot, newest_snapshot
from music_assets.tables import PUBLISHED_TABLES, Table


class Snapshots:
    """The published snapshots below one data root."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._pointer = root.snapshots / POINTER
        self._seen: tuple[int, int] | None = None
        self._newest: PublishedSnapshot | None = None

    def newest(self) -> PublishedSnapshot:
        """Return the newest snapshot that is whole.

        Raises NothingPublishedError where there is none.
        """
        seen = self._look()
        if self._newest is None or seen != self._seen or not self._newest.is_intact:
            self._newest, self._seen = newest_snapshot(self._root), seen
        return self._newest

    def _look(self) -> tuple[int, int] | None:
        try:
            status = self._pointer.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns


def tables(snapshot: PublishedSnapshot) -> list[Table]:
    """Return the declared tables that the snapshot holds, in the order of their declaration."""
    return [table for table in PUBLISHED_TABLES if table.full_name in snapshot.tables]
