"""Measures the query service: latency at one client, throughput at 16, behaviour at 500, memory over many queries.

Run it from the repository: `python benchmarks/query_service.py`. It makes its own data (500,000 users, 17 million rows
of top artists) below `--data` unless a snapshot is published there already, starts the service, and prints a table.
The rate limit and the access log's file are the only settings that differ from the defaults.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb

from music_assets.lake.delta import DeltaStore
from music_assets.lake.music_db import NothingPublishedError, connect, publish, published
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    COUNTRY_RANK_PER_ARTIST,
    TABLES,
    USER_DATA,
    USER_TOP_ARTISTS,
    Table,
)

TOP = 34
ARTISTS = 400_000
COUNTRIES = 240
DRAKE = (
    "SELECT country FROM processed_parquet_country_rank_per_artist WHERE artist_name = 'Drake' ORDER BY rank LIMIT 10;"
)


def main() -> None:
    """Make the data, start the service, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/benchmark"))
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each run under load")
    parser.add_argument("--queries", type=int, default=100_000, help="queries of the run that watches memory")
    options = parser.parse_args()
    root = options.data.absolute()
    try:
        published(root)
    except NothingPublishedError:
        make_data(root, options.users)
    port = free_port()
    service = start_service(root, port)
    try:
        asyncio.run(measure(root, port, service.pid, options.seconds, options.queries))
    finally:
        service.terminate()
        service.wait()


def make_data(root: Path, users: int) -> None:
    """Write users whose artists follow a log-uniform law, rank them, and publish the snapshot."""
    print(f"making {users} users below {root} ...")
    store = DeltaStore(root)
    connection = duckdb.connect(config={"temp_directory": str(root / "tmp")})
    connection.execute("SELECT setseed(0.5)")
    connection.execute(
        f"""CREATE TABLE users AS SELECT i::INTEGER AS user_id, floor({COUNTRIES} ** random())::INTEGER AS c,
        1 + floor(random() * 1e6)::BIGINT AS total_scrobbles FROM range(1, {users} + 1) t(i)"""
    )
    connection.execute(
        f"""CREATE TABLE plays AS SELECT (i // {TOP} + 1)::INTEGER AS user_id, (i % {TOP} + 1)::INTEGER AS rank,
        floor({ARTISTS} ** random())::INTEGER AS a, (40 / (1 - random()) ** 0.8)::BIGINT AS playcount
        FROM range({users} * {TOP}) t(i)"""
    )
    country = "CASE c WHEN 10 THEN 'Germany' ELSE 'Country ' || c END AS country"
    artist = "CASE a WHEN 20 THEN 'Drake' ELSE 'Artist ' || md5(a::VARCHAR)[:4 + a % 12] || a END AS artist_name"
    connection.execute(
        f"""CREATE TABLE sums AS SELECT country, artist_name, sum(playcount)::DOUBLE AS total_playcount
        FROM (SELECT user_id, {artist}, playcount FROM plays)
        JOIN (SELECT user_id, {country} FROM users) USING (user_id) GROUP BY ALL"""
    )
    tail = "'benchmark.csv' AS source_file, TIMESTAMP '2026-01-01' AS ingested_at"
    rows = {
        USER_DATA: f"SELECT user_id, {country}, total_scrobbles, {tail} FROM users",
        USER_TOP_ARTISTS: f"SELECT user_id, rank, {artist}, playcount, NULL::VARCHAR AS mbid, {tail} FROM plays",
        ARTIST_RANK_IN_COUNTRY: """SELECT *, row_number() OVER (PARTITION BY country
            ORDER BY total_playcount DESC, artist_name)::INTEGER AS rank FROM sums ORDER BY country, rank""",
        COUNTRY_RANK_PER_ARTIST: """SELECT *, row_number() OVER (PARTITION BY artist_name
            ORDER BY normalized_popularity DESC, country)::INTEGER AS rank
            FROM (SELECT *, total_playcount / sum(total_playcount) OVER (PARTITION BY country) AS normalized_popularity
            FROM sums) ORDER BY artist_name, rank""",
    }
    for table, sql in rows.items():
        store.replace(table, [write(connection, store, table, sql)])
    publish(root, {table: store.snapshot(table) for table in TABLES}, "4GB", None)


def write(connection: duckdb.DuckDBPyConnection, store: DeltaStore, table: Table, sql: str) -> Path:
    """Write the rows of a query as one parquet file of the table."""
    file = store.new_folder(table) / "rows.parquet"
    connection.execute(f"COPY ({sql}) TO '{file}' (FORMAT parquet)")
    return file


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start_service(root: Path, port: int) -> subprocess.Popen[bytes]:
    """Start the service as a process of its own and wait until it is ready."""
    settings = {"DATA": str(root), "PORT": str(port), "RATE_LIMIT": "1000000/second"}
    code = "from music_assets.query.app import serve; from music_assets.settings import settings; serve(settings())"
    service = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **{f"MUSIC_ASSETS_{name}": value for name, value in settings.items()}},
        stdout=subprocess.DEVNULL,
    )
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
        else:
            return service


class Client:
    """One kept-alive connection: a few lines of HTTP/1.1, so that the measuring costs little."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None

    async def ask(self, body: bytes) -> int:
        """Send one query, read the whole answer, return its status."""
        if self._reader is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(
            b"POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await self._reader.readexactly(length)
        return int(head.split(None, 2)[1])

    def close(self) -> None:
        """Hang up."""
        if self._reader is not None:
            self._writer.close()


class Load:
    """What came of many queries: milliseconds of those answered, and how often each status came."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.statuses: Counter[int | str] = Counter()
        self.seconds = 0.0

    async def run(self, port: int, clients: int, bodies: Iterator[bytes], seconds: float, most: int = 10**9) -> "Load":
        """Let the clients ask one query after the other until the time is over or enough have been sent."""
        end = time.perf_counter() + seconds
        begun = time.perf_counter()
        left = most

        async def one() -> None:
            nonlocal left
            client = Client(port)
            while time.perf_counter() < end and left > 0:
                left -= 1
                started = time.perf_counter()
                try:
                    status = await client.ask(next(bodies))
                except (OSError, asyncio.IncompleteReadError) as error:
                    self.statuses[type(error).__name__] += 1
                    client = Client(port)
                    continue
                self.statuses[status] += 1
                if status == 200:
                    self.times.append((time.perf_counter() - started) * 1000)
                elif status == 503:
                    await asyncio.sleep(0.1)
            client.close()

        await asyncio.gather(*(one() for _ in range(clients)))
        self.seconds = time.perf_counter() - begun
        return self

    def line(self) -> str:
        """Return the figures in words."""
        ordered = sorted(self.times)
        return (
            f"{len(ordered) / self.seconds:7.0f} answers/s   median {statistics.median(ordered):6.2f} ms   "
            f"p99 {ordered[int(len(ordered) * 0.99)]:7.2f} ms   statuses {dict(self.statuses)}"
        )


def asked(sql: str, params: Sequence[str] = ()) -> bytes:
    """Return the body of a query."""
    return json.dumps({"query": sql, **({"params": list(params)} if params else {})}).encode()


def always(body: bytes) -> Iterator[bytes]:
    """Ask the same again and again."""
    while True:
        yield body


def varied(artists: list[str]) -> Iterator[bytes]:
    """Ask for another artist each time."""
    chance = random.Random(1)
    while True:
        yield asked(DRAKE.replace("'Drake'", "?"), [chance.choice(artists)])


def resident_mb(pid: int) -> float:
    """Return the resident memory of the service and its workers, in megabytes."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = [int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in (str(pid), *children)]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measure(root: Path, port: int, pid: int, seconds: float, queries: int) -> None:
    """Print one line a measurement."""
    with connect(root) as connection:
        sql = "SELECT DISTINCT artist_name FROM processed_parquet_country_rank_per_artist USING SAMPLE 5000"
        artists = [name for (name,) in connection.execute(sql).fetchall()]
    await Load().run(port, 4, varied(artists), 3)
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("1 client, Drake        ", (await Load().run(port, 1, always(asked(DRAKE)), seconds)).line())
    print("1 client, any artist   ", (await Load().run(port, 1, varied(artists), seconds)).line())
    print("16 clients, Drake      ", (await Load().run(port, 16, always(asked(DRAKE)), seconds)).line())
    print("16 clients, any artist ", (await Load().run(port, 16, varied(artists), seconds)).line())
    print("500 clients, any artist", (await Load().run(port, 500, varied(artists), seconds)).line())
    print("1 client afterwards    ", (await Load().run(port, 1, always(asked(DRAKE)), 3)).line())
    print(f"memory before {queries} queries: {resident_mb(pid):.0f} MB")
    for part in range(1, 11):
        load = await Load().run(port, 16, varied(artists), 3600, queries // 10)
        print(f"  after {part * queries // 10:7}: {resident_mb(pid):.0f} MB   statuses {dict(load.statuses)}")


if __name__ == "__main__":
    main()
