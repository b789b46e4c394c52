"""The order of waiting queries, with worker times given by hand."""

import asyncio
from collections.abc import Callable

from music_assets.service.sandbox import fair_queue
from music_assets.service.sandbox.fair_queue import FAST, SLOW, FairQueue


def served(arrivals: str, seconds: Callable[[str], float], count: int) -> str:
    """Return the callers (letters) in the order in which one worker serves them; each sends a query again at once."""

    async def serve() -> str:
        queue, tickets, order = FairQueue(), {}, ""
        for caller in arrivals:
            tickets[queue.put(caller, FAST)] = caller
        while len(order) < count:
            ticket = queue.take(FAST)
            assert ticket is not None
            caller = tickets.pop(ticket)
            order += caller
            queue.charge(caller, seconds(caller))
            tickets[queue.put(caller, FAST)] = caller
        return order

    return asyncio.run(serve())


def test_callers_take_turns_however_many_queries_they_send() -> None:
    order = served("aaaaaaaab", lambda _: 0.01, 10)
    assert order.count("a") == order.count("b") == 5


def test_a_caller_with_long_queries_is_served_less_often() -> None:
    order = served("ab", lambda caller: 0.1 if caller == "a" else 0.01, 110)
    assert 8 <= order.count("a") <= 12


def test_lag_is_bounded() -> None:
    order = served("ab", lambda caller: 1000.0 if caller == "a" else 0.01, 200)
    assert order.index("a", 1) <= fair_queue.MAX_LAG_SECONDS / 0.01 + 3


def test_caller_that_hits_limits_waits_longer() -> None:
    async def order() -> list[str]:
        queue = FairQueue()
        queue.charge("limited", 5.0, limited=True)
        queue.charge("long", 5.0)
        names = {queue.put(caller, FAST): caller for caller in ("limited", "long", "new")}
        return [names[ticket] for ticket in iter(lambda: queue.take(FAST), None)]

    assert asyncio.run(order()) == ["new", "long", "limited"]


def test_caller_that_cost_a_worker_uses_slow_workers_for_a_while() -> None:
    queue = FairQueue()
    queue.charge("a", 1.0, cost_worker=True)
    assert (queue.lane("a"), queue.lane("b")) == (SLOW, FAST)


def test_removed_queries_are_not_served() -> None:
    async def remaining() -> object:
        queue = FairQueue()
        queue.remove("a", FAST, queue.put("a", FAST))
        return queue.take(FAST), queue.waiting

    assert asyncio.run(remaining()) == (None, 0)


def test_idle_callers_are_forgotten() -> None:
    queue = FairQueue()
    with queue.request("busy"):
        for number in range(3 * fair_queue.MAX_ACCOUNTS):
            queue.charge(str(number), 0.01)
        assert len(queue._accounts) <= fair_queue.MAX_ACCOUNTS + 1
        assert "busy" in queue._accounts
