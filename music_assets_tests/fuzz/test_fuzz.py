"""The properties of `make fuzz` on generated inputs, and on inputs that once broke them or might."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_assets.engines.duckdb import DuckDBEngine
from music_assets.tables import USER_DATA
from music_assets_tests.fuzz import csv_properties
from music_assets_tests.fuzz.gate_properties import GateChecker
from music_assets_tests.fuzz.sql_words import SQL_WORDS
from music_assets_tests.support.ingest_harness import IngestHarness
from music_assets_tests.support.properties import examples

FILES = st.tuples(
    st.sampled_from(csv_properties.HEADERS), st.lists(st.sampled_from(csv_properties.PIECES), max_size=60)
).map(lambda parts: parts[0] + b"".join(parts[1]))
SQL = st.lists(st.sampled_from(SQL_WORDS), min_size=1, max_size=20).map(" ".join)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "fuzzed.csv"


@pytest.fixture(scope="module")
def checker() -> GateChecker:
    return GateChecker()


@examples(1000)
@given(content=st.one_of(FILES, FILES, st.binary(max_size=300)))
def test_exact_reader_on_any_bytes(path: Path, content: bytes) -> None:
    csv_properties.check(path, content)


@examples(10)
@given(files=st.lists(FILES, min_size=8, max_size=8, unique=True))
def test_ingest_loads_the_rows_of_the_exact_reader(
    tmp_path_factory: pytest.TempPathFactory, duckdb_engine: DuckDBEngine, path: Path, files: list[bytes]
) -> None:
    """Ingest loads as many rows as the exact reader finds, whichever reader it uses."""
    harness = IngestHarness(tmp_path_factory.mktemp("data"), duckdb_engine)
    for number, content in enumerate(files):
        harness.drop(USER_DATA, f"{number}.csv", content)
    report = harness.load(USER_DATA)
    assert not harness.waiting()
    for file in report.files:
        content = files[int(file.name[0])]
        expected = csv_properties.check(path, content) if file.outcome == "loaded" else 0
        assert file.rows + file.rejects == expected, content


@examples(1000)
@given(sql=st.one_of(SQL, SQL.map("SELECT {}".format), st.text(max_size=100)))
def test_gate_on_any_text(checker: GateChecker, sql: str) -> None:
    checker.check(sql)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        csv_properties.HEADER + b'1,"a\n',
        csv_properties.HEADER + b'1, "a" ,2\r3,"b"x,4\r\n"5","c""\n",6',
        b'"user_id\n",country,total_scrobbles\n1,a,2\n',
        csv_properties.HEADER + b'1,\xff"\n2,a,3"\n',
    ],
)
def test_exact_reader_on_hard_cases(path: Path, content: bytes) -> None:
    """Inputs that `make fuzz` finds belong here. It has found none so far; these are hard by design."""
    csv_properties.check(path, content)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        ";",
        "SELECT 1 -- \0",
        "SELECT (" * 300,
        "EXPLAIN EXPLAIN SELECT 1",
        "WITH users AS (SELECT 1) FROM main.users",
        "SELECT * FROM users AT (VERSION => 1)",
        "FROM (SHOW users)",
    ],
)
def test_gate_on_hard_cases(checker: GateChecker, sql: str) -> None:
    checker.check(sql)
