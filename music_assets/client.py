"""A client of the query service for notebooks and programs: SQL and ready-made questions as pandas, Polars or Arrow.

It imports no other module of the package and needs only httpx and pyarrow, which is all that `pip install music-assets`
installs.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import httpx
import pyarrow as pa

if TYPE_CHECKING:
    import pandas
    import polars

LOCAL_SERVICE = "http://127.0.0.1:8000"
TIMEOUT_SECONDS = 120.0
"""Longer than a query may wait and run with the service's default settings."""
MAX_WAIT_SECONDS = 60.0
Scalar = bool | int | float | str | None
Parameters = Sequence[Scalar] | Mapping[str, Scalar]


class MusicDBError(Exception):
    """A question has no answer. The message says what happened and what to do."""


class NoAnswerError(MusicDBError):
    """Nothing, or something else than this service, answers at the URL; or the answer is incomplete."""


class ProblemError(MusicDBError):
    """The service refused the question. The attributes are the members of its `application/problem+json`.

    `kind` is the last part of its type, such as `syntax`; `members` has what only some kinds have: `position` of SQL
    errors, `suggestions` of unknown names, `errors` of invalid values. `retry_after` is in seconds.
    """

    def __init__(self, problem: Mapping[str, Any], retry_after: int | None = None) -> None:
        self.kind: str = problem["type"].rpartition(":")[2]
        self.title: str = problem["title"]
        self.status: int = problem["status"]
        self.detail: str = problem["detail"]
        self.advice: str = problem["advice"]
        self.request_id: str = problem["request_id"]
        self.members = dict(problem)
        self.retry_after = retry_after
        errors = "".join(f" {error['where']}: {error['what']}." for error in problem.get("errors", ()))
        wait = f" Retry-After: {retry_after}." if retry_after is not None else ""
        what = f"{self.title}: {self.detail}{_place(problem.get('position'))}{errors}"
        super().__init__(f"{what} {self.advice}".rstrip() + wait)


class InvalidQueryError(ProblemError):
    """The SQL, its parameters or another value is wrong."""


class NotAllowedError(ProblemError):
    """The SQL is more than one SELECT on the published tables."""


class AccessError(ProblemError):
    """The API key is missing, unknown, or does not allow the request."""


class NotFoundError(ProblemError):
    """There is no such table, country, artist or user. `members` may have `suggestions`."""


class NotTrainedError(ProblemError):
    """The question needs vectors, and no training has been published."""


class QueryTimeoutError(ProblemError):
    """The query took longer than it may."""


class QueryTooLargeError(ProblemError):
    """The query or its result is larger than the service allows."""


class BusyError(ProblemError):
    """The service has no free worker, or this caller has sent too many requests, and waiting did not help."""


class NoDataError(ProblemError):
    """Nothing has been published yet, or the service cannot read its data."""


_ERRORS: dict[str, type[ProblemError]] = {
    **dict.fromkeys(("bad-request", "invalid", "not-json", "sql", "syntax", "unknown-table"), InvalidQueryError),
    "not-allowed": NotAllowedError,
    **dict.fromkeys(("other-site", "scope", "unauthorized", "wrong-host"), AccessError),
    "not-found": NotFoundError,
    "not-trained": NotTrainedError,
    "timeout": QueryTimeoutError,
    **dict.fromkeys(
        ("body-too-large", "head-too-large", "out-of-memory", "query-failed", "result-too-large"), QueryTooLargeError
    ),
    **dict.fromkeys(("busy", "rate-limited"), BusyError),
    **dict.fromkeys(("nothing-published", "unreadable"), NoDataError),
}


@dataclass(frozen=True)
class Result:
    """The rows of an answer. pandas, Polars, DuckDB and other libraries that read Arrow also take it as it is."""

    table: pa.Table
    data_version: str
    truncated: bool
    """Whether rows are missing, since there are more than the service or `limit` allows."""

    def to_arrow(self) -> pa.Table:
        """Return the rows as an Arrow table."""
        return self.table

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the rows as a pandas data frame, which requires pandas."""
        frame: pandas.DataFrame = self.table.to_pandas()
        return frame

    def to_polars(self) -> "polars.DataFrame":
        """Return the rows as a Polars data frame, which requires Polars."""
        import polars

        return polars.DataFrame(self.table)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries."""
        rows: list[dict[str, Any]] = self.table.to_pylist()
        return rows

    def __len__(self) -> int:
        rows: int = self.table.num_rows
        return rows

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


class MusicDB:
    """A connection to the query service at a URL, with an API key where the service requires one.

    Every question raises MusicDBError. If the service is busy, it is repeated after the time that the service names,
    for at most `max_wait` seconds in all. `timeout` is in seconds.
    """

    def __init__(
        self,
        url: str = LOCAL_SERVICE,
        key: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        max_wait: float = MAX_WAIT_SECONDS,
    ) -> None:
        self.url = url.rstrip("/")
        self._max_wait = max_wait
        self._http = httpx.Client(headers=key_header(key), timeout=httpx.Timeout(timeout, connect=5))

    def query(
        self, sql: str, params: Parameters | None = None, *, limit: int | None = None, timeout_ms: int | None = None
    ) -> Result:
        """Run one SELECT, with a list of values for `?` or a dictionary for `$name`.

        NumPy's scalars are sent as numbers, dates and times as text, which the SQL has to cast: `?::DATE`.
        """
        body = {"query": sql, "params": params, "limit": limit, "timeout_ms": timeout_ms}
        given = {name: value for name, value in body.items() if value is not None}
        return self._rows("POST", "/query", content=json.dumps(given, default=_plain).encode())

    def tables(self) -> list[dict[str, Any]]:
        """Return the tables: name, description, number of rows, and columns with types and descriptions."""
        response = self._send("GET", "/tables")
        try:
            tables: list[dict[str, Any]] = response.json()["tables"]
        except (ValueError, KeyError, TypeError):
            raise NoAnswerError(_not_this_service(response)) from None
        return tables

    def artists_of_country(self, country: str, *, limit: int = 100) -> Result:
        """Return the artists of a country, most played first."""
        return self._rows("GET", f"/countries/{path_segment(country)}/artists", {"limit": limit})

    def countries_of_artist(self, artist: str, *, min_listeners: int = 1, limit: int = 100) -> Result:
        """Return the countries of an artist, where the artist is most popular first."""
        params = {"artist": artist, "min_listeners": min_listeners, "limit": limit}
        return self._rows("GET", "/artists/countries", params)

    def distinctive_artists(self, country: str, *, limit: int = 100) -> Result:
        """Return the artists that a country listens to more than the world does."""
        return self._rows("GET", f"/countries/{path_segment(country)}/distinctive", {"limit": limit})

    def similar_artists(self, artist: str, *, min_listeners: int = 1, k: int = 10) -> Result:
        """Return the `k` artists whose listeners have the most similar taste, by cosine."""
        return self._rows("GET", "/artists/similar", {"artist": artist, "min_listeners": min_listeners, "k": k})

    def changes(self, country: str | None = None, *, limit: int = 100) -> Result:
        """Return rank and previous rank of the first artists of a country, or of the world."""
        path = "/changes" if country is None else f"/countries/{path_segment(country)}/changes"
        return self._rows("GET", path, {"limit": limit})

    def close(self) -> None:
        """Close the connections to the service."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(
        self, method: str, path: str, params: Mapping[str, Any] | None = None, content: bytes | None = None
    ) -> Result:
        response = self._send(method, path, {**(params or {}), "format": "arrow"}, content)
        try:
            table = pa.ipc.open_stream(response.content).read_all()
            return Result(table, response.headers["X-Data-Version"], response.headers["X-Truncated"] == "true")
        except (pa.ArrowInvalid, KeyError):
            raise NoAnswerError(_not_this_service(response)) from None

    def _send(
        self, method: str, path: str, params: Mapping[str, Any] | None = None, content: bytes | None = None
    ) -> httpx.Response:
        headers = {} if content is None else {"Content-Type": "application/json"}
        waited = 0.0
        while True:
            try:
                response = self._http.request(method, self.url + path, params=params, content=content, headers=headers)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise no_answer(self.url, error) from None
            refusal = error_of(response)
            if refusal is None:
                return response
            delay = _retry_after(response)
            # Data that was never published does not appear meanwhile, although the service says when to ask again.
            if delay is None or isinstance(refusal, NoDataError) or waited + delay > self._max_wait:
                raise refusal
            time.sleep(delay)
            waited += delay


def key_header(key: str | None) -> dict[bytes, bytes]:
    """Return the header with the API key, if there is one."""
    return {b"Authorization": f"Bearer {key.strip()}".encode(errors="replace")} if key else {}


def path_segment(name: str) -> str:
    """Return a name as a part of a path. A `..` that is not encoded would lead to another endpoint."""
    return quote(name, safe="", errors="replace").replace(".", "%2E")


def no_answer(url: str, error: Exception) -> NoAnswerError:
    """Return the error for a request that failed before it had a complete response."""
    return NoAnswerError(
        f"No complete answer from {url} ({type(error).__name__}). "
        "Is the service running? Start it with: music-assets serve"
    )


def error_of(response: httpx.Response, advice: Mapping[str, str] = MappingProxyType({})) -> MusicDBError | None:
    """Return the error that a response stands for; None if it is a success.

    `advice` replaces the service's for these kinds of problems.
    """
    if response.status_code == 200:
        return None
    try:
        problem = response.json()
        kind = problem["type"].rpartition(":")[2]
        problem["advice"] = advice.get(kind, problem["advice"])
        return _ERRORS.get(kind, ProblemError)(problem, _retry_after(response))
    except (ValueError, KeyError, TypeError, AttributeError):
        return NoAnswerError(_not_this_service(response))


def _retry_after(response: httpx.Response) -> int | None:
    """Return the seconds after which to repeat a request; None if the service is not busy."""
    seconds = response.headers.get("Retry-After", "")
    return int(seconds) if response.status_code in (429, 503) and seconds.isdecimal() else None


def _plain(value: Any) -> Scalar:
    """Return a parameter that JSON does not know as one that it knows. Raises TypeError."""
    if isinstance(value, date | datetime):
        return value.isoformat()
    if getattr(value, "shape", None) == ():
        plain: Scalar = str(value) if value.dtype.kind == "M" else value.item()
        return plain
    raise TypeError(f"A parameter is {type(value).__name__}: send it as text, and cast it in the SQL")


def _not_this_service(response: httpx.Response) -> str:
    return f"{response.url} answered {response.status_code}, but it is not this query service. Check the URL."


def _place(position: Mapping[str, Any] | None) -> str:
    if not position:
        return ""
    return f" (line {position['line']}, column {position['column']}: {position['near']!r})"
