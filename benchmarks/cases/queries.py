"""The documented queries over HTTP, from several services; DuckDB in this process is the floor."""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from itertools import product
from pathlib import Path
from urllib.parse import quote

from benchmarks import services
from benchmarks.contestants import Ours, base_folder
from benchmarks.context import Context, Entrant, empty_folder
from benchmarks.measure import size_mb
from benchmarks.results import OURS, Measurement
from benchmarks.services import ANY_ARTIST, BY_ENDPOINT, DRAKE, OUR_SERVICE, QUERIES
from music_assets.data_root import DataRoot
from music_assets.storage.published_snapshot import connect

FLOOR = Entrant("DuckDB in process")
CLIENTS = 16
BOMB = "SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i) = 1"
LOOKUPS = {
    "countries of an artist with 2 listeners": "/artists/countries?artist={artist}&min_listeners=2",
    "artists of the world": "/artists?limit=20&offset={number}",
    "distinctive artists of a country": "/countries/{country}/distinctive?limit={number}",
    "countries of similar taste": "/countries/{country}/similar?limit={number}",
    "search while typing": "/artists?search={typed}",
}
Result = tuple[str, dict[str, float], list[list[object]] | None]  # variant, metrics, rows of an answer to compare


def queries(context: Context) -> Iterator[Measurement]:
    """Query each service, restarted in each round, with one client and with several; then DuckDB itself."""
    root = base_folder(context.work, context.users, Ours())
    artists = services.sample_artists(root)
    for number, one in context.turns([OUR_SERVICE, services.NAIVE_SERVICE, services.DATASETTE, FLOOR]):
        answer = partial(_over_http, one) if isinstance(one, services.Service) else _in_process
        for variant, metrics, rows in answer(context, root, artists):
            if rows is not None:
                context.compare(one.name, rows, variant)
            yield Measurement(one.name, number, metrics, variant)


def lookups(context: Context) -> Iterator[Measurement]:
    """Ask for each lookup with one client, each time with other parameters."""
    root = base_folder(context.work, context.users, Ours())
    artists, chance = services.sample_artists(root), random.Random(1)
    with connect(DataRoot(root)) as connection:
        countries = [name for (name,) in connection.execute("SELECT country FROM country_totals").fetchall()]

    def request(path: str) -> services.Request:
        artist, country = (quote(chance.choice(names), safe="") for names in (artists, countries))
        typed, number = quote(chance.choice(artists)[: chance.randint(1, 8)], safe=""), chance.randint(1, 200)
        return "GET", path.format(artist=artist, country=country, typed=typed, number=number), None, {}

    with OUR_SERVICE.running(root, empty_folder(context.work, "lookups", OURS)) as (port, _):
        client = partial(services.send, HTTPConnection("127.0.0.1", port))
        for number, (name, path) in product(range(1, context.rounds + 1), LOOKUPS.items()):
            yield Measurement(OURS, number, services.load([client], partial(request, path), context.seconds), name)


def bombs(context: Context) -> Iterator[Measurement]:
    """Send lookups of honest clients, alone and next to clients whose queries run into the timeout."""
    root = base_folder(context.work, context.users, Ours())
    query, folder = (QUERIES[ANY_ARTIST], services.sample_artists(root)), empty_folder(context.work, "bombs", OURS)
    for (honest, hostile), number in product(((CLIENTS, 0), (12, 4), (450, 50)), range(1, context.rounds + 1)):
        with OUR_SERVICE.running(root, folder) as (port, watch), ThreadPoolExecutor() as pool:
            if hostile:
                pool.submit(OUR_SERVICE.load, port, BOMB, [""], hostile, context.seconds, network=1)
            metrics = OUR_SERVICE.load(port, *query, honest, context.seconds)
            yield Measurement(OURS, number, metrics | watch.memory(), f"{honest} honest clients, {hostile} with bombs")


def _over_http(service: services.Service, context: Context, root: Path, artists: Sequence[str]) -> Iterator[Result]:
    folder = empty_folder(context.work, "served", service.name)
    service.prepare(root, folder)
    with service.running(root, folder) as (port, watch):
        for name, sql in QUERIES.items():
            rows = service.ask(port, sql, artists[0]) or []
            yield f"{name}, 1 client", service.load(port, sql, artists, 1, context.seconds), rows
        for name in (DRAKE, ANY_ARTIST, BY_ENDPOINT):
            metrics = service.load(port, QUERIES[name], artists, CLIENTS, context.seconds)
            yield f"{name}, {CLIENTS} clients", metrics, None
        yield "memory", watch.memory() | {"left_mb": size_mb(folder)}, None


def _in_process(context: Context, root: Path, artists: Sequence[str]) -> Iterator[Result]:
    with connect(DataRoot(root)) as connection:
        for name, sql in QUERIES.items():

            def execute(artist: str, sql: str = sql) -> tuple[int, list[list[object]]]:
                params = {"artist": artist} if "$artist" in sql else {}
                return 200, list(map(list, connection.execute(sql, params).fetchall()))

            metrics = services.load([execute], partial(random.Random(1).choice, artists), context.seconds)
            yield f"{name}, 1 client", metrics, execute(artists[0])[1]
