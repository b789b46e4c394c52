"""The content hash of a file, by which it is known under any name."""

import codecs
import hashlib
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path

from music_assets.ingest.csv_header import UTF8
from music_assets.ingest.daemon_thread import resolve, run_in_thread
from music_assets.ingest.landing import DroppedFile
from music_assets.object_store import in_parallel


def content_hash(path: Path, encoding: str = UTF8) -> str:
    """Return the SHA-256 of the file's content.

    The name of the encoding, if it is another than UTF-8, is hashed as well: the same bytes are another text in it.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    if encoding != UTF8:
        digest.update(codecs.lookup(encoding).name.encode())
    return digest.hexdigest()


class ContentHashes:
    """Content hashes of dropped files, some of which a thread computes ahead of time."""

    def __init__(self, encoding: str = UTF8) -> None:
        self._hash = partial(content_hash, encoding=encoding)
        self._started: dict[DroppedFile, Future[str]] = {}

    def start(self, files: Iterable[DroppedFile]) -> None:
        """Start to hash these files, one after the other."""
        new = {file: Future[str]() for file in files if file not in self._started}
        self._started |= new

        def hash_all() -> None:
            if len(new) > 1:
                in_parallel(_try_to_stage, new)
            for file, future in new.items():
                resolve(future, partial(self._stage_and_hash, file))

        run_in_thread(hash_all)

    def get(self, file: DroppedFile) -> str:
        """Return the content hash of a file, once. Raises OSError if the file cannot be read."""
        started = self._started.pop(file, None)
        return started.result() if started else self._stage_and_hash(file)

    def _stage_and_hash(self, file: DroppedFile) -> str:
        file.stage()
        return self._hash(file.path)


def _try_to_stage(file: DroppedFile) -> None:
    with suppress(Exception):  # raised again when the file is hashed
        file.stage()
