"""The documented queries over HTTP, beside others that serve the same tables; DuckDB in this process is the floor."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import duckdb

from benchmarks.bases import base, folder_of
from benchmarks.contestants import Ours, size_mb
from benchmarks.digest import Agreement
from benchmarks.load import Load, ask_once, load
from benchmarks.processes import running
from benchmarks.results import OURS, Measurement
from benchmarks.running import Case, Setting
from benchmarks.services import (
    ANY_ARTIST,
    DRAKE_QUESTION,
    QUESTIONS,
    SERVICES,
    OurService,
    Question,
    Service,
    free_port,
    requests,
    wait_until_ready,
)
from music_assets.data_root import DataRoot
from music_assets.storage.published_snapshot import connect

FLOOR = "DuckDB in process"
ARTISTS = 5_000
ENDURANCE_QUERIES = 100_000
ENDURANCE_PARTS = 10
ENDURANCE_SECONDS = 60.0
"""Seconds after which a tenth is broken off."""

CROWD = 500


def queries(setting: Setting) -> Iterator[Measurement]:
    """Ask each service, started anew in each round, with one client and with sixteen; then DuckDB itself."""
    root = base(setting, Ours())
    artists = sample_of_artists(root)
    agreement = Agreement()
    services = setting.present(SERVICES)
    for service in services:
        service.prepare(root, folder_of(setting, "served", service.name))
    for number in range(1, setting.rounds + 1):
        for service in services:
            yield from _asked(setting, service, root, artists, number, agreement)
        if not setting.only or FLOOR in setting.only:
            yield from _in_process(setting, root, artists, number, agreement)


def endurance(setting: Setting) -> Iterator[Measurement]:
    """Ask our service a hundred thousand times with 16 clients, then with 500, and watch its memory."""
    root = base(setting, Ours())
    artists = sample_of_artists(root)
    service, port = OurService(), free_port()
    with running(service.command(root, root, port), setting.work / "endurance.log") as watch:
        wait_until_ready(service, port)
        asked = requests(service, ANY_ARTIST, artists)
        part = ENDURANCE_QUERIES // ENDURANCE_PARTS
        for number in range(1, ENDURANCE_PARTS + 1):
            figures = load(port, 16, asked, ENDURANCE_SECONDS, part).figures()
            watch.look()
            yield Measurement(OURS, number, {**figures, "sum_mb": watch.sum_mb}, f"{number * part:,} queries")
        figures = load(port, CROWD, asked, setting.seconds).figures()
        watch.look()
        yield Measurement(OURS, 1, {**figures, "sum_mb": watch.sum_mb}, f"{CROWD} clients")


def sample_of_artists(root: Path) -> list[str]:
    """Return names of artists, each as likely as any other, the same each time."""
    sql = f"""SELECT artist_name FROM processed_parquet_country_rank_per_artist WHERE rank = 1
        ORDER BY hash(artist_name), artist_name LIMIT {ARTISTS}"""
    with connect(DataRoot(root)) as connection:
        return [name for (name,) in connection.execute(sql).fetchall()]


def _asked(
    setting: Setting, service: Service, root: Path, artists: Sequence[str], number: int, agreement: Agreement
) -> Iterator[Measurement]:
    folder, port = folder_of(setting, "served", service.name), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    with running(service.command(root, folder, port), folder.with_suffix(".log")) as watch:
        wait_until_ready(service, port)
        for question in QUESTIONS:
            status, body = ask_once(port, service.request(question, artists[0]))
            if status != 200:
                raise ConnectionError(f"{service.name} answers {question.name} with {status}: {body[:500]!r}")
            agreement.check(service.name, [list(row) for row in service.rows(body)], question.name)
            found = load(port, 1, requests(service, question, artists), setting.seconds)
            yield Measurement(service.name, number, found.figures(), f"{question.name}, 1 client")
        for question in (DRAKE_QUESTION, ANY_ARTIST):
            found = load(port, 16, requests(service, question, artists), setting.seconds)
            yield Measurement(service.name, number, found.figures(), f"{question.name}, 16 clients")
        watch.look()
        memory = {"largest_mb": watch.largest_mb, "sum_mb": watch.sum_mb}
    yield Measurement(service.name, number, {**memory, "left_mb": size_mb(folder)}, "memory")


def _in_process(
    setting: Setting, root: Path, artists: Sequence[str], number: int, agreement: Agreement
) -> Iterator[Measurement]:
    with connect(DataRoot(root)) as connection:
        for question in QUESTIONS:
            ask = _asker(connection, question, artists)
            agreement.check(FLOOR, ask(0), question.name)
            found = Load()
            begun = time.perf_counter()
            while (started := time.perf_counter()) - begun < setting.seconds:
                ask(len(found.times))
                found.times.append((time.perf_counter() - started) * 1000)
            found.seconds = time.perf_counter() - begun
            yield Measurement(FLOOR, number, found.figures(), f"{question.name}, 1 client")


def _asker(
    connection: duckdb.DuckDBPyConnection, question: Question, artists: Sequence[str]
) -> Callable[[int], list[list[object]]]:
    """Return a function that asks and fetches all rows, for another artist each time where the question varies."""

    def ask(number: int) -> list[list[object]]:
        values = {"artist": artists[number % len(artists)]} if question.varies else None
        return [list(row) for row in connection.execute(question.sql, values).fetchall()]

    return ask


CASES = (
    Case(
        "queries",
        "Queries over HTTP",
        "The documented queries with one client, and two of them with sixteen. The same rows are asked for everywhere: "
        "our service answers from the published snapshot, FastAPI + DuckDB from parquet as the ranking left it, "
        "datasette from an indexed SQLite file. DuckDB in this process, on the published snapshot, is the floor: no "
        "HTTP, no limits, no sandbox. For 'any artist' each request asks for another one; all others come again and "
        "again, which our service may answer from small results it keeps.",
        queries,
    ),
    Case(
        "endurance",
        "Many queries, many clients",
        "100,000 queries from 16 clients, each for one of 5,000 artists, then 500 clients at once: does memory grow, "
        "does the service hold?",
        endurance,
    ),
)
