"""The pool of worker processes: assigns queries, kills queries that exceed their timeout, restarts dead workers.

If all workers are busy, a query waits in a queue; if the queue is full, it is refused.
"""

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
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
"""Time after a query's timeout at which its worker is killed. DuckDB itself stops most queries at the timeout."""
ABANDONED_SECONDS = 1.0
"""Time that a worker has to finish a query whose client has disconnected, before it is replaced."""
QUEUE_TIMEOUT_SECONDS = 10.0
START_TIMEOUT_SECONDS = 60.0
RESTART_DELAY_SECONDS = 1.0
STREAM_BUFFER_BYTES = 2**20
MAX_RESULT_BYTES = 256 * 2**20
"""Maximum size of a result as Arrow data."""
SNAPSHOT_ATTEMPTS = 5
"""A snapshot can be deleted after the pointer to it was read. Then there is a newer one."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Query:
    """A statement to run, its limits, and the format of its result."""

    query_id: str
    sql: str
    params: Any
    limit: int
    timeout_ms: int
    format: str


@dataclass
class QueryResult:
    """A query result: its summary, and the encoded rows. Call `close` to release the worker.

    `rest` is None if `first` is the whole result.
    """

    summary: dict[str, Any]
    first: bytes
    rest: AsyncIterator[bytes] | None
    close: Callable[[], None]


class Pool:
    """The workers of one service. `newest` returns the snapshot that the next query is to use."""

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
        self._worker_settings = {"root": str(root), "threads": threads, "memory_mb": memory_mb}
        self._size = workers
        self._max_waiting = queue
        self._idle: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()
        self._workers: set[_Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.waiting = 0
        self.restarts = 0

    @property
    def ready(self) -> bool:
        """Whether a worker is running."""
        return bool(self._workers)

    def check_queue(self) -> None:
        """Raise ProblemError if the queue is full."""
        if self.waiting > self._max_waiting or (self.waiting == self._max_waiting and self._idle.empty()):
            raise ProblemError("busy", "The queue of waiting queries is full.", {"Retry-After": "1"})

    async def start(self) -> None:
        """Start the workers, and wait for the first one."""
        starts = [self._run_in_background(self._add()) for _ in range(self._size)]
        await asyncio.wait(starts, timeout=START_TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Stop the workers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        self._workers.clear()

    async def run(self, query: Query) -> QueryResult:
        """Run a query on the newest snapshot.

        Raises ProblemError if it is refused, fails or times out, or if no worker is available, and
        NothingPublishedError.
        """
        worker = await self._acquire_worker()
        try:
            async with asyncio.timeout(query.timeout_ms / 1000 + GRACE_SECONDS):
                return await self._execute(worker, query)
        except (ProblemError, NothingPublishedError):
            self._idle.put_nowait(worker)
            raise
        except TimeoutError:
            self._replace(worker, "exceeded the timeout of its query")
            raise ProblemError("timeout", f"The query was stopped after {query.timeout_ms} ms.") from None
        except FileNotFoundError:
            self._replace(worker, "cannot open the newest snapshot")
            raise ProblemError("busy", "The snapshot is being replaced.", {"Retry-After": "1"}) from None
        except EOFError:
            self._replace(worker, "died during a query")
            raise ProblemError("query-failed", "The worker that ran the query died.") from None
        except asyncio.CancelledError:
            self._run_in_background(self._finish_abandoned(worker))
            raise
        except BaseException:
            self._replace(worker, "is in an unknown state")
            raise

    async def refresh(self) -> None:
        """Move idle workers to the newest snapshot, so that none keeps an old one open."""
        snapshot = self._newest()
        idle = [self._idle.get_nowait() for _ in range(self._idle.qsize())]
        for worker in idle:
            if worker.version == snapshot.data_version:
                self._idle.put_nowait(worker)
        for worker in idle:
            if worker.version != snapshot.data_version:
                await self._move(worker, snapshot)

    async def _move(self, worker: "_Worker", snapshot: PublishedSnapshot) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                await worker.send(_snapshot_request(worker, snapshot))
                kind, _ = await worker.frames.next()
        except (EOFError, TimeoutError):
            self._replace(worker, "did not open the new snapshot")
            return
        if kind == frames.READY:
            worker.version = snapshot.data_version
        self._idle.put_nowait(worker)

    async def _acquire_worker(self) -> "_Worker":
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
            async with asyncio.timeout(QUEUE_TIMEOUT_SECONDS):
                return await self._idle.get()
        except TimeoutError:
            raise ProblemError(
                "busy", f"No worker was available within {QUEUE_TIMEOUT_SECONDS:g} s.", {"Retry-After": "5"}
            ) from None
        finally:
            self.waiting -= 1

    async def _execute(self, worker: "_Worker", query: Query) -> QueryResult:
        for _ in range(SNAPSHOT_ATTEMPTS):
            snapshot = self._newest()
            await worker.send(
                {
                    **_snapshot_request(worker, snapshot),
                    **vars(query),
                    "data_version": snapshot.data_version,
                    "max_bytes": MAX_RESULT_BYTES,
                }
            )
            kind, payload = await worker.frames.next()
            if kind == frames.HEAD:
                worker.version = snapshot.data_version
                return await self._result(worker, orjson.loads(payload))
            error = orjson.loads(payload)
            if error["kind"] != "snapshot-gone":
                worker.version = snapshot.data_version
                raise ProblemError(error["kind"], error["detail"], position=error["position"])
        raise FileNotFoundError(self._newest().path)

    async def _result(self, worker: "_Worker", summary: dict[str, Any]) -> QueryResult:
        _, first = await worker.frames.next()
        if summary["complete"]:
            await worker.frames.next()
            self._idle.put_nowait(worker)
            return QueryResult(summary, first, None, lambda: None)
        complete = False

        async def rest() -> AsyncIterator[bytes]:
            nonlocal complete
            while (frame := await worker.frames.next())[0] != frames.END:
                yield frame[1]
            complete = True

        def close() -> None:
            if complete:
                self._idle.put_nowait(worker)
            else:
                self._replace(worker, "has a result that was not read to its end")

        return QueryResult(summary, first, rest(), close)

    async def _finish_abandoned(self, worker: "_Worker") -> None:
        """Wait briefly for the end of an abandoned query, then replace the worker."""
        try:
            async with asyncio.timeout(ABANDONED_SECONDS):
                while (await worker.frames.next())[0] not in (frames.END, frames.ERROR):
                    pass
        except (TimeoutError, EOFError):
            self._replace(worker, "was still busy with an abandoned query")
        else:
            worker.version = None
            self._idle.put_nowait(worker)

    def _replace(self, worker: "_Worker", reason: str) -> None:
        log.warning("Worker %s %s; starting another one", worker.process.pid, reason)
        self._workers.discard(worker)
        self.restarts += 1
        self._run_in_background(worker.stop())
        self._run_in_background(self._add())

    async def _add(self) -> None:
        while True:
            try:
                worker = await _Worker.start(self._worker_settings)
            except (EOFError, TimeoutError, OSError) as error:
                log.error("A worker did not start (%s); retrying", error or type(error).__name__)
                await asyncio.sleep(RESTART_DELAY_SECONDS)
            else:
                self._workers.add(worker)
                self._idle.put_nowait(worker)
                return

    def _run_in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _snapshot_request(worker: "_Worker", snapshot: PublishedSnapshot) -> dict[str, Any]:
    if worker.version == snapshot.data_version:
        return {}
    files = [file for table in snapshot.tables.values() for file in table.files]
    return {"snapshot": {"path": str(snapshot.path), "files": files, "tables": list(snapshot.tables)}}


class _Worker:
    """A worker process and the socket to it. `version` is the data version of the snapshot that it has open."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process = process
        self.frames = frames.FrameReader(reader)
        self._writer = writer
        self.version: str | None = None

    @classmethod
    async def start(cls, settings: dict[str, Any]) -> "_Worker":
        """Start a process and wait until it is ready. Raises EOFError if it dies, and TimeoutError."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603  No argument comes from a request.
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
        reader, writer = await asyncio.open_connection(sock=ours, limit=STREAM_BUFFER_BYTES)
        worker = cls(process, reader, writer)
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                await worker.send(settings)
                await worker.frames.next()
        except BaseException:
            await worker.stop()
            raise
        return worker

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self.process.poll() is None

    async def send(self, content: dict[str, Any]) -> None:
        """Send one request. Raises EOFError if the worker has died."""
        self._writer.write(frames.pack_json(frames.REQUEST, content))
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise EOFError("the worker has died") from error

    async def stop(self) -> None:
        """Kill the process and wait for its end."""
        self._writer.close()
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
