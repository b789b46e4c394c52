"""The order in which waiting queries are served: fair between callers, by the worker time that each has used.

This is start-time fair queueing. Each caller has a virtual time, which advances by the seconds that its queries use.
The caller whose virtual time is lowest is served next. A caller that was idle starts at the virtual time of the caller
that was served last. A caller may lag behind by a bounded time only, longer if its queries hit limits.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

MAX_LAG_SECONDS = 0.25
MAX_LAG_OF_LIMITED_SECONDS = 2.0
"""Virtual time by which a caller can fall behind the others: as a rule, and after a query that hit a limit."""
MAX_ACCOUNTS = 1000
"""Number of callers at which idle ones are forgotten."""
SUSPENSION_SECONDS = 60.0
"""Time in which a caller whose query cost a worker cannot use the fast workers."""
FAST, SLOW = 0, 1
"""The lanes: queries that may go to any worker, and queries that only a slow worker may run."""

Ticket = asyncio.Future[Any]
"""A waiting query; its result is the worker that is to run it."""


@dataclass
class Account:
    """What is known of a caller with unfinished requests, or that lags behind."""

    virtual: float
    requests: int = 0
    suspended_until: float = 0.0
    waiting: tuple[deque[Ticket], deque[Ticket]] = field(default_factory=lambda: (deque(), deque()))


class FairQueue:
    """The waiting queries of all callers, in two lanes."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._clock = 0.0
        self.waiting = 0

    @contextmanager
    def request(self, caller: str) -> Iterator[int]:
        """Count an unfinished request of a caller while the context lasts; yield how many there were before."""
        account = self._account(caller)
        account.requests += 1
        try:
            yield account.requests - 1
        finally:
            account.requests -= 1

    def lane(self, caller: str) -> int:
        """Return the lane for a new query of a caller."""
        return SLOW if self._account(caller).suspended_until > time.monotonic() else FAST

    def put(self, caller: str, lane: int) -> Ticket:
        """Add a query and return its ticket."""
        ticket = asyncio.get_running_loop().create_future()
        self._account(caller).waiting[lane].append(ticket)
        self.waiting += 1
        return ticket

    def remove(self, caller: str, lane: int, ticket: Ticket) -> None:
        """Remove a query that no longer waits, unless it was taken."""
        queue = self._account(caller).waiting[lane]
        if ticket in queue:
            queue.remove(ticket)
            self.waiting -= 1

    def take(self, lane: int) -> Ticket | None:
        """Return the ticket of the next query of a lane; None if none waits."""
        accounts = [account for account in self._accounts.values() if account.waiting[lane]]
        if not accounts:
            return None
        account = min(accounts, key=lambda one: one.virtual)
        self._clock = max(self._clock, account.virtual)
        account.virtual += 1e-4  # several waiting callers take turns before the first of their queries has ended
        self.waiting -= 1
        return account.waiting[lane].popleft()

    def charge(self, caller: str, seconds: float, *, limited: bool = False, cost_worker: bool = False) -> None:
        """Record the worker time of a query, and whether it hit a limit or cost a worker process."""
        account = self._account(caller)
        lag = MAX_LAG_OF_LIMITED_SECONDS if limited or cost_worker else MAX_LAG_SECONDS
        account.virtual = max(account.virtual, min(account.virtual + seconds, self._clock + lag))
        if cost_worker:
            account.suspended_until = time.monotonic() + SUSPENSION_SECONDS

    def _account(self, caller: str) -> Account:
        account = self._accounts.get(caller)
        if account is None:
            if len(self._accounts) >= MAX_ACCOUNTS:
                self._forget_idle_callers()
            account = self._accounts[caller] = Account(self._clock)
        if not any(account.waiting):
            account.virtual = max(account.virtual, self._clock)
        return account

    def _forget_idle_callers(self) -> None:
        now = time.monotonic()
        self._accounts = {
            caller: account
            for caller, account in self._accounts.items()
            if account.requests or any(account.waiting) or account.suspended_until > now
        }
