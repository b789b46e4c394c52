"""Who gets in: the host named, the key, and how often. Everything asks here, save the addresses in OPEN."""

import re
import time

from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.requests import HTTPConnection

from music_assets.service.auth import holder, is_loopback
from music_assets.service.problems import ProblemError

OPEN = frozenset({"/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
OPEN_FOLDER = "/static-offline-docs/"
HOST = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?", re.ASCII)


def is_open(path: str) -> bool:
    """Tell whether an address needs no key: it tells that the service is there and how it is used, nothing else."""
    return path in OPEN or path.startswith(OPEN_FOLDER)


class Admission:
    """Lets requests in, or raises ProblemError.

    Without keys the service is for this machine alone: a request that names another host comes from a web page that
    plays tricks with names, and is refused.
    """

    def __init__(self, keys: dict[str, str], rate_limit: str) -> None:
        self._keys = keys
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._rate = parse(rate_limit)

    async def caller(self, connection: HTTPConnection) -> str:
        """Return the name of the caller: the holder of the key, or `local` where no keys are in use."""
        name = holder(self._keys, connection.headers.get("authorization", "")) if self._keys else None
        who = name or f"address {connection.client.host if connection.client else 'unknown'}"
        if not await self._limiter.hit(self._rate, who):
            reset = (await self._limiter.get_window_stats(self._rate, who)).reset_time
            wait = str(max(1, round(reset - time.time() + 0.5)))
            raise ProblemError("rate-limited", f"At most {self._rate}.", {"Retry-After": wait})
        if self._keys and name is None:
            raise ProblemError("unauthorized", "This needs a valid API key.", {"WWW-Authenticate": "Bearer"})
        if not self._keys and not _names_this_machine(connection.headers.get("host", "")):
            raise ProblemError("wrong-host", "Without API keys only this machine is served.")
        return name or "local"


def _names_this_machine(host: str) -> bool:
    """Tell whether a Host header, with or without a port, is this machine's own; anything odd is not."""
    found = HOST.fullmatch(host)
    return found is not None and is_loopback(found[1].lower())
