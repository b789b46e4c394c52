"""The documented queries over HTTP, from several services; DuckDB in this process is the floor."""

import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks import services
from benchmarks.contestants import Ours, base_folder
from benchmarks.context import Context, Entrant, empty_folder
from benchmarks.measure import size_mb
from benchmarks.results import OURS, Measurement
from benchmarks.services import ANY_ARTIST, DRAKE, OUR_SERVICE, QUERIES
from music_assets.data_root import DataRoot
from music_assets.storage.published_snapshot import connect

FLOOR = Entrant("DuckDB in process")
CLIENTS = 16
Result = tuple[str, dict[str, float], list[list[object]] | None]  # variant, metrics, rows of an answer to compare


def queries(context: Context) -> Iterator[Measurement]:
    """Query each service, restarted in each round, with one client and with several; then DuckDB itself."""
    root = base_folder(context.work, context.users, Ours())
    artists = services.sample_artists(root)
    for number, one in context.turns([OUR_SERVICE, services.NAIVE_SERVICE, services.DATASETTE, FLOOR]):
        results = _in_process(context, root, artists)
        if isinstance(one, services.Service):
            results = _over_http(context, one, root, artists)
        for variant, metrics, rows in results:
            if rows is not None:
                context.compare(one.name, rows, variant)
            yield Measurement(one.name, number, metrics, variant)


def endurance(context: Context) -> Iterator[Measurement]:
    """Send many queries to our service, then queries of very many clients, and sample its memory."""
    root = base_folder(context.work, context.users, Ours())
    query = QUERIES[ANY_ARTIST], services.sample_artists(root)
    with OUR_SERVICE.running(root, empty_folder(context.work, "endurance", OURS)) as (port, watch):
        for part in range(1, 11):
            metrics = OUR_SERVICE.load(port, *query, CLIENTS, seconds=60, limit=10_000) | watch.memory()
            yield Measurement(OURS, 1, metrics, f"{part}0,000 queries")
        yield Measurement(OURS, 1, OUR_SERVICE.load(port, *query, 500, context.seconds) | watch.memory(), "500 clients")


def _over_http(context: Context, service: services.Service, root: Path, artists: Sequence[str]) -> Iterator[Result]:
    folder = empty_folder(context.work, "served", service.name)
    service.prepare(root, folder)
    with service.running(root, folder) as (port, watch):
        for name, sql in QUERIES.items():
            rows = service.ask(port, sql, artists[0]) or []
            yield f"{name}, 1 client", service.load(port, sql, artists, 1, context.seconds), rows
        for name in (DRAKE, ANY_ARTIST):
            metrics = service.load(port, QUERIES[name], artists, CLIENTS, context.seconds)
            yield f"{name}, {CLIENTS} clients", metrics, None
        yield "memory", watch.memory() | {"left_mb": size_mb(folder)}, None


def _in_process(context: Context, root: Path, artists: Sequence[str]) -> Iterator[Result]:
    with connect(DataRoot(root)) as connection:
        for name, sql in QUERIES.items():

            def execute(artist: str, sql: str = sql) -> tuple[int, list[list[object]]]:
                params = {"artist": artist} if "$artist" in sql else None
                return 200, list(map(list, connection.execute(sql, params).fetchall()))

            metrics = services.load([execute], partial(random.Random(1).choice, artists), context.seconds)
            yield f"{name}, 1 client", metrics, execute(artists[0])[1]
