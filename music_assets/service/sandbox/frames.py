"""The protocol between service and worker: frames of one byte for the kind, four for the length, and the payload."""

import asyncio
import socket
import struct
from typing import Any

import orjson

PREFIX = struct.Struct("!cI")
MAX_LENGTH = 64 * 2**20
"""Workers send shorter frames. A longer one means that the stream is corrupt."""

REQUEST, READY, DATA, END, ERROR = b"Q", b"R", b"D", b"E", b"X"
"""The answer to a query is DATA, as often as needed, then END with the summary; or ERROR at any time."""


def pack(kind: bytes, payload: bytes = b"") -> bytes:
    """Return the bytes of one frame."""
    return PREFIX.pack(kind, len(payload)) + payload


def pack_json(kind: bytes, content: Any) -> bytes:
    """Return the bytes of one frame that carries JSON."""
    return pack(kind, orjson.dumps(content))


def receive(sock: socket.socket) -> Any:
    """Wait for the next frame and return its JSON, or None if the other side has closed the socket."""
    prefix = _receive_exactly(sock, PREFIX.size)
    if prefix is None:
        return None
    payload = _receive_exactly(sock, PREFIX.unpack(prefix)[1])
    return None if payload is None else orjson.loads(payload)


def _receive_exactly(sock: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            return None
        data += part
    return bytes(data)


class FrameReader:
    """Reads frames from a stream. After a cancelled read the next one continues with the same frame."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._header: tuple[bytes, int] | None = None

    async def next(self) -> tuple[bytes, bytes]:
        """Return kind and payload of the next frame. Raises EOFError if the stream has ended or is corrupt."""
        try:
            if self._header is None:
                self._header = PREFIX.unpack(await self._stream.readexactly(PREFIX.size))
            kind, length = self._header
            if length > MAX_LENGTH:
                raise EOFError("frame too long")
            payload = await self._stream.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError("the worker has died") from error
        self._header = None
        return kind, payload
