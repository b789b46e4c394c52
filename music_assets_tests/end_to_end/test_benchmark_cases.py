"""A run of the benchmark cases over few users: about equal results, not about times."""

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pytest

from benchmarks import results
from benchmarks.__main__ import main
from benchmarks.cases.queries import FLOOR, LOOKUPS
from benchmarks.cases.rankings import BY_DAEMON
from benchmarks.cases.s3 import FAR, IN_FOLDER
from benchmarks.contestants import PUBLISHER
from benchmarks.results import OURS, Session
from music_assets_tests.conftest import need_java

USERS = 300
SCRIPTS = ["DuckDB SQL", "Polars"]
SERVICES = {OURS, "FastAPI + DuckDB", "datasette", FLOOR.name}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture(scope="module")
def sessions(work: Path) -> Mapping[str, Session]:
    """The cases on everything but Spark, run once."""
    cases = ["csv_to_rankings", "small_drop", "refresh_from_parquet", "queries", "lookups"]
    return {one.case: one for one in measure(work, cases, [BY_DAEMON.name, *SCRIPTS, PUBLISHER.name, *SERVICES])}


def measure(work: Path, cases: list[str], names: list[str]) -> list[Session]:
    file = work / "results.jsonl"
    chosen = [argument for case in cases for argument in ("--case", case)]
    size = ["--users", str(USERS), "--rounds", "1", "--seconds", "0.1", "--work", str(work), "--results", str(file)]
    main([*chosen, *size, "--only", *names])
    return [session for session in results.read(file) if session.case in cases]


def test_rankings_from_csv_are_equal(sessions: Mapping[str, Session], work: Path) -> None:
    session = sessions["csv_to_rankings"]
    assert session.contestants() == [BY_DAEMON.name, OURS, *SCRIPTS, PUBLISHER.name]
    assert session.facts["rows"]["user_top_artists"] == 50 * USERS
    (published,) = work.rglob("music_db.duckdb")
    with duckdb.connect(str(published), read_only=True) as connection:
        origin = "SELECT DISTINCT source_file, ingested_at IS NOT NULL FROM user_top_artists"
        assert connection.execute(origin).fetchall() == [("user_top_artists.csv", True)]


def test_rankings_after_a_small_drop_are_equal(sessions: Mapping[str, Session]) -> None:
    session = sessions["small_drop"]
    assert session.contestants() == [BY_DAEMON.name, OURS, *SCRIPTS]
    assert session.facts["rows"]["user_data"] == USERS + 3 + 3, "three new users, three delivered again"
    assert session.facts["rows"]["user_top_artists"] == 50 * (USERS + 3 + 3)
    assert session.facts["rows"]["artist_rank_in_country"] == session.facts["rows"]["country_rank_per_artist"] > 1_000


def test_rankings_from_parquet_are_equal(sessions: Mapping[str, Session]) -> None:
    session = sessions["refresh_from_parquet"]
    assert session.contestants() == [BY_DAEMON.name, OURS, *SCRIPTS]
    assert session.facts["rows"]["user_top_artists"] == 50 * USERS


def test_rankings_by_the_spark_script_are_equal(work: Path) -> None:
    need_java()
    (session,) = measure(work / "spark", ["small_drop"], ["DuckDB SQL", "PySpark"])
    assert session.contestants() == ["DuckDB SQL", "PySpark"]
    assert session.facts["rows"]["user_data"] == USERS + 3 + 3


def test_answers_of_the_services_are_equal(sessions: Mapping[str, Session]) -> None:
    session = sessions["queries"]
    assert {"Drake, 1 client", "any artist, 16 clients", "countries, 1 client"} <= set(session.variants)
    assert set(session.contestants("Drake, 1 client")) == SERVICES - set(session.skipped)
    assert all(one.metrics["failures"] == 0 for one in session.measurements if "failures" in one.metrics)


def test_lookups_are_answered(sessions: Mapping[str, Session]) -> None:
    session = sessions["lookups"]
    assert session.variants == list(LOOKUPS)
    assert all(one.metrics["answers"] and not one.metrics["failures"] for one in session.measurements)


def test_tables_on_s3_are_equal(work: Path) -> None:
    (session,) = measure(work, ["s3"], [IN_FOLDER.name, FAR.name])
    assert session.variants == ["ingest", "refresh", "first query"]
    assert session.contestants("refresh") == [IN_FOLDER.name, FAR.name]
    assert 1 < (session.median(FAR.name, "requests", "first query") or 0) < 20


def test_embeddings_are_evaluated_on_held_out_artists(work: Path) -> None:
    names = {OURS, "EASE", "implicit ALS"}
    (session,) = measure(work, ["embeddings"], sorted(names))
    assert set(session.contestants()) == {"baselines", *names} - set(session.skipped)
    recall = {name: session.median(name, "user to artist") for name in session.contestants()}
    assert all(0 <= value < 1 for value in recall.values() if value is not None)
    assert recall["baselines"] == pytest.approx(0.07, abs=0.03), "the popular artists of the generated data"
