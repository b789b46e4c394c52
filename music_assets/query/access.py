"""Who gets in: the host named, the key, and how often. A dependency of every route that touches data."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from music_assets.query.auth import holder, is_loopback
from music_assets.query.problems import ProblemError

_described = HTTPBearer(auto_error=False, description="An API key, where the service has any.")


def admission(keys: dict[str, str], rate_limit: str) -> Callable[..., Awaitable[None]]:
    """Return the check that lets a request in, or raises ProblemError.

    Without keys the service is for this machine alone: a request that names another host comes from a web page that
    plays tricks with names, and is refused.
    """
    limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
    rate = parse(rate_limit)

    async def admit(request: Request, _: Any = Depends(_described)) -> None:
        caller = holder(keys, request.headers.get("authorization", "")) if keys else None
        address = request.client.host if request.client else "unknown"
        who = caller or f"address {address}"
        if not limiter.hit(rate, who):
            reset = limiter.get_window_stats(rate, who).reset_time
            raise ProblemError("rate-limited", f"At most {rate}.", {"Retry-After": str(_seconds_until(reset))})
        if keys and caller is None:
            raise ProblemError("unauthorized", "This needs a valid API key.", {"WWW-Authenticate": "Bearer"})
        if not keys and not is_loopback(request.url.hostname or ""):
            raise ProblemError("wrong-host", "Without API keys only this machine is served.")
        request.state.notes["caller"] = caller or "local"

    return admit


def _seconds_until(moment: float) -> int:
    return max(1, round(moment - time.time() + 0.5))
