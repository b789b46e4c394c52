"""The Python client against a real service: rows as each library reads them, typed errors, retries."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

from music_assets import client
from music_assets.client import (
    AccessError,
    BusyError,
    InvalidQueryError,
    MusicDB,
    NoAnswerError,
    NoDataError,
    NotAllowedError,
    NotFoundError,
    NotTrainedError,
    ProblemError,
    QueryTimeoutError,
)
from music_assets.service.problems import KINDS
from music_assets_tests.service.conftest import Dataset, Service, serving

RANKING = """
SELECT country, artist_name, total_playcount, rank FROM processed_parquet_artist_rank_in_country ORDER BY country, rank
"""


@pytest.fixture
def music_db(service: Service) -> Iterator[MusicDB]:
    with MusicDB(service.url) as music_db:
        yield music_db


def test_rows_are_the_same_in_every_library(music_db: MusicDB, dataset: Dataset) -> None:
    expected = dataset.rankings.assign(rank=dataset.rankings["rank_in_country"].astype("int32"))
    expected = expected.sort_values(["country", "rank"])[["country", "artist_name", "total_playcount", "rank"]]
    expected = expected.reset_index(drop=True)
    answer = music_db.query(RANKING)
    assert len(answer) == len(expected)
    assert answer.data_version == dataset.published.data_version
    assert not answer.truncated
    pd.testing.assert_frame_equal(answer.to_pandas(), expected, check_dtype=False)
    pd.testing.assert_frame_equal(answer.to_polars().to_pandas(), expected, check_dtype=False)
    assert answer.to_dicts() == expected.to_dict("records")
    assert pl.DataFrame(answer).equals(answer.to_polars())
    assert duckdb.sql("SELECT count(*) FROM answer").fetchall() == [(len(expected),)]


def test_parameters(music_db: MusicDB) -> None:
    sql = "SELECT ?::VARCHAR AS a, ? + 1 AS b, ?::DATE AS c, ? AS d, ? AS e"
    (row,) = music_db.query(
        sql, ["x", np.int64(2), date(2026, 1, 2), None, np.datetime64("2026-01-02", "ns")]
    ).to_dicts()
    assert row == {"a": "x", "b": 3, "c": date(2026, 1, 2), "d": None, "e": "2026-01-02T00:00:00.000000000"}
    assert music_db.query("SELECT $n AS n", {"n": 1.5}).to_dicts() == [{"n": 1.5}]
    for other in (object(), np.array([1, 2])):
        with pytest.raises(TypeError, match="cast it in the SQL"):
            music_db.query("SELECT ?", [other])  # type: ignore[list-item]


def test_limit(music_db: MusicDB) -> None:
    answer = music_db.query("FROM range(10)", limit=3)
    assert (len(answer), answer.truncated) == (3, True)


def test_ready_made_questions(music_db: MusicDB, dataset: Dataset, service: Service) -> None:
    country, artist = "Côte d'Ivoire", "AC/DC"
    best = dataset.rankings.query("country == @country").sort_values("rank_in_country")
    assert music_db.artists_of_country(country, limit=3).to_pandas()["artist_name"].tolist() == list(
        best["artist_name"][:3]
    )
    listeners = dataset.listeners(artist)
    found = music_db.countries_of_artist(artist, min_listeners=2).to_pandas()
    assert dict(zip(found["country"], found["listeners"], strict=True)) == listeners[listeners >= 2].to_dict()
    for answer, path in (
        (music_db.distinctive_artists(country), "/countries/C%C3%B4te d'Ivoire/distinctive"),
        (music_db.changes(country), "/countries/C%C3%B4te d'Ivoire/changes"),
        (music_db.changes(), "/changes"),
    ):
        assert [list(row.values()) for row in answer.to_dicts()] == service.http.get(path).json()["rows"]
    assert music_db.tables() == service.http.get("/tables").json()["tables"]


def test_errors_have_types(music_db: MusicDB) -> None:
    with pytest.raises(InvalidQueryError, match=r"line 1, column 15.*Correct the SQL") as syntax:
        music_db.query("SELECT * FORM x")
    assert (syntax.value.kind, syntax.value.status) == ("syntax", 400)
    assert syntax.value.members["position"]["line"] == 1
    with pytest.raises(InvalidQueryError, match=r"body\.query: String should have at least 1 character"):
        music_db.query("")
    with pytest.raises(InvalidQueryError, match=r" body\.params\.1: .*must be finite"):
        music_db.query("SELECT ? + ?", [1, float("nan")])
    with pytest.raises(NotAllowedError, match="Send one SELECT"):
        music_db.query("FROM read_text('/etc/passwd')")
    with pytest.raises(QueryTimeoutError):
        music_db.query("SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i) = 1", timeout_ms=100)
    with pytest.raises(NotFoundError) as unknown:
        music_db.artists_of_country("germany")
    assert unknown.value.members["suggestions"] == ["Germany"]
    for question in (music_db.artists_of_country, music_db.changes):
        with pytest.raises(NotFoundError, match=r"'\.\.'"):
            question("..")
    with pytest.raises(NotTrainedError, match="Start a training"):
        music_db.similar_artists("Drake")


def test_every_kind_of_problem_has_a_type() -> None:
    """Except those of requests that the client does not send."""
    other = {"internal", "method-not-allowed", "no-dagster", "not-acceptable", "slow-request"}
    assert set(KINDS) - set(client._ERRORS) == other
    assert set(client._ERRORS) <= set(KINDS)


def test_key_and_rate_limit(dataset: Dataset) -> None:
    entry = f"ann:{sha256(b'k').hexdigest()}"
    with serving(dataset.root, api_keys=entry, rate_limit="2/hour", query_workers=1) as service:
        for wrong in ("wrong", "schlüssel"):
            with MusicDB(service.url, wrong) as stranger, pytest.raises(AccessError, match="Authorization: Bearer"):
                stranger.query("SELECT 1")
        with MusicDB(f"{service.url}/", "k\n") as ann:
            assert [ann.query("SELECT 1 AS x").to_dicts() for _ in range(2)] == [[{"x": 1}]] * 2
            with pytest.raises(BusyError, match="Retry-After: ") as busy:
                ann.query("SELECT 1")
            assert busy.value.retry_after > 60


def test_other_servers_are_no_answer(service: Service) -> None:
    for url in ("http://127.0.0.1:9", "no address", f"{service.url}/docs"):
        with MusicDB(url) as music_db:
            for question in (music_db.tables, lambda music_db=music_db: music_db.query("SELECT 1")):
                with pytest.raises((NoAnswerError, NotFoundError), match=r"running|Check the URL|at this address"):
                    question()


@contextmanager
def answering(*answers: tuple[int, dict[str, str], str]) -> Iterator[tuple[str, list[str]]]:
    """Serve these answers, the last one for ever; yield the URL and the list of requested paths."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answers[min(len(paths), len(answers) - 1)]
            paths.append(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", paths
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def problem(kind: str) -> str:
    status, title, advice = KINDS[kind]
    return (
        f'{{"type": "urn:music-assets:problem:{kind}", "title": "{title}", "status": {status}, "detail": "d", '
        f'"advice": "{advice}", "request_id": "r"}}'
    )


def test_a_busy_service_is_asked_again() -> None:
    busy = (503, {"Retry-After": "0"}, problem("busy"))
    with answering(busy, busy, (200, {}, '{"tables": []}')) as (url, paths), MusicDB(url) as music_db:
        assert music_db.tables() == []
        assert paths == ["/tables"] * 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((503, {"Retry-After": "61"}, problem("busy")), BusyError),
        ((503, {"Retry-After": "0"}, problem("nothing-published")), NoDataError),
        ((503, {}, problem("no-dagster")), ProblemError),
        ((500, {"Retry-After": "0"}, problem("internal")), ProblemError),
        ((503, {}, "<html>"), NoAnswerError),
        ((200, {}, "<html>"), NoAnswerError),
    ],
)
def test_other_answers_are_final(answer: tuple[int, dict[str, str], str], error: type[Exception]) -> None:
    with answering(answer) as (url, paths), MusicDB(url) as music_db:
        with pytest.raises(error):
            music_db.tables()
        assert len(paths) == 1


def test_the_client_imports_only_its_libraries() -> None:
    code = "import sys, music_assets.client; print(*{name.partition('.')[0] for name in sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"dagster", "pyspark", "gensim", "scipy", "duckdb", "pandas", "polars", "pydantic", "fastapi", "mcp"}
    assert set(result.stdout.split()) & heavy == set()
