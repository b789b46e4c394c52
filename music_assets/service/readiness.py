"""Whether the service can answer: a query is sent to a worker, at most once per second however many callers ask."""

import asyncio
import time

from music_assets.service.problems import ProblemError
from music_assets.service.sandbox.pool import Pool, Query

VALID_SECONDS = 1.0
TIMEOUT_SECONDS = 5.0


class Readiness:
    """The outcome of the last check, shared by all callers."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._check: asyncio.Task[str] | None = None
        self._expires = 0.0

    async def data_version(self) -> str:
        """Return the data version that queries see. Raises ProblemError, NothingPublishedError."""
        if self._check is None or (self._check.done() and time.monotonic() > self._expires):
            self._check = asyncio.create_task(self._run())
        return await asyncio.shield(self._check)

    async def _run(self) -> str:
        query = Query("readiness", "SELECT 1", None, 1, 1000, "json")
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                result = await self._pool.run(query, "readiness")
        except (ProblemError, TimeoutError) as error:
            if isinstance(error, ProblemError) and error.kind == "unreadable":
                raise
            raise ProblemError("busy", "No worker can answer.", {"Retry-After": "1"}) from None
        finally:
            self._expires = time.monotonic() + VALID_SECONDS
        result.data.close()
        return str(result.summary["data_version"])
