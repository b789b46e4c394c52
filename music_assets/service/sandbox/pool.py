"""The pool of worker processes: assigns queries, kills queries that exceed their timeout, restarts dead workers.

Half of the workers are *fast*: they run any query for `FAST_MS` at most. A query that takes longer starts again on a
*slow* worker, where it may run until its timeout, with a lower CPU priority. Slow workers also take new queries when
they are idle. So long queries never occupy all workers. A single worker is a slow one.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

import music_assets
from music_assets.service.problems import ProblemError
from music_assets.service.sandbox import frames
from music_assets.service.sandbox.fair_queue import FAST, SLOW, FairQueue
from music_assets.service.sandbox.limits import EXTRA_ADDRESS_SPACE, address_space
from music_assets.service.sandbox.result_cache import ResultCache
from music_assets.service.sandbox.spool import Spool, SpooledResult
from music_assets.settings import ForeignVariables
from music_assets.storage.published_snapshot import NothingPublishedError, PublishedSnapshot

FAST_MS, FAST_MS_IN_CROWD = 500, 100
"""Timeout of a query on a fast worker: as a rule, and while `CROWD` queries wait."""
CROWD = 50
SLOW_NICE = 2
"""CPU niceness of slow workers."""
GRACE_SECONDS = 1.0
"""Time after a query's timeout at which its worker is killed. DuckDB itself stops most queries at the timeout."""
ABANDONED_SECONDS = 0.5
"""Time that a worker has to stop a query whose client has disconnected, before it is replaced."""
QUEUE_TIMEOUT_SECONDS = 30.0
START_TIMEOUT_SECONDS = 60.0
RESTART_DELAY_SECONDS = 1.0
STREAM_BUFFER_BYTES = 2**20
MAX_RESULT_BYTES = 256 * 2**20
"""Maximum size of a result as Arrow data."""
LIMITS = frozenset({"timeout", "out-of-memory", "result-too-large", "query-failed"})
"""The kinds of problems after which a caller waits longer than others."""
WORN = 0.5
"""Share of a worker's memory limit that idle allocators may occupy: they keep what large queries have used, each for
itself, so that later queries would run out of memory. Then the worker is replaced.
"""
MAX_STDERR_BYTES = 64 * 1024
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

    @cached_property
    def identity(self) -> bytes:
        """What the result depends on, apart from the snapshot."""
        return orjson.dumps([self.sql, self.params, self.limit, self.format])


@dataclass(frozen=True)
class QueryResult:
    """A query result: its summary, and the encoded rows. The caller must close `data`."""

    summary: dict[str, Any]
    data: SpooledResult


class _OutOfTimeError(Exception):
    """A query has used the time of a fast worker."""


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
        spool: Spool,
    ) -> None:
        self._root = root
        self._newest = newest
        self._worker_settings = {"root": str(root), "threads": threads, "memory_mb": memory_mb}
        self._size = workers
        self._max_requests = queue + workers
        self._spool = spool
        self._queue = FairQueue()
        self._cache = ResultCache()
        self._idle: tuple[list[_Worker], list[_Worker]] = ([], [])
        self._workers: set[_Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.restarts = 0

    @property
    def waiting(self) -> int:
        """Number of queries that wait for a worker."""
        return self._queue.waiting

    @contextmanager
    def request(self, caller: str) -> Iterator[None]:
        """Count a caller's unfinished request while the context lasts. Raises ProblemError if there are too many."""
        with self._queue.request(caller) as others:
            if others >= self._max_requests:
                raise ProblemError("busy", "This caller has too many unfinished requests.", {"Retry-After": "1"})
            yield

    async def start(self) -> None:
        """Start the workers, and wait for the first one."""
        fast = self._size // 2
        starts = [self._run_in_background(self._add(FAST if number < fast else SLOW)) for number in range(self._size)]
        await asyncio.wait(starts, timeout=START_TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Stop the workers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        self._workers.clear()

    async def run(self, query: Query, caller: str) -> QueryResult:
        """Run a query on the newest snapshot, and return its whole result.

        Raises ProblemError if it is refused, fails or times out, or if no worker is available, and
        NothingPublishedError.
        """
        try:
            result = await self._run(query, caller, self._queue.lane(caller))
        except _OutOfTimeError:
            result = await self._run(query, caller, SLOW)
        if result.data.in_memory:
            self._cache.put(query.identity, result.summary, result.data.content())
        return result

    async def known_result(self, query: Query, caller: str) -> QueryResult | None:
        """Return the result of a query that has run on the newest snapshot before, if it was kept.

        Raises ProblemError if the spool is full, and NothingPublishedError.
        """
        known = self._cache.get(self._newest().data_version, query.identity)
        if known is None:
            return None
        summary, content = known
        data = SpooledResult(self._spool, caller)
        await data.write(content)
        return QueryResult(summary, data)

    async def refresh(self) -> None:
        """Move idle workers to the newest snapshot, so that none keeps an old one open."""
        snapshot = self._newest()
        for idle in self._idle:
            old = [worker for worker in idle if worker.version != snapshot.data_version]
            idle[:] = [worker for worker in idle if worker.version == snapshot.data_version]
            for worker in old:
                await self._move(worker, snapshot)

    async def _move(self, worker: "_Worker", snapshot: PublishedSnapshot) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                await worker.send(_snapshot_request(self._root, worker, snapshot))
                kind, _ = await worker.next_frame()
        except (EOFError, TimeoutError):
            self._replace(worker, "did not open the new snapshot")
            return
        except BaseException:
            self._replace(worker, "is in an unknown state")
            raise
        if kind == frames.READY:
            worker.version = snapshot.data_version
        self._release(worker)

    async def _run(self, query: Query, caller: str, lane: int) -> QueryResult:
        worker = await self._acquire_worker(caller, lane)
        fast_ms = FAST_MS if self.waiting < CROWD else FAST_MS_IN_CROWD
        limit_ms = query.timeout_ms if worker.lane == SLOW else min(query.timeout_ms, fast_ms)
        data = SpooledResult(self._spool, caller)
        started, complete, limited = time.monotonic(), False, True
        try:
            async with asyncio.timeout(limit_ms / 1000 + GRACE_SECONDS):
                summary = await self._execute(worker, replace(query, timeout_ms=limit_ms), data)
            complete, limited = True, False
            return QueryResult(summary, data)
        except NothingPublishedError:
            limited = False
            raise
        except ProblemError as problem:
            limited = problem.kind in LIMITS
            if problem.kind == "timeout" and limit_ms < query.timeout_ms:
                limited = False
                raise _OutOfTimeError from None
            raise
        except TimeoutError:
            worker.defect = "exceeded the timeout of its query"
            if limit_ms < query.timeout_ms:
                raise _OutOfTimeError from None
            raise ProblemError("timeout", f"The query was stopped after {query.timeout_ms} ms.") from None
        except FileNotFoundError:
            limited = False
            worker.defect = "cannot open the newest snapshot"
            raise ProblemError("busy", "The snapshot is being replaced.", {"Retry-After": "1"}) from None
        except EOFError:
            worker.defect = "died during a query"
            raise ProblemError("query-failed", "The worker that ran the query died.") from None
        finally:
            if not complete:
                data.close()
            self._queue.charge(
                caller, time.monotonic() - started, limited=limited, cost_worker=limited and bool(worker.defect)
            )
            self._give_back(worker, caller)

    async def _execute(self, worker: "_Worker", query: Query, data: SpooledResult) -> dict[str, Any]:
        """Run a query on a worker; write the encoded rows to `data` and return the summary."""
        for _ in range(SNAPSHOT_ATTEMPTS):
            snapshot = self._newest()
            await worker.send(
                {
                    **_snapshot_request(self._root, worker, snapshot),
                    **vars(query),
                    "data_version": snapshot.data_version,
                    "max_bytes": MAX_RESULT_BYTES,
                }
            )
            while (frame := await worker.next_frame())[0] == frames.DATA:
                await data.write(frame[1])
            content: dict[str, Any] = orjson.loads(frame[1])
            if frame[0] == frames.END:
                worker.version = snapshot.data_version
                return content
            if content["kind"] != "snapshot-gone":
                worker.version = snapshot.data_version
                raise ProblemError(content["kind"], content["detail"], position=content["position"])
        raise FileNotFoundError(self._newest().path)

    async def _acquire_worker(self, caller: str, lane: int) -> "_Worker":
        while True:
            worker = self._idle_worker(lane) or await self._wait_for_worker(caller, lane)
            if worker.alive:
                return worker
            self._replace(worker, "died while idle")

    def _idle_worker(self, lane: int) -> "_Worker | None":
        """Return an idle worker for a lane, if there is one: a slow one first, where the query need not start again."""
        idle = self._idle[SLOW] or (self._idle[FAST] if lane == FAST else [])
        return idle.pop() if idle else None

    async def _wait_for_worker(self, caller: str, lane: int) -> "_Worker":
        ticket = self._queue.put(caller, lane)
        try:
            async with asyncio.timeout(QUEUE_TIMEOUT_SECONDS):
                worker: _Worker = await ticket
                return worker
        except BaseException as error:
            self._queue.remove(caller, lane, ticket)
            if ticket.done() and not ticket.cancelled():
                self._release(ticket.result())
            if not isinstance(error, TimeoutError):
                raise
            detail = f"No worker was available within {QUEUE_TIMEOUT_SECONDS:g} s."
            raise ProblemError("busy", detail, {"Retry-After": "5"}) from None

    def _release(self, worker: "_Worker") -> None:
        """Give a worker to the query that is next, or else make it idle."""
        lanes = (SLOW, FAST) if worker.lane == SLOW else (FAST,)
        for lane in lanes:
            while (ticket := self._queue.take(lane)) is not None:
                if not ticket.done():
                    ticket.set_result(worker)
                    return
        self._idle[worker.lane].append(worker)

    def _give_back(self, worker: "_Worker", caller: str) -> None:
        """Release a worker after a query, or stop the query, or replace the worker."""
        if worker.defect:
            self._replace(worker, worker.defect)
        elif worker.busy:
            self._run_in_background(self._stop_query(worker, caller))
        elif worker.is_worn:
            self._start_another(worker)
        else:
            self._release(worker)

    async def _stop_query(self, worker: "_Worker", caller: str) -> None:
        """Interrupt a query whose result nobody wants, and replace the worker if it goes on."""
        worker.process.send_signal(signal.SIGUSR1)
        try:
            async with asyncio.timeout(ABANDONED_SECONDS):
                while worker.busy:
                    await worker.next_frame()
                await worker.send({"resume": True})
                await worker.next_frame()
        except (TimeoutError, EOFError):
            self._queue.charge(caller, ABANDONED_SECONDS, cost_worker=True)
            self._replace(worker, "was still busy with an abandoned query")
        else:
            worker.version = None
            self._release(worker)

    def _replace(self, worker: "_Worker", reason: str) -> None:
        log.warning("Worker %s %s; starting another one", worker.process.pid, reason)
        self.restarts += 1
        self._start_another(worker)

    def _start_another(self, worker: "_Worker") -> None:
        self._workers.discard(worker)
        self._run_in_background(worker.stop())
        self._run_in_background(self._add(worker.lane))

    async def _add(self, lane: int) -> None:
        while True:
            try:
                worker = await _Worker.start(self._worker_settings, lane)
            except (EOFError, TimeoutError, OSError) as error:
                log.error("A worker did not start (%s); retrying", error or type(error).__name__)
                await asyncio.sleep(RESTART_DELAY_SECONDS)
            else:
                self._workers.add(worker)
                self._release(worker)
                return

    def _run_in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _snapshot_request(root: Path, worker: "_Worker", snapshot: PublishedSnapshot) -> dict[str, Any]:
    """Return what a worker needs to open a snapshot: nothing if it is open. Paths are relative to the data root."""
    if worker.version == snapshot.data_version:
        return {}
    files = [os.path.relpath(file, root) for table in snapshot.tables.values() for file in table.files]
    path = os.path.relpath(snapshot.path, root)
    return {"snapshot": {"path": path, "files": files, "tables": list(snapshot.tables)}}


class _Worker:
    """A worker process and the socket to it.

    `version` is the data version of the snapshot that it has open. `busy` is whether it owes an answer. A `defect` is
    the reason why it must be replaced.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lane: int
    ) -> None:
        self.process = process
        self.lane = lane
        self.version: str | None = None
        self.busy = False
        self.defect = ""
        self._frames = frames.FrameReader(reader)
        self._writer = writer
        self._log = asyncio.create_task(_log_lines(process))
        self._max_idle_bytes = 0.0

    @classmethod
    async def start(cls, settings: dict[str, Any], lane: int) -> "_Worker":
        """Start a process and wait until it is ready. Raises EOFError if it dies, and TimeoutError."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603  No argument comes from a request.
                [sys.executable, "-m", "music_assets.service.sandbox.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,  # the process itself may not write to files, which standard error can be
                env={
                    "PYTHONPATH": str(Path(music_assets.__file__).parents[1]),
                    "MALLOC_ARENA_MAX": "2",
                    "ARROW_DEFAULT_MEMORY_POOL": "system",
                    "LANG": ForeignVariables().lang,
                },
                cwd="/",
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=STREAM_BUFFER_BYTES)
        worker = cls(process, reader, writer, lane)
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                await worker.send({**settings, "nice": SLOW_NICE if lane == SLOW else 0})
                await worker.next_frame()
        except BaseException:
            await worker.stop()
            raise
        growth = settings["memory_mb"] * 2**20 + EXTRA_ADDRESS_SPACE
        worker._max_idle_bytes = address_space(process.pid) + WORN * growth
        return worker

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self.process.poll() is None

    @property
    def is_worn(self) -> bool:
        """Whether its queries have left too little of its address space."""
        return address_space(self.process.pid) > self._max_idle_bytes

    async def send(self, content: dict[str, Any]) -> None:
        """Send one request. Raises EOFError if the worker has died."""
        self.busy = True
        self._writer.write(frames.pack_json(frames.REQUEST, content))
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise EOFError("the worker has died") from error

    async def next_frame(self) -> tuple[bytes, bytes]:
        """Return kind and payload of the next frame. Raises EOFError if the worker has died."""
        frame = await self._frames.next()
        self.busy = frame[0] == frames.DATA
        return frame

    async def stop(self) -> None:
        """Kill the process and wait for its end."""
        self._writer.close()
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
        await self._log


async def _log_lines(process: subprocess.Popen[bytes]) -> None:
    """Log what a worker writes to standard error, up to a maximum size."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), process.stderr)
    size = 0
    while data := await reader.read(MAX_STDERR_BYTES):
        if size < MAX_STDERR_BYTES:
            log.error("Worker %s: %s", process.pid, data.decode(errors="replace").rstrip())
        size += len(data)
