"""A worker process: one locked connection (layer 2) in one restricted process (layer 3), for one query at a time.

`pool` starts it with a socket. It opens the snapshot named in the request, runs the statement, and sends the encoded
result.
"""

import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from music_assets.service.sandbox import frames, limits

FIRST_CHUNK_BYTES = 256 * 1024
"""A result up to this size is sent in one piece, so that the worker is free before the client has read it."""
EXTRA_ADDRESS_SPACE = 768 * 2**20
"""Bytes of address space on top of DuckDB's memory limit: threads, the result as Arrow data and encoded."""


def main() -> None:
    """Serve the socket whose file descriptor is the only argument, until the service closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=int(sys.argv[1]))
    settings = frames.receive(sock)
    system = ("/usr", "/lib", "/lib64", "/proc", "/sys", sys.prefix, sys.base_prefix)
    packages = sys.path[1:]  # can be outside of the prefix; the first entry is the working directory, `/`
    limits.restrict_process(map(Path, (*system, *packages, settings["root"])))

    # Not at the top of the file: its libraries start threads, which would escape the restrictions.
    from music_assets.data_root import DataRoot
    from music_assets.service.sandbox.database import Database

    database = Database(DataRoot(Path(settings["root"])), settings["memory_mb"], settings["threads"])
    limits.limit_memory(settings["memory_mb"] * 2**20 + EXTRA_ADDRESS_SPACE)
    sock.sendall(frames.pack_json(frames.READY, {}))
    while (request := frames.receive(sock)) is not None:
        _serve(sock, database, request)


def _serve(sock: socket.socket, database: Any, request: dict[str, Any]) -> None:
    from music_assets.service.sandbox.database import BrokenError, RejectedError

    try:
        if "snapshot" in request:
            database.use(**request["snapshot"])
        if "sql" in request:
            _run(sock, database, request)
        else:
            sock.sendall(frames.pack_json(frames.READY, {}))
    except RejectedError as error:
        content = {"kind": error.kind, "detail": error.detail, "position": error.position}
        sock.sendall(frames.pack_json(frames.ERROR, content))
    except BrokenError:
        sys.exit(1)


def _run(sock: socket.socket, database: Any, request: dict[str, Any]) -> None:
    from music_assets.service import formats

    started = time.perf_counter()
    result, volatile = database.run(
        request["sql"], request["params"], request["limit"], request["timeout_ms"], request["max_bytes"]
    )
    summary = {
        **result.metadata,
        "query_id": request["query_id"],
        "elapsed_ms": round((time.perf_counter() - started) * 1000, 3),
        "data_version": request["data_version"],
    }
    chunks = formats.encode(replace(result, metadata=summary), request["format"])
    first, size = [], 0
    for chunk in chunks:
        first.append(chunk)
        size += len(chunk)
        if size > FIRST_CHUNK_BYTES:
            break
    complete = size <= FIRST_CHUNK_BYTES
    head = frames.pack_json(frames.HEAD, {**summary, "volatile": volatile, "complete": complete})
    sock.sendall(head + frames.pack(frames.DATA, b"".join(first)))
    for chunk in chunks:
        sock.sendall(frames.pack(frames.DATA, chunk))
    sock.sendall(frames.pack(frames.END))


if __name__ == "__main__":
    main()
