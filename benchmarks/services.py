"""Who answers SQL over HTTP: our service, and what stands in `peers/`; and which questions they are asked."""

import json
import random
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import duckdb

from benchmarks.contestants import PEERS
from benchmarks.load import ask_once
from benchmarks.processes import Command, run
from benchmarks.results import OURS
from benchmarks.running import Entrant
from music_assets.data_root import DataRoot
from music_assets.settings import PREFIX
from music_assets.storage.published_snapshot import newest_snapshot

PATIENCE = 120
"""Seconds after which a service that does not answer is taken to hang."""


@dataclass(frozen=True)
class Question:
    """A SELECT as the documentation has it; where it holds `$artist`, each request asks for another artist."""

    name: str
    sql: str

    @property
    def varies(self) -> bool:
        """Tell whether requests differ."""
        return "$artist" in self.sql


DRAKE = "SELECT country FROM processed_parquet_country_rank_per_artist WHERE artist_name = {} ORDER BY rank LIMIT 10"
QUESTIONS = (
    Question("Drake", DRAKE.format("'Drake'")),
    Question("any artist", DRAKE.format("$artist")),
    Question(
        "Germany",
        "SELECT artist_name, total_playcount FROM processed_parquet_artist_rank_in_country "
        "WHERE country = 'Germany' ORDER BY rank LIMIT 10",
    ),
    Question(
        "a page",
        "SELECT country, artist_name, total_playcount, rank FROM processed_parquet_artist_rank_in_country "
        "WHERE country = 'Germany' AND rank > 100 ORDER BY rank LIMIT 100",
    ),
    Question(
        "countries",
        "SELECT country, count(*) AS artists, sum(total_playcount) AS plays "
        "FROM processed_parquet_artist_rank_in_country GROUP BY country ORDER BY country",
    ),
    Question(
        "users by country",
        "SELECT country, count(*) AS users FROM raw_parquet_user_data WHERE country IS NOT NULL "
        "GROUP BY country ORDER BY country",
    ),
)
DRAKE_QUESTION, ANY_ARTIST = QUESTIONS[:2]


class Service(Entrant, Protocol):
    """Answers questions over HTTP from tables made out of our published snapshot."""

    def prepare(self, root: Path, folder: Path) -> None:
        """Make what it serves out of the snapshot below our data root."""
        ...

    def command(self, root: Path, folder: Path, port: int) -> Command:
        """Return the command that starts it."""
        ...

    def request(self, question: Question, artist: str) -> bytes:
        """Return a question as HTTP."""
        ...

    def rows(self, body: bytes) -> list[list[Any]]:
        """Return the rows of an answer."""
        ...


def _post(question: Question, artist: str) -> bytes:
    asked = {"query": question.sql, **({"params": {"artist": artist}} if question.varies else {})}
    body = json.dumps(asked).encode()
    head = f"POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


@dataclass(frozen=True)
class OurService:
    """`music-assets serve` with its defaults, but for the rate limit."""

    name: str = OURS
    needs: Sequence[str] = ()

    def prepare(self, root: Path, folder: Path) -> None:
        """Nothing: it serves the snapshot."""

    def command(self, root: Path, folder: Path, port: int) -> Command:
        """Start the service over the data root."""
        settings = {"DATA": str(root), "PORT": str(port), "RATE_LIMIT": "1000000/second"}
        environment = {f"{PREFIX}{name}": value for name, value in settings.items()}
        return Command([sys.executable, "-m", "music_assets", "serve"], environment)

    def request(self, question: Question, artist: str) -> bytes:
        """Ask at /query."""
        return _post(question, artist)

    def rows(self, body: bytes) -> list[list[Any]]:
        """Take the rows; they are arrays."""
        return list(json.loads(body)["rows"])


@dataclass(frozen=True)
class NaiveService:
    """FastAPI and DuckDB on unsorted parquet."""

    name: str = "FastAPI + DuckDB"
    needs: Sequence[str] = ("fastapi", "uvicorn")

    def prepare(self, root: Path, folder: Path) -> None:
        """Write each table as the window function that ranks it would leave it, without sorting."""
        tables = {
            "raw_parquet_user_data": "FROM raw_parquet_user_data",
            "processed_parquet_artist_rank_in_country": """
                SELECT country, artist_name, total_playcount, row_number() OVER
                    (PARTITION BY country ORDER BY total_playcount DESC, artist_name)::INTEGER AS rank
                FROM processed_parquet_artist_rank_in_country""",
            "processed_parquet_country_rank_per_artist": """
                SELECT country, artist_name, total_playcount, normalized_popularity, row_number() OVER
                    (PARTITION BY artist_name ORDER BY normalized_popularity DESC, country)::INTEGER AS rank
                FROM processed_parquet_country_rank_per_artist""",
        }
        folder.mkdir(parents=True, exist_ok=True)
        with duckdb.connect(str(newest_snapshot(DataRoot(root)).path), read_only=True) as connection:
            connection.execute(f"SET temp_directory = '{folder}/spill'")
            for name, sql in tables.items():
                connection.execute(f"COPY ({sql}) TO '{folder}/{name}.parquet'")

    def command(self, root: Path, folder: Path, port: int) -> Command:
        """Start uvicorn as its tutorial does."""
        arguments = [sys.executable, "-m", "uvicorn", "benchmarks.peers.naive_service:app", "--port", str(port)]
        return Command(arguments, {"NAIVE_FOLDER": str(folder)})

    def request(self, question: Question, artist: str) -> bytes:
        """Ask at /query."""
        return _post(question, artist)

    def rows(self, body: bytes) -> list[list[Any]]:
        """Take the rows; they are arrays."""
        return list(json.loads(body)["rows"])


@dataclass(frozen=True)
class Datasette:
    """datasette on an immutable, indexed SQLite file, without the time limit that would refuse the slow questions."""

    name: str = "datasette"
    needs: Sequence[str] = ("datasette",)

    def prepare(self, root: Path, folder: Path) -> None:
        """Fill and index the SQLite file."""
        folder.mkdir(parents=True, exist_ok=True)
        arguments = [sys.executable, str(PEERS / "datasette_sqlite.py"), str(newest_snapshot(DataRoot(root)).path)]
        run(Command([*arguments, str(folder / "music.db")], {}), folder / "build.log")

    def command(self, root: Path, folder: Path, port: int) -> Command:
        """Start it with the file immutable."""
        serve = [sys.executable, "-m", "datasette", "serve", "--immutable", str(folder / "music.db")]
        return Command([*serve, "--port", str(port), "--setting", "sql_time_limit_ms", "60000"], {})

    def request(self, question: Question, artist: str) -> bytes:
        """Ask for JSON by GET."""
        asked = {"sql": question.sql.replace("$artist", ":artist"), "_shape": "arrays"}
        if question.varies:
            asked["artist"] = artist
        return f"GET /music.json?{urlencode(asked)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    def rows(self, body: bytes) -> list[list[Any]]:
        """Take the rows; they are arrays."""
        return list(json.loads(body)["rows"])


SERVICES: tuple[Service, ...] = (OurService(), NaiveService(), Datasette())


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_until_ready(service: Service, port: int) -> None:
    """Ask until there is an answer. Raises TimeoutError where there is none in two minutes."""
    request = service.request(DRAKE_QUESTION, "")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if ask_once(port, request)[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{service.name} did not answer within {PATIENCE} s.")


def requests(service: Service, question: Question, artists: Sequence[str]) -> Iterator[bytes]:
    """Yield the same question again and again, or one for another artist each time, for everybody the same."""
    if not question.varies:
        request = service.request(question, "")
        while True:
            yield request
    chance = random.Random(1)
    while True:
        yield service.request(question, chance.choice(artists))
