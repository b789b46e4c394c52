"""The benchmarks' own code: data, measuring, comparison, results and report. `end_to_end/` runs the cases."""

import shutil
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from benchmarks import report, results
from benchmarks.__main__ import main
from benchmarks.cases import CASES
from benchmarks.cases.growth import growth_ratio, seconds_per_million_rows
from benchmarks.cases.rankings import BY_DAEMON
from benchmarks.contestants import DUCKDB, UnsortedError
from benchmarks.context import Context, DifferentResultsError, Entrant
from benchmarks.data import Drop, full_drop, small_drop
from benchmarks.measure import CommandFailedError, python, run
from benchmarks.results import OURS, Measurement, Session

USERS = 300


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture(scope="module")
def loaded(work: Path) -> Path:
    """A folder in which DuckDB SQL has loaded all users."""
    folder = work / "loaded"
    folder.mkdir()
    run(DUCKDB.load(folder, full_drop(work, USERS)), folder)
    return folder


@pytest.fixture
def context(work: Path) -> Context:
    return Context(USERS, 1, work)


def session(case: str, *measurements: Measurement) -> Session:
    return Session(case, 500_000, 1, "", "", {}, {}, list(measurements))


def ratios(found: Session) -> list[float | None]:
    """Return the ratios of the targets of a case, in the order of report.toml."""
    return [report.reached(one, found) for one in report.CONTENT["target"] if one["case"] == found.case]


def test_case_is_run_compared_recorded_and_rendered(work: Path) -> None:
    file = work / "results.jsonl"
    size = ["--users", str(USERS), "--rounds", "1", "--work", str(work), "--results", str(file)]
    main(["--case", "csv_to_rankings", *size, "--only", "DuckDB SQL", "Polars"])
    (found,) = results.read(file)
    assert found.contestants() == ["DuckDB SQL", "Polars"]
    assert found.facts["rows"]["user_top_artists"] == 50 * USERS
    report.main(file, work)
    text = (work / "RESULTS.md").read_text()
    assert "| CSV to published rankings, by the daemon: time, compared with the fastest script | ≤ 1.3 |" in text
    assert "\n| Polars | " in text
    assert found.command in text


def test_recorded_results_are_rendered(tmp_path: Path) -> None:
    report.main(folder=tmp_path)
    again = "Run `python -m benchmarks.report` again."
    assert (tmp_path / "RESULTS.md").read_text() == (results.FOLDER / "RESULTS.md").read_text(), again


def test_each_case_has_a_title() -> None:
    assert all((results.FOLDER / "notes" / f"{case}.md").read_text().startswith("## ") for case in CASES)


def test_newest_session_of_each_case_and_size_is_recorded(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    for case, seconds in (("small_drop", 2), ("growth", 1), ("small_drop", 3)):
        results.record(session(case, Measurement(OURS, 1, {"seconds": seconds})), file)
    assert [(one.case, one.median(OURS, "seconds")) for one in results.read(file)] == [("growth", 1), ("small_drop", 3)]


def test_small_drop_delivers_known_users_with_the_data_of_the_next_user(work: Path) -> None:
    def rows(drop: Drop) -> dict[int, str]:
        lines = [line.split(",", 1) for line in drop.users.read_text().splitlines()[1:]]
        return {int(user): rest for user, rest in lines}

    before, after = rows(full_drop(work, USERS)), rows(small_drop(work, USERS))
    known = sorted(before)
    again = [known[0], known[100], known[200]]
    assert sorted(after)[:3] == again
    assert [after[user] for user in again] == [before[known[place]] for place in (1, 101, 201)]
    assert min(sorted(after)[3:]) > known[-1]


def test_changed_row_is_detected(loaded: Path, context: Context, tmp_path: Path) -> None:
    shutil.copytree(loaded, tmp_path, dirs_exist_ok=True)
    changed = tmp_path / "artist_rank_in_country.parquet"
    duckdb.sql(
        f"""COPY (SELECT country, artist_name, total_playcount + (row_number() OVER () = 1)::INTEGER AS total_playcount,
        rank, listeners FROM '{loaded}/artist_rank_in_country.parquet') TO '{changed}'"""
    )
    context.compare("first", DUCKDB.digest(loaded))
    context.compare("equal", DUCKDB.digest(loaded))
    with pytest.raises(DifferentResultsError, match="second and first differ in the tables"):
        context.compare("second", DUCKDB.digest(tmp_path))


def test_unsorted_ranking_is_detected(loaded: Path, tmp_path: Path) -> None:
    shutil.copytree(loaded, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "country_rank_per_artist.parquet"
    rows = duckdb.sql(f"FROM '{file}' ORDER BY artist_name DESC").to_arrow_table()
    duckdb.sql("FROM rows").write_parquet(str(file))
    assert rows.num_rows > 1_000
    with pytest.raises(UnsortedError, match="artist_name, rank"):
        DUCKDB.digest(tmp_path)


def test_whole_process_tree_is_measured(tmp_path: Path) -> None:
    child = "import time; block = bytearray(150 * 2**20); sum(range(10**7)); time.sleep(0.5)"
    code = f"import subprocess, sys; block = bytearray(50 * 2**20); subprocess.run([sys.executable, '-c', {child!r}])"
    usage = run(python("-c", code), tmp_path / "tree")
    assert 150 < usage.largest_mb < 200, "the child alone"
    assert 200 < usage.sum_mb < 300, "both"
    assert usage.cpu_seconds > 0.05
    assert usage.seconds > 0.5


def test_environment_is_added_to_the_command(tmp_path: Path) -> None:
    run(python("-c", "import os; print(os.environ['GREETING'])", environment=["GREETING=hello"]), tmp_path / "hello")
    assert (tmp_path / "hello.log").read_text() == "hello\n"


def test_failed_command_is_reported_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(CommandFailedError, match="no such luck"):
        run(python("-c", "raise SystemExit('no such luck')"), tmp_path / "failed")


def test_missing_contestants_are_skipped_with_the_reason(context: Context) -> None:
    names = [one.name for _, one in context.turns([Entrant("here", ["sys"]), Entrant("not here", ["no_such_module"])])]
    assert names == ["here"]
    assert context.skipped == {"not here": "no_such_module is not installed"}


def test_targets_are_compared_with_the_fastest_peer() -> None:
    """Medians of seconds: ours 3, by the daemon 2, DuckDB 4, Polars 6; memory in MB: ours 50."""
    seconds = {OURS: (9, 3, 2), BY_DAEMON.name: (2, 2, 2), "DuckDB SQL": (4, 4, 1), "Polars": (6, 6, 6)}
    memory = {OURS: 50, BY_DAEMON.name: 40, "DuckDB SQL": 100, "Polars": 10}
    found = session(
        "csv_to_rankings",
        *(
            Measurement(name, number, {"seconds": value, "largest_mb": memory[name]})
            for name, values in seconds.items()
            for number, value in enumerate(values)
        ),
    )
    assert ratios(found) == [None, 0.5, 50], "nobody wrote all outputs; time, by the daemon; peak memory"


def test_start_of_the_processes_is_no_cost_of_a_row() -> None:
    """10 s to start; 15 s for 2.5 million rows, 110 s for 50 million."""
    seconds = {1_000: 10, 50_000: 15, 1_000_000: 110}
    found = session(
        "growth", *(Measurement(OURS, 1, {"seconds": s}, f"ingest, {users} users") for users, s in seconds.items())
    )
    assert seconds_per_million_rows(found, "ingest") == {50_000: 2.0, 1_000_000: 2.0}
    assert growth_ratio(found, "ingest") == 1


def test_memory_is_compared_with_its_limit_and_the_smallest_run() -> None:
    """1,500 MB, where the limit is 1,000 MB and the smallest run has 250 MB."""
    memory = {1_000: 250, 50_000: 700, 500_000: 1_500}
    found = session(
        "growth", *(Measurement(OURS, 1, {"sum_mb": mb}, f"refresh, {users} users") for users, mb in memory.items())
    )
    assert growth_ratio(found, "memory") is None, "measured before the limit was recorded"
    found.facts["memory_limit_mb"] = 1_000
    assert growth_ratio(found, "memory") == 1.2


def test_empty_project_removes_a_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY_DROPS", str(tmp_path))
    monkeypatch.setenv("SENSOR_INTERVAL", "5")
    from benchmarks.peers.empty_project import defs, file_sensor

    assert isinstance(file_sensor(dg.build_sensor_context()), dg.SkipReason)
    (tmp_path / "drop.csv").touch()
    assert isinstance(file_sensor(dg.build_sensor_context()), dg.RunRequest)
    assert defs.resolve_job_def("empty_job").execute_in_process().success
    assert not any(tmp_path.iterdir())
