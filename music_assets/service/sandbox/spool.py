"""Encoded results between the worker that produced them and the caller that reads them.

A worker hands over its whole result and is free, however slowly the caller reads. Small results stay in memory, larger
ones go to unlinked temporary files.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from tempfile import TemporaryFile
from typing import IO

from music_assets.service.problems import ProblemError

MEMORY_BYTES = 256 * 1024
"""Size up to which a result stays in memory."""
CHUNK_BYTES = 256 * 1024
SHARE_PER_CALLER = 4
"""One caller's results may fill this fraction of the spool: a quarter."""
FULL = "Results that have not been read yet fill the spool. Read them faster."


class Spool:
    """The room for unread results, in bytes, and how much of it each caller uses."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used: Counter[str] = Counter()

    def reserve(self, caller: str, size: int) -> None:
        """Take room for a caller. Raises ProblemError if there is none."""
        share = self._max_bytes // SHARE_PER_CALLER
        if self._used[caller] + size > share or self._used.total() + size > self._max_bytes:
            raise ProblemError("busy", FULL, {"Retry-After": "5"})
        self._used[caller] += size

    def release(self, caller: str, size: int) -> None:
        """Give room back."""
        self._used[caller] -= size
        if not self._used[caller]:
            del self._used[caller]


class SpooledResult:
    """One encoded result: written as it arrives, then read once."""

    def __init__(self, spool: Spool, caller: str) -> None:
        self._spool = spool
        self._caller = caller
        self._parts: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.size = 0

    @property
    def in_memory(self) -> bool:
        """Whether the result is small."""
        return self._file is None

    async def write(self, data: bytes) -> None:
        """Append data. Raises ProblemError if the spool is full."""
        self._spool.reserve(self._caller, len(data))
        self.size += len(data)
        if self._file is None and self.size <= MEMORY_BYTES:
            self._parts.append(data)
            return
        try:
            await asyncio.to_thread(self._write_to_file, data)
        except OSError:
            raise ProblemError("busy", FULL, {"Retry-After": "5"}) from None

    def _write_to_file(self, data: bytes) -> None:
        if self._file is None:
            self._file = TemporaryFile(buffering=0)  # noqa: SIM115  See `close`.
        self._file.write(b"".join([*self._parts, data]))
        self._parts.clear()

    def content(self) -> bytes:
        """Return all data of a small result."""
        return b"".join(self._parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the data from its beginning."""
        if self._file is None:
            yield self.content()
            return
        await asyncio.to_thread(self._file.seek, 0)
        while data := await asyncio.to_thread(self._file.read, CHUNK_BYTES):
            yield data

    def close(self) -> None:
        """Delete the data. May be called more than once."""
        if self._file is not None:
            self._file.close()
        if self.size:
            self._spool.release(self._caller, self.size)
        self.size = 0

    def __del__(self) -> None:
        self.close()  # of a result that was cancelled on its way to the caller
