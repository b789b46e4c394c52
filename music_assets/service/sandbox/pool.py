"""The worker processes, from outside: hands out queries, kills what overstays, and starts anew what died.

A query that finds every worker busy waits in a queue; beyond the queue's length it is turned away at once.
"""

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

import music_assets
from music_assets.service.problems import ProblemError
from music_assets.service.sandbox import frames
from music_assets.settings import ForeignVariables
from music_assets.storage.published_snapshot import NothingPublishedError, PublishedSnapshot

GRACE_SECONDS = 1.0
"""How long past its timeout a query may go on before its worker is killed: the engine stops most by itself."""
ABANDONED_SECONDS = 1.0
"""How long a worker may go on with a query that nobody waits for any more."""
QUEUE_SECONDS = 10.0
"""How long a query waits for a worker at most."""
START_SECONDS = 60.0
STREAM_BUFFER = 2**20
PAUSE_AFTER_FAILED_START = 1.0
MOST_BYTES = 256 * 2**20
"""Bytes an answer may take in Arrow's form."""
SNAPSHOT_ATTEMPTS = 5
"""A snapshot may be removed between the look at the pointer and its opening; then there is a newer one."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Query:
    """A statement to run, and how its answer shall come."""

    query_id: str
    sql: str
    params: Any
    limit: int
    timeout_ms: int
    form: str


@dataclass
class Reply:
    """The answer to a query: what is told about it, and its bytes. `close` must be called once it is not needed."""

    head: dict[str, Any]
    first: bytes
    rest: AsyncIterator[bytes] | None
    close: Callable[[], None]


class Pool:
    """The workers of one service. `newest` tells the snapshot a query is to see."""

    def __init__(
        self,
        root: Path,
        newest: Callable[[], PublishedSnapshot],
        workers: int,
        threads: int,
        memory_mb: int,
        queue: int,
    ) -> None:
        self._newest = newest
        self._greeting = {"root": str(root), "threads": threads, "memory_mb": memory_mb}
        self._size = workers
        self._queue = queue
        self._idle: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()
        self._workers: set[_Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.waiting = 0
        self.restarts = 0

    @property
    def ready(self) -> bool:
        """Whether there is a worker."""
        return bool(self._workers)

    def check_queue(self) -> None:
        """Raise ProblemError where the queue is full: then nothing is gained by looking at the request first."""
        if self.waiting > self._queue or (self.waiting == self._queue and self._idle.empty()):
            raise ProblemError("busy", "Too many queries are waiting already.", {"Retry-After": "1"})

    async def start(self) -> None:
        """Start the workers and wait a while for the first."""
        starts = [self._background(self._add()) for _ in range(self._size)]
        await asyncio.wait(starts, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """End the workers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.end() for worker in self._workers))
        self._workers.clear()

    async def run(self, query: Query) -> Reply:
        """Run a query on the newest snapshot.

        Raises ProblemError where it is refused, fails, takes too long, or no worker comes free; NothingPublishedError.
        """
        worker = await self._worker()
        try:
            async with asyncio.timeout(query.timeout_ms / 1000 + GRACE_SECONDS):
                return await self._ask(worker, query)
        except (ProblemError, NothingPublishedError):
            self._idle.put_nowait(worker)
            raise
        except TimeoutError:
            self._replace(worker, "overstayed its timeout")
            raise ProblemError("timeout", f"The query was stopped after {query.timeout_ms} ms.") from None
        except FileNotFoundError:
            self._replace(worker, "cannot open the newest snapshot")
            raise ProblemError("busy", "The data is being replaced.", {"Retry-After": "1"}) from None
        except EOFError:
            self._replace(worker, "died in a query")
            raise ProblemError("query-failed", "The query broke the process that ran it.") from None
        except asyncio.CancelledError:
            self._background(self._finish(worker))
            raise
        except BaseException:
            self._replace(worker, "was left in an unknown state")
            raise

    async def refresh(self) -> None:
        """Let idle workers go over to the newest snapshot, so that none keeps an old one open."""
        version = self._newest().data_version
        stale = [worker for worker in self._drained() if not self._keep(worker, version)]
        for worker in stale:
            try:
                async with asyncio.timeout(START_SECONDS):
                    await worker.send(self._request(worker, self._newest()))
                    kind, _ = await worker.frames.next()
                if kind == frames.READY:
                    worker.version = version
                self._idle.put_nowait(worker)
            except (EOFError, TimeoutError, ConnectionError):
                self._replace(worker, "did not take up the new snapshot")

    def _drained(self) -> list["_Worker"]:
        drained = []
        while not self._idle.empty():
            drained.append(self._idle.get_nowait())
        return drained

    def _keep(self, worker: "_Worker", version: str) -> bool:
        if worker.version != version:
            return False
        self._idle.put_nowait(worker)
        return True

    async def _worker(self) -> "_Worker":
        while True:
            worker = await self._next_idle()
            if worker.alive:
                return worker
            self._replace(worker, "died while idle")

    async def _next_idle(self) -> "_Worker":
        try:
            return self._idle.get_nowait()
        except asyncio.QueueEmpty:
            pass
        self.check_queue()
        self.waiting += 1
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                return await self._idle.get()
        except TimeoutError:
            raise ProblemError("busy", "No process came free for the query.", {"Retry-After": "5"}) from None
        finally:
            self.waiting -= 1

    async def _ask(self, worker: "_Worker", query: Query) -> Reply:
        for _ in range(SNAPSHOT_ATTEMPTS):
            snapshot = self._newest()
            await worker.send(
                {
                    **self._request(worker, snapshot),
                    "query_id": query.query_id,
                    "data_version": snapshot.data_version,
                    "sql": query.sql,
                    "params": query.params,
                    "limit": query.limit,
                    "timeout_ms": query.timeout_ms,
                    "form": query.form,
                    "most_bytes": MOST_BYTES,
                }
            )
            kind, payload = await worker.frames.next()
            if kind == frames.HEAD:
                worker.version = snapshot.data_version
                return await self._reply(worker, orjson.loads(payload))
            told = orjson.loads(payload)
            if told["code"] != "snapshot-gone":
                worker.version = snapshot.data_version
                raise ProblemError(told["code"], told["detail"], position=told["position"])
        raise FileNotFoundError(self._newest().path)

    def _request(self, worker: "_Worker", snapshot: PublishedSnapshot) -> dict[str, Any]:
        if worker.version == snapshot.data_version:
            return {}
        files = [file for table in snapshot.tables.values() for file in table.files]
        return {"snapshot": {"path": str(snapshot.path), "files": files, "tables": list(snapshot.tables)}}

    async def _reply(self, worker: "_Worker", head: dict[str, Any]) -> Reply:
        _, first = await worker.frames.next()
        if head["complete"]:
            await worker.frames.next()
            self._idle.put_nowait(worker)
            return Reply(head, first, None, lambda: None)
        transfer = _Transfer(worker)

        def close() -> None:
            if transfer.ended:
                self._idle.put_nowait(worker)
            else:
                self._replace(worker, "sent an answer nobody read to its end")

        return Reply(head, first, transfer.rest(), close)

    async def _finish(self, worker: "_Worker") -> None:
        """Wait a little for the end of what a worker is doing; it is replaced where that does not come."""
        try:
            async with asyncio.timeout(ABANDONED_SECONDS):
                while (await worker.frames.next())[0] not in (frames.END, frames.ERROR):
                    pass
        except (TimeoutError, EOFError):
            self._replace(worker, "was busy with a query nobody waits for")
        else:
            worker.version = None
            self._idle.put_nowait(worker)

    def _replace(self, worker: "_Worker", reason: str) -> None:
        log.warning("Worker %s %s; starting another.", worker.process.pid, reason)
        self._workers.discard(worker)
        self.restarts += 1
        self._background(worker.end())
        self._background(self._add())

    async def _add(self) -> None:
        while True:
            try:
                worker = await _Worker.start(self._greeting)
            except (EOFError, TimeoutError, OSError) as error:
                log.error("A worker did not start (%s); trying again.", error or type(error).__name__)
                await asyncio.sleep(PAUSE_AFTER_FAILED_START)
            else:
                self._workers.add(worker)
                self._idle.put_nowait(worker)
                return

    def _background(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Transfer:
    """The part of an answer that follows its first piece."""

    def __init__(self, worker: "_Worker") -> None:
        self._worker = worker
        self.ended = False

    async def rest(self) -> AsyncIterator[bytes]:
        while True:
            kind, payload = await self._worker.frames.next()
            if kind == frames.END:
                self.ended = True
                return
            yield payload


class _Worker:
    """One process and the socket to it. `version` is the snapshot it has open."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process = process
        self.frames = frames.FrameReader(reader)
        self._writer = writer
        self.version: str | None = None

    @classmethod
    async def start(cls, greeting: dict[str, Any]) -> "_Worker":
        """Start a process and wait until it is ready.

        Raises EOFError where it ends instead, TimeoutError where it takes too long.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603  Nothing in it comes from a caller.
                [sys.executable, "-m", "music_assets.service.sandbox.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={
                    "PYTHONPATH": str(Path(music_assets.__file__).parents[1]),
                    "MALLOC_ARENA_MAX": "2",
                    "ARROW_DEFAULT_MEMORY_POOL": "system",
                    "LANG": ForeignVariables().lang,
                },
                cwd="/",
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=STREAM_BUFFER)
        worker = cls(process, reader, writer)
        try:
            async with asyncio.timeout(START_SECONDS):
                await worker.send(greeting)
                await worker.frames.next()
        except BaseException:
            await worker.end()
            raise
        return worker

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    async def send(self, content: dict[str, Any]) -> None:
        """Send one request."""
        self._writer.write(frames.packed_json(frames.REQUEST, content))
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise EOFError("the worker is gone") from error

    async def end(self) -> None:
        """Kill the process and wait until it is gone."""
        self._writer.close()
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
