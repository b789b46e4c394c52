"""The content hash of a file, by which it is known under any name."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from music_assets.ingest.daemon_thread import resolve, run_in_thread
from music_assets.ingest.landing import DroppedFile


def content_hash(path: Path) -> str:
    """Return the SHA-256 of the file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ContentHashes:
    """Content hashes of dropped files, some of which a thread computes ahead of time."""

    def __init__(self) -> None:
        self._started: dict[DroppedFile, Future[str]] = {}

    def start(self, files: Iterable[DroppedFile]) -> None:
        """Start to hash these files, one after the other."""
        new = {file: Future[str]() for file in files if file not in self._started}
        self._started |= new

        def hash_all() -> None:
            for file, future in new.items():
                resolve(future, partial(content_hash, file.path))

        run_in_thread(hash_all)

    def get(self, file: DroppedFile) -> str:
        """Return the content hash of a file, once. Raises OSError if the file cannot be read."""
        started = self._started.pop(file, None)
        return started.result() if started else content_hash(file.path)
