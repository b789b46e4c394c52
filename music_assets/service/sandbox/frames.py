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


class FrameReader:
    """Reads frames from a stream. A read that was cancelled halfway is taken up where it stood, so none is torn."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._begun: tuple[bytes, int] | None = None

    async def next(self) -> tuple[bytes, bytes]:
        """Return kind and payload of the next frame.

        Raises EOFError where the other side has closed, or sends what is no frame.
        """
        try:
            if self._begun is None:
                self._begun = PREFIX.unpack(await self._stream.readexactly(PREFIX.size))
            kind, length = self._begun
            if length > LONGEST:
                raise EOFError("frame too long")
            payload = await self._stream.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError("the worker is gone") from error
        self._begun = None
        return kind, payload
