"""A worker process: one locked connection (layer 2) in one limited process (layer 3), answering one query at a time.

Started by `pool`, which hands it a socket. It opens the snapshot named in the request, runs the statement, and sends
the answer already in the format the caller wants.
"""

import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from music_assets.service.sandbox import frames, limits

FIRST_CHUNK = 256 * 1024
"""Bytes up to which an answer travels in one piece, so that the worker is free before the caller has read a byte."""
SLACK = 768 * 2**20
"""Address space on top of DuckDB's memory limit: threads, the answer in Arrow and in the caller's format."""


def main() -> None:
    """Serve the socket whose number is the one argument, until the service closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=int(sys.argv[1]))
    settings = frames.receive(sock)
    system = ("/usr", "/lib", "/lib64", "/proc", "/sys", sys.prefix, sys.base_prefix)
    packages = sys.path[1:]  # may be outside of the prefix; the first is the working folder, `/`
    limits.forbid_files_and_network(map(Path, (*system, *packages, settings["root"])))

    from music_assets.service.sandbox.database import (
        Database,  # Its libraries start threads: they come after the limits.
    )

    database = Database(settings["root"], settings["memory_mb"], settings["threads"])
    limits.bound_memory(settings["memory_mb"] * 2**20 + SLACK)
    sock.sendall(frames.packed_json(frames.READY, {}))
    while (request := frames.receive(sock)) is not None:
        _serve(sock, database, request)


def _serve(sock: socket.socket, database: Any, request: dict[str, Any]) -> None:
    from music_assets.service.sandbox.database import BrokenError, RejectedError

    try:
        if "snapshot" in request:
            database.use(**request["snapshot"])
        if "sql" in request:
            _answer(sock, database, request)
        else:
            sock.sendall(frames.packed_json(frames.READY, {}))
    except RejectedError as rejected:
        told = {"code": rejected.code, "detail": rejected.detail, "position": rejected.position}
        sock.sendall(frames.packed_json(frames.ERROR, told))
    except BrokenError:
        sys.exit(1)


def _answer(sock: socket.socket, database: Any, request: dict[str, Any]) -> None:
    from music_assets.service import formats

    started = time.perf_counter()
    result = database.run(
        request["sql"], request["params"], request["limit"], request["timeout_ms"], request["most_bytes"]
    )
    told = {
        "row_count": result.rows,
        "truncated": result.truncated,
        "query_id": request["query_id"],
        "elapsed_ms": round((time.perf_counter() - started) * 1000, 3),
        "data_version": request["data_version"],
    }
    chunks = formats.encode(formats.Result(result.schema, result.batches, result.columns, told), request["form"])
    first, size = [], 0
    for chunk in chunks:
        first.append(chunk)
        size += len(chunk)
        if size > FIRST_CHUNK:
            break
    complete = size <= FIRST_CHUNK
    head = frames.packed_json(frames.HEAD, {**told, "volatile": result.volatile, "complete": complete})
    sock.sendall(head + frames.packed(frames.DATA, b"".join(first)))
    for chunk in chunks:
        sock.sendall(frames.packed(frames.DATA, chunk))
    sock.sendall(frames.packed(frames.END))


if __name__ == "__main__":
    main()
