"""Watch on folders: wakes up when something happens there, and knows which files were renamed into place."""

import select
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from inotify_simple import INotify, flags

EVENTS = (
    flags.CREATE | flags.MODIFY | flags.MOVED_FROM | flags.MOVED_TO | flags.DELETE | flags.MOVE_SELF | flags.DELETE_SELF
)
GATHER_SECONDS = 0.2
"""Pause after an event: the files of a drop arrive together, and each block of a file that is written is an event."""


class FolderWatch:
    """Events that Linux reports of folders. On macOS there are none, and on a network file system only local ones."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._inotify: INotify | None = None
        self._watched: dict[int, Path] = {}
        self._renamed: set[Path] = set()
        self._lock = threading.Lock()

    def open(self) -> None:
        """Start to watch, unless that was done. Does nothing where events are not available."""
        if self._inotify:
            return
        try:
            self._inotify = INotify()
            self._watched = {self._inotify.add_watch(folder, EVENTS): folder for folder in self._folders}
        except (OSError, AttributeError):  # no more watches, no such folder; another operating system
            self._close()

    def wait(self, seconds: float) -> None:
        """Wait for an event, and then for those that come together with it; without events, wait these seconds."""
        if not self._inotify:
            time.sleep(seconds)
        elif _is_readable(self._inotify, seconds):
            time.sleep(GATHER_SECONDS)
            self.renamed([])  # reads the events

    def renamed(self, files: Iterable[Path]) -> set[Path]:
        """Return which of these files were renamed to their names, and not written to since. Each is returned once."""
        with self._lock:
            for event in self._inotify.read(timeout=0) if self._inotify else ():
                if not event.name:  # a folder was moved or deleted, or the kernel has dropped events
                    self._close()
                    break
                path = self._watched[event.wd] / event.name
                (self._renamed.add if event.mask & flags.MOVED_TO else self._renamed.discard)(path)
            found = self._renamed.intersection(files)
            self._renamed -= found
            return found

    def _close(self) -> None:
        if self._inotify:
            self._inotify.close()
        self._inotify = None
        self._renamed.clear()


def _is_readable(inotify: INotify, seconds: float) -> bool:
    """Wait until there are events, at most these seconds; return whether there are any."""
    poll = select.poll()
    poll.register(inotify, select.POLLIN)
    return bool(poll.poll(1_000 * seconds))
