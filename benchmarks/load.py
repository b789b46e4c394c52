"""Clients that ask a service over HTTP, one question after the other, and what comes of it."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterator

import httptools

READ_AT_ONCE = 1 << 18


class Answer:
    """Collects an answer as the parser reads it."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.whole = False

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        self.body += part

    def on_message_complete(self) -> None:
        """Note that this was all."""
        self.whole = True


class Client:
    """One kept-alive connection: as little as will do, so that the measuring costs little."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request, read the whole answer, return its status and its body.

        Raises OSError where the connection breaks.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        answer = Answer()
        parser = httptools.HttpResponseParser(answer)
        writer.write(request)
        while not answer.whole:
            received = await reader.read(READ_AT_ONCE)
            if not received:
                raise ConnectionResetError("The answer broke off.")
            parser.feed_data(received)
        if not parser.should_keep_alive():
            self.close()
        return parser.get_status_code(), bytes(answer.body)

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Load:
    """What came of many requests: milliseconds of those answered, and how often each other outcome was seen."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.failures: Counter[str] = Counter()
        self.seconds = 0.0

    def figures(self) -> dict[str, float]:
        """Return median and 99th percentile in milliseconds, answers a second, and the number of answers and failures.

        Of fewer than a hundred answers the percentile is the slowest.
        """
        ordered = sorted(self.times)
        return {
            "median_ms": statistics.median(ordered),
            "p99_ms": ordered[int(len(ordered) * 0.99)],
            "answers_per_second": len(ordered) / self.seconds,
            "answers": len(ordered),
            "failures": sum(self.failures.values()),
        }


def load(port: int, clients: int, requests: Iterator[bytes], seconds: float, most: float = float("inf")) -> Load:
    """Let clients ask until the time is over or enough has been asked; each asks at least once.

    A client that is told to come back later (503) waits a tenth of a second.
    """
    return asyncio.run(_load(port, clients, requests, seconds, most))


async def _load(port: int, clients: int, requests: Iterator[bytes], seconds: float, most: float) -> Load:
    found = Load()
    begun = time.perf_counter()
    left = most

    async def one() -> None:
        nonlocal left
        client = Client(port)
        while left > 0:
            left -= 1
            request = next(requests)
            started = time.perf_counter()
            try:
                status, _ = await client.ask(request)
            except OSError as error:
                found.failures[type(error).__name__] += 1
                client.close()
            else:
                if status == 200:
                    found.times.append((time.perf_counter() - started) * 1000)
                else:
                    found.failures[str(status)] += 1
                if status == 503:
                    await asyncio.sleep(0.1)
            if time.perf_counter() - begun >= seconds:
                break
        client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    found.seconds = time.perf_counter() - begun
    return found


def ask_once(port: int, request: bytes) -> tuple[int, bytes]:
    """Ask once on a connection of its own; return status and body."""

    async def once() -> tuple[int, bytes]:
        client = Client(port)
        try:
            return await client.ask(request)
        finally:
            client.close()

    return asyncio.run(once())
