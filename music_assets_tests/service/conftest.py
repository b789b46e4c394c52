"""A small published dataset of generated rows, and services that run on it in a thread of the test process."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uvicorn

from music_assets.data_root import DataRoot
from music_assets.service.app import create_app, server_config
from music_assets.settings import Settings
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import PublishedSnapshot
from music_assets.storage.publisher import Publisher
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    COUNTRY_RANK_PER_ARTIST,
    REJECTED_ROWS,
    USER_DATA,
    USER_TOP_ARTISTS,
    Table,
)

COUNTRIES = ["Germany", "United Kingdom", "Côte d'Ivoire", "Japan", None]
ARTISTS = ["Drake", "AC/DC", "Sigur Rós", "Guns N' Roses", "相対性理論", "M.I.A.", '"Weird Al" Yankovic', "drakes"]
ARTISTS += [f"Artist {number:02}" for number in range(30)]


@dataclass(frozen=True)
class Dataset:
    """A data root, its newest snapshot, and its rows as pandas frames."""

    root: Path
    published: PublishedSnapshot
    users: pd.DataFrame
    tops: pd.DataFrame
    rankings: pd.DataFrame

    def listeners(self, artist: str) -> pd.Series:
        """Return the number of current listeners of an artist by country."""
        found = current(self.users, self.tops).query("artist_name == @artist")
        return found.groupby("country")["user_id"].nunique()


def write(store: DeltaStore, table: Table, rows: pd.DataFrame) -> None:
    """Replace the content of the table, sorted as an engine writes it."""
    if table.sort_by:
        rows = rows.sort_values(list(table.sort_by))
    file = store.new_folder(table) / "rows.parquet"
    schema = table.schema.to_pyarrow()
    pq.write_table(pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False), file)
    store.replace(table, [file])


def make_dataset(
    root: Path, seed: int = 1, countries: Sequence[str | None] = COUNTRIES, artists: Sequence[str] = ARTISTS
) -> Dataset:
    """Create tables of two drops and publish them: 80 users, then ten of them with other countries and artists."""
    chance = random.Random(seed)
    users, tops = [], []
    for drop, ids in enumerate([range(80), range(10)]):
        ingested_at = pd.Timestamp(f"2026-01-0{drop + 1}")
        for user in ids:
            file = f"drop {drop}.csv"
            users.append((user, chance.choice(countries), chance.randrange(10**6), file, ingested_at))
            for place, artist in enumerate(chance.sample(artists, 12), start=1):
                tops.append((user, place, artist, chance.randrange(1000), None, file, ingested_at))
    users = pd.DataFrame(users, columns=USER_DATA.schema.names)
    tops = pd.DataFrame(tops, columns=USER_TOP_ARTISTS.schema.names)
    rankings = rank(users, tops)
    store = DeltaStore(DataRoot(root))
    write(store, USER_DATA, users)
    write(store, USER_TOP_ARTISTS, tops)
    write_rankings(store, rankings)
    bad = [("raw_parquet_user_data", "drop 0.csv", 7, "user_id", "not an integer", "x,Germany,3", ingested_at)]
    write(store, REJECTED_ROWS, pd.DataFrame(bad, columns=REJECTED_ROWS.schema.names))
    return Dataset(root, publish_tables(root), users, tops, rankings)


def write_rankings(store: DeltaStore, rankings: pd.DataFrame) -> None:
    """Replace the content of both ranking tables."""
    write(store, ARTIST_RANK_IN_COUNTRY, rankings.assign(rank=rankings["rank_in_country"]))
    write(store, COUNTRY_RANK_PER_ARTIST, rankings.assign(rank=rankings["rank_for_artist"]))


def publish_tables(root: Path) -> PublishedSnapshot:
    """Publish the current content of the tables."""
    return Publisher(DeltaStore(DataRoot(root)), "200MB", 1).publish()


def current(users: pd.DataFrame, tops: pd.DataFrame) -> pd.DataFrame:
    """Return the current top artists of each user with the user's current country."""
    users = users.sort_values("ingested_at").drop_duplicates("user_id", keep="last")
    tops = tops.sort_values("ingested_at").drop_duplicates(["user_id", "rank"], keep="last")
    return tops.merge(users[["user_id", "country"]], on="user_id").dropna(subset="country")


def rank(users: pd.DataFrame, tops: pd.DataFrame) -> pd.DataFrame:
    """Return both ranks of every pair of country and artist."""
    groups = current(users, tops).groupby(["country", "artist_name"])
    pairs = groups.agg(total_playcount=("playcount", "sum"), listeners=("user_id", "nunique")).reset_index()
    pairs["total_playcount"] = pairs["total_playcount"].astype(float)
    totals = pairs.groupby("country")["total_playcount"].transform("sum")
    pairs["normalized_popularity"] = pairs["total_playcount"] / totals
    pairs = pairs.sort_values(["total_playcount", "artist_name"], ascending=[False, True])
    pairs["rank_in_country"] = pairs.groupby("country").cumcount() + 1
    pairs = pairs.sort_values(["normalized_popularity", "country"], ascending=[False, True])
    pairs["rank_for_artist"] = pairs.groupby("artist_name").cumcount() + 1
    return pairs


class Service:
    """A running service and an HTTP client for it."""

    def __init__(self, url: str, app: Any) -> None:
        self.url = url
        self.app = app
        self.http = httpx.Client(base_url=url, timeout=60, headers={"Host": "localhost"})

    def query(self, sql: str, form: str = "json", **body: Any) -> httpx.Response:
        """Send a statement to POST /query."""
        return self.http.post("/query", params={"format": form}, json={"query": sql, **body})

    def rows(self, sql: str, **body: Any) -> list[list[Any]]:
        """Return the rows of a statement. Fails unless the status is 200."""
        response = self.query(sql, **body)
        assert response.status_code == 200, response.text
        return response.json()["rows"]

    def worker_answers(self) -> bool:
        """Return whether a worker answers a query whose result is never kept."""
        return self.rows("SELECT random() < 1") == [[True]]


NO_DAGSTER = "http://127.0.0.1:9"


@contextmanager
def serving(root: Path, **settings: Any) -> Iterator[Service]:
    """Run a service with these settings on a free port. By default it reaches no Dagster that runs on this machine."""
    defaults = {"query_workers": 2, "rate_limit": "100000/second", "timeout_ms": 3000, "dagster_url": NO_DAGSTER}
    current = Settings(data=root, port=0, **{**defaults, **settings})
    app = create_app(current)
    server = uvicorn.Server(server_config(app, current, current.max_connections))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    service = Service(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", app)
    try:
        yield service
    finally:
        service.http.close()
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def service(dataset: Dataset) -> Iterator[Service]:
    with serving(dataset.root) as running:
        yield running
