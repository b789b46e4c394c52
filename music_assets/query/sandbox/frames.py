"""How service and worker speak over their socket: one kind byte, four bytes of length, the payload."""

import asyncio
import socket
import struct
from typing import Any

import orjson

PREFIX = struct.Struct("!cI")
LONGEST = 64 * 2**20
"""No honest frame is longer; a worker that sends one is out of order."""

REQUEST, READY, HEAD, DATA, END, ERROR = b"Q", b"R", b"H", b"D", b"E", b"X"


def packed(kind: bytes, payload: bytes = b"") -> bytes:
    """Return the bytes of one frame."""
    return PREFIX.pack(kind, len(payload)) + payload


def packed_json(kind: bytes, content: Any) -> bytes:
    """Return the bytes of one frame that carries JSON."""
    return packed(kind, orjson.dumps(content))


def receive(sock: socket.socket) -> Any:
    """Wait for the next frame and return its JSON; None where the other side has closed."""
    prefix = _exactly(sock, PREFIX.size)
    if prefix is None:
        return None
    payload = _exactly(sock, PREFIX.unpack(prefix)[1])
    return None if payload is None else orjson.loads(payload)


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            return None
        data += part
    return bytes(data)


async def next_frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return kind and payload of the next frame.

    Raises EOFError where the other side has closed, or sends what is no frame.
    """
    try:
        kind, length = PREFIX.unpack(await reader.readexactly(PREFIX.size))
        if length > LONGEST:
            raise EOFError("frame too long")
        return kind, await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EOFError("the worker is gone") from error
