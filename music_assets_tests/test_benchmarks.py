"""A smoke run of the benchmarks: small, and about equal outputs, never about times."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from benchmarks import results
from benchmarks.__main__ import main
from benchmarks.contestants import PUBLISHER, Script
from benchmarks.daemons import OursByDaemon
from benchmarks.data import Drop, full_drop, small_drop
from benchmarks.derived import seconds_per_million_rows
from benchmarks.digest import Agreement, DifferentError, UnsortedError
from benchmarks.processes import Command, FailedError, run
from benchmarks.report import main as report
from benchmarks.results import OURS, Measurement, Session
from benchmarks.targets import TARGETS

USERS = 300
BY_DAEMON = OursByDaemon.name
DUCKDB = Script("DuckDB SQL", "duckdb_sql.py", ["duckdb"])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture(scope="module")
def sessions(work: Path) -> Mapping[str, Session]:
    """The cases whose contestants every development machine has, run once; Spark's turn comes apart."""
    cases = ("csv_to_rankings", "small_drop", "refresh_from_parquet", "queries")
    names = (
        OURS,
        BY_DAEMON,
        "DuckDB SQL",
        "Polars",
        PUBLISHER.name,
        "FastAPI + DuckDB",
        "datasette",
        "DuckDB in process",
    )
    return {one.case: one for one in measured(work, cases, names)}


def measured(work: Path, cases: tuple[str, ...], names: tuple[str, ...]) -> list[Session]:
    file = work / "results.jsonl"
    chosen = [argument for case in cases for argument in ("--case", case)]
    sizes = ["--users", str(USERS), "--rounds", "1", "--seconds", "0.1"]
    main([*chosen, *sizes, "--work", str(work), "--results", str(file), "--only", *names])
    return [session for session in results.read(file) if session.case in cases]


def test_everybody_makes_the_same_tables_from_csv(sessions: Mapping[str, Session], work: Path) -> None:
    session = sessions["csv_to_rankings"]
    assert session.contestants() == [BY_DAEMON, OURS, "DuckDB SQL", "Polars", PUBLISHER.name]
    assert session.facts["rows"]["user_top_artists"] == 50 * USERS
    (published,) = work.rglob("music_db.duckdb")
    with duckdb.connect(str(published), read_only=True) as connection:
        origin = "SELECT DISTINCT source_file, ingested_at IS NOT NULL FROM user_top_artists"
        assert connection.execute(origin).fetchall() == [("user_top_artists.csv", True)]


def test_everybody_makes_the_same_tables_after_a_small_drop(sessions: Mapping[str, Session]) -> None:
    session = sessions["small_drop"]
    assert session.contestants() == [BY_DAEMON, OURS, "DuckDB SQL", "Polars"]
    assert session.facts["rows"]["user_data"] == USERS + 3 + 3, "three new users, three delivered again"
    assert session.facts["rows"]["user_top_artists"] == 50 * (USERS + 3 + 3)
    assert session.facts["rows"]["artist_rank_in_country"] == session.facts["rows"]["country_rank_per_artist"] > 1_000


def test_everybody_makes_the_same_tables_from_parquet(sessions: Mapping[str, Session]) -> None:
    session = sessions["refresh_from_parquet"]
    assert session.contestants() == [OURS, "DuckDB SQL", "Polars"]
    assert session.facts["rows"]["user_top_artists"] == 50 * USERS


@pytest.mark.skipif(not shutil.which("java"), reason="Spark needs Java")
def test_spark_makes_the_same_tables_after_a_small_drop(work: Path) -> None:
    session = measured(work / "spark", ("small_drop",), ("DuckDB SQL", "PySpark"))[0]
    assert session.contestants() == ["DuckDB SQL", "PySpark"]
    assert session.facts["rows"]["user_data"] == USERS + 3 + 3


def test_every_service_answers_every_question_alike(sessions: Mapping[str, Session]) -> None:
    session = sessions["queries"]
    assert {"Drake, 1 client", "any artist, 16 clients", "countries, 1 client"} <= set(session.variants)
    present = {OURS, "FastAPI + DuckDB", "datasette", "DuckDB in process"} - set(session.skipped)
    assert set(session.contestants("Drake, 1 client")) == present
    assert all(one.figures["failures"] == 0 for one in session.measurements if "failures" in one.figures)


def test_embeddings_are_judged_by_what_was_held_out(work: Path) -> None:
    session = measured(work, ("embeddings",), (OURS, "gensim, defaults", "implicit ALS"))[0]
    assert set(session.contestants()) == {"popularity", OURS, "gensim, defaults", "implicit ALS"} - set(session.skipped)
    recall = {name: session.median(name, "recall_at_20") for name in session.contestants()}
    assert all(0 <= value < 1 for value in recall.values() if value is not None)
    assert recall["popularity"] == pytest.approx(0.07, abs=0.03), "the popular artists of the made-up data"


def test_a_small_drop_delivers_known_users_with_what_the_next_one_had(work: Path) -> None:
    def rows(drop: Drop) -> dict[int, str]:
        lines = [line.split(",", 1) for line in drop.users.read_text().splitlines()[1:]]
        return {int(user): rest for user, rest in lines}

    before, after = rows(full_drop(work, USERS)), rows(small_drop(work, USERS))
    known = sorted(before)
    again = [known[0], known[100], known[200]]
    assert sorted(after)[:3] == again
    assert [after[user] for user in again] == [before[known[place]] for place in (1, 101, 201)]
    assert min(sorted(after)[3:]) > known[-1]


def test_a_table_that_differs_in_one_row_is_found(work: Path, tmp_path: Path) -> None:
    run(DUCKDB.take(tmp_path / "first", full_drop(work, USERS)), tmp_path / "log")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    changed = tmp_path / "second" / "artist_rank_in_country.parquet"
    duckdb.sql(
        f"""COPY (SELECT country, artist_name, total_playcount + (row_number() OVER () = 1)::INTEGER AS total_playcount,
        rank FROM '{tmp_path}/first/artist_rank_in_country.parquet') TO '{changed}'"""
    )
    agreement = Agreement()
    agreement.check("first", DUCKDB.digest(tmp_path / "first"))
    with pytest.raises(DifferentError, match="second and first differ"):
        agreement.check("second", DUCKDB.digest(tmp_path / "second"))


def test_a_table_that_is_not_sorted_is_found(work: Path, tmp_path: Path) -> None:
    run(DUCKDB.take(tmp_path / "made", full_drop(work, USERS)), tmp_path / "log")
    file = tmp_path / "made" / "country_rank_per_artist.parquet"
    rows = duckdb.sql(f"FROM '{file}' ORDER BY artist_name DESC").to_arrow_table()
    duckdb.sql("FROM rows").write_parquet(str(file))
    assert rows.num_rows > 1_000
    with pytest.raises(UnsortedError, match="artist_name, rank"):
        DUCKDB.digest(tmp_path / "made")


def test_the_whole_tree_of_processes_is_measured(tmp_path: Path) -> None:
    child = "import time; block = bytearray(150 * 2**20); time.sleep(1)"
    code = f"import subprocess, sys; block = bytearray(50 * 2**20); subprocess.run([sys.executable, '-c', {child!r}])"
    usage = run(Command([sys.executable, "-c", code], {}), tmp_path / "log")
    assert 150 < usage.largest_mb < 200, "the child alone"
    assert 200 < usage.sum_mb < 300, "both"


def test_a_command_that_fails_ends_the_benchmark_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="no such luck"):
        run(Command([sys.executable, "-c", "raise SystemExit('no such luck')"], {}), tmp_path / "log")


def test_results_are_rendered_with_the_targets_beside_them(sessions: Mapping[str, Session], work: Path) -> None:
    report(["--results", str(work / "results.jsonl"), "--out", str(work)])
    text = (work / "RESULTS.md").read_text()
    assert "| refresh after a 1 % drop, against the fastest script | ≤ 0.25 |" in text
    assert "DuckDB SQL" in text
    assert (work / "plots" / f"small_drop-{USERS}.svg").exists()


def test_the_results_are_what_the_report_makes_of_what_is_kept(tmp_path: Path) -> None:
    report(["--out", str(tmp_path)])
    again = "`python -m benchmarks.report` renders it anew"
    assert (tmp_path / "RESULTS.md").read_text() == (results.FOLDER / "RESULTS.md").read_text(), again


def test_of_each_case_and_size_the_newest_session_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    for case, seconds in (("small_drop", 2), ("growth", 1), ("small_drop", 3)):
        results.keep(session(case, Measurement(OURS, 1, {"seconds": seconds})), file)
    assert [(one.case, one.median(OURS, "seconds")) for one in results.read(file)] == [("growth", 1), ("small_drop", 3)]


def session(case: str, *measurements: Measurement) -> Session:
    return Session(case, 500_000, 1, "", "", {}, {}, list(measurements))


def test_a_target_is_held_against_the_fastest_peer() -> None:
    """Medians: ours 3, by the daemon 2, DuckDB 4, Polars 6; memory 50 against DuckDB's 100."""
    seconds = {OURS: (9, 3, 2), BY_DAEMON: (2, 2, 2), "DuckDB SQL": (4, 4, 1), "Polars": (6, 6, 6)}
    memory = {OURS: 50, BY_DAEMON: 40, "DuckDB SQL": 100, "Polars": 10}
    found = session(
        "csv_to_rankings",
        *(
            Measurement(name, number, {"seconds": value, "sum_mb": memory[name]})
            for name, values in seconds.items()
            for number, value in enumerate(values)
        ),
    )
    time, by_daemon, mem, *all_outputs = (target for target in TARGETS if target.case == "csv_to_rankings")
    assert time.reached(found) == 0.75
    assert by_daemon.reached(found) == 0.5
    assert [target.reached(found) for target in all_outputs] == [None, None], "nobody made them"
    assert mem.reached(found) == 0.5
    assert time.met(0.9)
    assert not time.met(0.91)


def test_the_start_of_processes_is_no_cost_of_a_row() -> None:
    """10 s to start; 15 s for 2.5 million rows, 110 s for 50 million."""
    seconds = {1_000: 10, 50_000: 15, 1_000_000: 110}
    found = session(
        "growth", *(Measurement(OURS, 1, {"seconds": s}, f"ingest, {users} users") for users, s in seconds.items())
    )
    assert seconds_per_million_rows(found, "ingest") == {50_000: 2.0, 1_000_000: 2.0}


def test_memory_is_held_against_its_limit_and_what_next_to_no_rows_take() -> None:
    """1,500 MB where 1,000 and 250 are expected; how much time anything takes is of no account."""
    memory = {1_000: 250, 50_000: 700, 500_000: 1_500}
    found = session(
        "growth", *(Measurement(OURS, 1, {"sum_mb": mb}, f"refresh, {users} users") for users, mb in memory.items())
    )
    (target,) = (target for target in TARGETS if "memory" in target.text and target.case == "growth")
    assert target.reached(found) is None, "measured before the limit was kept with the figures"
    found.facts["memory_limit_mb"] = 1_000
    assert target.reached(found) == 1.2
    assert not target.met(1.2)


def test_the_empty_project_takes_a_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY_DROPS", str(tmp_path))
    monkeypatch.setenv("SENSOR_INTERVAL", "5")
    from benchmarks.peers.empty_project import defs, look

    assert isinstance(look(dg.build_sensor_context()), dg.SkipReason)
    (tmp_path / "drop.csv").touch()
    assert isinstance(look(dg.build_sensor_context()), dg.RunRequest)
    assert defs.resolve_job_def("empty_job").execute_in_process().success
    assert not any(tmp_path.iterdir())
