"""Asks a running service: for `music-assets query --url`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

FORMATS = ("json", "ndjson", "csv", "arrow", "parquet")
CHUNK = 64 * 1024
CONNECT_SECONDS, READ_SECONDS = 5, 120


class ServiceError(Exception):
    """The service could not be asked, or refused. The message says what was wrong, where, and what to do."""


@dataclass(frozen=True)
class Received:
    """An answer on its way: whether rows were cut off, the data it comes from, and its bytes as they arrive."""

    truncated: bool
    data_version: str
    chunks: Iterator[bytes]


@contextmanager
def ask(
    url: str, sql: str, form: str = "csv", key: str | None = None, params: Any = None, limit: int | None = None
) -> Iterator[Received]:
    """Send one statement to the service at this address and hand out the answer in that format as it streams in.

    Raises ServiceError.
    """
    body = {"query": sql, **({"params": params} if params else {}), **({"limit": limit} if limit else {})}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with requests.post(
            f"{url.rstrip('/')}/query",
            params={"format": form},
            json=body,
            headers=headers,
            stream=True,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
        ) as response:
            if response.status_code != 200:
                raise ServiceError(_told(response))
            yield Received(
                response.headers.get("X-Truncated") == "true",
                response.headers.get("X-Data-Version", ""),
                response.iter_content(CHUNK),
            )
    except requests.RequestException as error:
        raise ServiceError(
            f"{url} cannot be asked ({type(error).__name__}). Does a service run there? music-assets serve starts one."
        ) from None


def _told(response: requests.Response) -> str:
    try:
        problem = response.json()
        position = problem.get("position")
        where = f" (line {position['line']}, column {position['column']}: {position['near']!r})" if position else ""
        return f"{problem['title']}: {problem['detail']}{where} {problem['advice']}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{response.url} answered {response.status_code}, and not as this service does. Is the address right?"
