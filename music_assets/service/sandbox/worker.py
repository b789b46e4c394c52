"""A worker process: one locked connection (layer 2) in one restricted process (layer 3), for one query at a time.

`pool` starts it with a socket. It opens the snapshot named in the request, runs the statement, and sends the encoded
result. SIGUSR1 interrupts the query.
"""

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from music_assets.service.sandbox import frames, limits

if TYPE_CHECKING:
    from music_assets.service.sandbox.database import Database

FRAME_BYTES = 256 * 1024
"""Parts of a result are collected up to this size, so that a small result is one frame."""
TRINO = "trino"
"""The format of results for BI tools, whose statements are in another dialect."""
MAX_ENCODED_BYTES = 1024 * 2**20


def main() -> None:
    """Serve the socket whose file descriptor is the only argument, until the service closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=int(sys.argv[1]))
    settings = frames.receive(sock)
    os.nice(settings["nice"])
    system = ("/usr", "/lib", "/lib64", "/proc", "/sys", sys.prefix, sys.base_prefix)
    packages = sys.path[1:]  # can be outside of the prefix; the first entry is the working directory, `/`
    limits.restrict_process(map(Path, (*system, *packages, settings["root"])))
    os.chdir(settings["root"])

    # Not at the top of the file: their libraries start threads, which would escape the restrictions.
    import pyarrow

    from music_assets.service.sandbox.database import Database

    pyarrow.array([0])  # imports pandas, for which an early query would otherwise wait
    database = Database(settings["memory_mb"], settings["threads"])
    _interrupt_on_signal(database)
    limits.limit_memory(settings["memory_mb"] * 2**20 + limits.EXTRA_ADDRESS_SPACE)
    sock.sendall(frames.pack_json(frames.READY, {}))
    while (request := frames.receive(sock)) is not None:
        _serve(sock, database, request)


def _interrupt_on_signal(database: "Database") -> None:
    """Interrupt the database on SIGUSR1.

    A signal handler alone would run only after DuckDB has returned, so a thread waits for the byte that the
    interpreter writes when the signal arrives.
    """
    waiting, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGUSR1, lambda *_: None)

    def watch() -> None:
        while os.read(waiting, 1):
            database.interrupt()

    threading.Thread(target=watch, daemon=True).start()


def _serve(sock: socket.socket, database: "Database", request: dict[str, Any]) -> None:
    from music_assets.service.sandbox.database import BrokenError, RejectedError

    try:
        if "resume" in request:
            database.resume()
        if "snapshot" in request:
            database.use(**request["snapshot"])
        if "sql" in request:
            _run(sock, database, request)
        else:
            sock.sendall(frames.pack_json(frames.READY, {}))
    except RejectedError as error:
        _send_error(sock, error.kind, error.detail, error.position)
    except MemoryError:
        _send_error(sock, "out-of-memory", "The result exceeds the memory limit.")
    except BrokenError:
        sys.exit(1)
    except OSError:
        raise  # the service has closed the socket
    except Exception as error:
        traceback.print_exc()
        reason = f"The result cannot be encoded as {request.get('format')}: {type(error).__name__}."
        _send_error(sock, "query-failed", reason)


def _send_error(sock: socket.socket, kind: str, detail: str, position: dict[str, Any] | None = None) -> None:
    sock.sendall(frames.pack_json(frames.ERROR, {"kind": kind, "detail": detail, "position": position}))


def _run(sock: socket.socket, database: "Database", request: dict[str, Any]) -> None:
    from music_assets.service import formats

    started = time.perf_counter()
    sql = request["sql"]
    encode: Callable[[formats.Result], Iterator[bytes]] = partial(formats.encode, form=request["format"])
    if request["format"] == TRINO:
        from music_assets.service.sandbox import trino

        sql, encode = trino.to_duckdb(sql, database.tables), trino.encode
    result, volatile = database.run(
        sql, request["params"], request["limit"], request["timeout_ms"], request["max_bytes"]
    )
    summary = {
        **result.metadata,
        "query_id": request["query_id"],
        "elapsed_ms": round((time.perf_counter() - started) * 1000, 3),
        "data_version": request["data_version"],
    }
    chunks = encode(replace(result, metadata=summary))
    data, size = [], 0
    for chunk in _checked(chunks, database, started + request["timeout_ms"] / 1000, request["timeout_ms"]):
        data.append(chunk)
        size += len(chunk)
        if size > FRAME_BYTES:
            sock.sendall(frames.pack(frames.DATA, b"".join(data)))
            data, size = [], 0
    end = frames.pack_json(frames.END, {**summary, "volatile": volatile})
    sock.sendall(frames.pack(frames.DATA, b"".join(data)) + end)


def _checked(chunks: Iterator[bytes], database: "Database", deadline: float, timeout_ms: int) -> Iterator[bytes]:
    """Yield the chunks in pieces of a frame's size. Raises RejectedError at the limits on time and size."""
    from music_assets.service.sandbox.database import RejectedError

    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > MAX_ENCODED_BYTES:
            raise RejectedError("result-too-large", f"The encoded result exceeds {MAX_ENCODED_BYTES // 2**20} MB.")
        if database.interrupted or time.perf_counter() > deadline:
            raise RejectedError("timeout", f"The query was stopped after {timeout_ms} ms.")
        yield from (chunk[start : start + FRAME_BYTES] for start in range(0, len(chunk), FRAME_BYTES))


if __name__ == "__main__":
    main()
