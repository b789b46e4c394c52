"""Services that answer SQL over HTTP, this project's and those in `peers/`, the queries they are sent, and load."""

import json
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from benchmarks.context import Entrant
from benchmarks.measure import Watch, python, run, running, wait_for
from benchmarks.results import FOLDER, OURS
from music_assets.data_root import DataRoot
from music_assets.runtime.ports import free_port
from music_assets.settings import PREFIX
from music_assets.storage.published_snapshot import connect, newest_snapshot

DRAKE, ANY_ARTIST, BY_ENDPOINT = "Drake", "any artist", "countries of any artist"
PARTS = (FOLDER / "cases" / "queries.sql").read_text().split("-- ")[1:]
QUERIES = {name: sql.strip() for name, _, sql in (part.partition("\n") for part in PARTS)}
"""Documented queries by name. Each request of one with `$artist` is for another artist."""
Request = tuple[str, str, bytes | None, dict[str, str]]
"""Method, path, body and headers."""
Sender = Callable[[Any], tuple[int, Any]]


@dataclass(frozen=True)
class Service(Entrant):
    """A service over the snapshot of a data root. `prepare` writes what `command` needs into a folder."""

    command: Callable[[Path, Path, int], list[str]] = lambda root, folder, port: []
    prepare: Callable[[Path, Path], object] = lambda root, folder: None
    get: bool = False
    endpoint: str = ""  # answers the query BY_ENDPOINT, without SQL

    @contextmanager
    def running(self, root: Path, folder: Path) -> Iterator[tuple[int, Watch]]:
        """Run the service while the context lasts; yield its port after its first answer."""
        port = free_port()
        with running(self.command(root, folder, port), folder) as watch:
            wait_for(lambda: self.ask(port, QUERIES[DRAKE]))
            yield port, watch

    def request(self, sql: str, artist: str = "") -> Request:
        """Return the request of a query: GET as datasette wants it, else POST."""
        if self.endpoint and sql == QUERIES[BY_ENDPOINT]:
            return "GET", self.endpoint + quote(artist, safe=""), None, {}
        params = {"artist": artist} if "$artist" in sql else {}
        if self.get:
            query = {"sql": sql.replace("$artist", ":artist"), "_shape": "arrays", **params}
            return "GET", f"/music.json?{urlencode(query)}", None, {}
        body = json.dumps({"query": sql, **({"params": params} if params else {})})
        return "POST", "/query", body.encode(), {"Content-Type": "application/json"}

    def ask(self, port: int, sql: str, artist: str = "") -> list[list[Any]] | None:
        """Return the rows of an answer; None if there is none."""
        status, body = send(HTTPConnection("127.0.0.1", port), self.request(sql, artist))
        return list(json.loads(body)["rows"]) if status == 200 else None

    def load(
        self, port: int, sql: str, artists: Sequence[str], clients: int, seconds: float, network: int = 0
    ) -> dict[str, float]:
        """Send a query from clients with an address each; the sequence of artists is the same for every service."""
        generator = random.Random(1)
        sources = [(f"127.{network}.{number // 250}.{number % 250 + 1}", 0) for number in range(clients)]
        senders = [partial(send, HTTPConnection("127.0.0.1", port, source_address=source)) for source in sources]
        return load(senders, lambda: self.request(sql, generator.choice(artists)), seconds)


def _serve(root: Path, folder: Path, port: int) -> list[str]:
    """Start `music-assets serve` with default settings, except for the rate limit."""
    settings = [f"{PREFIX}DATA={root}", f"{PREFIX}PORT={port}", f"{PREFIX}RATE_LIMIT=1000000/second"]
    return python("-m", "music_assets", "serve", environment=settings)


def _uvicorn(root: Path, folder: Path, port: int) -> list[str]:
    application = "benchmarks.peers.naive_service:app"
    return python("-m", "uvicorn", application, "--port", port, environment=[f"NAIVE_FOLDER={folder}"])


def _write_unsorted(root: Path, folder: Path) -> None:
    with connect(DataRoot(root)) as connection:
        connection.execute((FOLDER / "peers" / "naive_service.sql").read_text().format(folder=folder))


def _datasette(root: Path, folder: Path, port: int) -> list[str]:
    """Start datasette with the file immutable, and with a time limit that admits the slow queries."""
    options = ("--immutable", folder / "music.db", "--port", port, "--setting", "sql_time_limit_ms", 60_000)
    return python("-m", "datasette", "serve", *options)


def _write_sqlite(root: Path, folder: Path) -> None:
    run(python(FOLDER / "peers/datasette_sqlite.py", newest_snapshot(DataRoot(root)).path, folder / "music.db"), folder)


OUR_SERVICE = Service(OURS, command=_serve, endpoint="/artists/countries?limit=10&artist=")
NAIVE_SERVICE = Service("FastAPI + DuckDB", ("fastapi", "uvicorn"), _uvicorn, _write_unsorted)
DATASETTE = Service("datasette", ("datasette",), _datasette, _write_sqlite, get=True)


def sample_artists(root: Path) -> list[str]:
    """Return a uniform sample of the artist names in a data root, the same each time."""
    sql = """SELECT artist_name FROM processed_parquet_country_rank_per_artist WHERE rank = 1
        ORDER BY hash(artist_name), artist_name LIMIT 5_000"""
    with connect(DataRoot(root)) as connection:
        return [name for (name,) in connection.execute(sql).fetchall()]


def send(connection: HTTPConnection, request: Request) -> tuple[int, bytes]:
    """Send a request over a kept-alive connection and return status and body; status 0 if the connection breaks."""
    try:  # http.client takes less time for a request than httpx does, or asyncio with httptools
        connection.request(*request)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, HTTPException):
        connection.close()
        return 0, b""


def load(senders: Sequence[Sender], next_request: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Send requests, each sender in a thread, until the time is over, and at least one each."""
    milliseconds: list[float] = []
    failures: list[int] = []
    begun = time.perf_counter()

    def keep_sending(send_request: Sender) -> None:
        while True:
            request = next_request()
            started = time.perf_counter()
            status, _ = send_request(request)
            if status == 200:
                milliseconds.append((time.perf_counter() - started) * 1000)
            else:
                failures.append(status)
            if status == 503:
                time.sleep(0.1)
            if time.perf_counter() - begun >= seconds:
                break

    with ThreadPoolExecutor(len(senders)) as pool:
        list(pool.map(keep_sending, senders))
    ordered = sorted(milliseconds) or [math.inf]
    return {
        "median_ms": statistics.median(ordered),
        "p99_ms": ordered[int(len(ordered) * 0.99)],
        "answers_per_second": len(ordered) / (time.perf_counter() - begun),
        "answers": len(milliseconds),
        "failures": len(failures),
    }
