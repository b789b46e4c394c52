"""Queries for the command line: of the snapshot on this machine, or of a running service."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import orjson
import pyarrow as pa

from music_assets.data_root import DataRoot
from music_assets.service.formats import Result, UnsupportedTypeError, columns_of
from music_assets.storage.published_snapshot import connect

ROWS_PER_BATCH = 10_000
TIMEOUT = httpx.Timeout(120, connect=5)


class ClientError(Exception):
    """The query has no result. The message says what happened, where, and what to do."""


@contextmanager
def query_snapshot(root: DataRoot, sql: str) -> Iterator[Result]:
    """Run a statement on the newest published snapshot.

    Raises ClientError, NothingPublishedError and duckdb.Error, the last one also while the batches are read.
    """
    with connect(root) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        relation = connection.sql(sql)
        if relation is None:
            raise ClientError("The statement returns no rows. Send one SELECT.")
        try:
            columns = columns_of(relation)
        except UnsupportedTypeError as error:
            raise ClientError(str(error)) from None
        reader = relation.to_arrow_reader(ROWS_PER_BATCH)
        yield Result(reader.schema, reader, columns)


@contextmanager
def query_service(url: str, sql: str, key: str | None = None, limit: int | None = None) -> Iterator[Result]:
    """Send a statement to the service at this URL and stream its result.

    Its metadata says whether the service truncated the result below `limit`. Raises ClientError, also while the batches
    are read.
    """
    address = f"{url.rstrip('/')}/query?format=arrow"
    body = {"query": sql} if limit is None else {"query": sql, "limit": max(limit, 1)}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.stream("POST", address, json=body, headers=headers, timeout=TIMEOUT) as response:
            if response.status_code != 200:
                raise ClientError(_problem(response))
            reader = pa.ipc.open_stream(io.BufferedReader(_Body(response)))
            truncated = response.headers["X-Truncated"] == "true"
            below_limit = limit is None or int(response.headers["X-Row-Count"]) < limit
            yield Result(reader.schema, reader, metadata={"truncated": truncated and below_limit})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ClientError(
            f"No complete answer from {url} ({type(error).__name__}). "
            "Is the service running? Start it with: music-assets serve"
        ) from None


class _Body(io.RawIOBase):
    """The body of a streamed response as a file that pyarrow reads."""

    def __init__(self, response: httpx.Response) -> None:
        self._chunks = response.iter_bytes()
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _problem(response: httpx.Response) -> str:
    try:
        problem = orjson.loads(response.read())
        position = problem.get("position")
        where = f" (line {position['line']}, column {position['column']}: {position['near']!r})" if position else ""
        return f"{problem['title']}: {problem['detail']}{where} {problem['advice']}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{response.url} answered {response.status_code}, but it is not this query service. Check the URL."
