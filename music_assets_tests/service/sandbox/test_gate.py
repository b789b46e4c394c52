"""The gate and its lists: every listed function exists in DuckDB, no dangerous one is listed, others are refused."""

import re

import duckdb
import pytest

from music_assets.service.sandbox import functions
from music_assets.service.sandbox.gate import Gate, GateError

CALLABLE = functions.SCALAR | functions.AGGREGATE | functions.WINDOW | functions.TABLE | functions.OPERATORS
SYNTAX = {"->", "grouping"}
"""Called like functions, but known only to the parser."""
DANGEROUS = re.compile(
    r"^(__.*|.*_scan|arrow_.*|checkpoint|current_(?!date|localtime).*|.*duckdb.*|.*secret.*|.*setting.*|disable_.*|enable_.*"
    r"|force_.*|get(env|variable)|glob|has_.*_privilege|inet_.*|.*execute.*|json_(de)?serialize.*|nextval|currval|pandas_.*"
    r"|parquet_.*|pg_.*|pragma_.*|python_.*|query.*|read_.*|set(val|seed)|sleep.*|sniff_.*|stats|summary|test_.*|version"
    r"|write_.*|.*user.*|.*external_resource.*)$"
)


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:")


def test_listed_functions_exist(connection: duckdb.DuckDBPyConnection) -> None:
    known = {name.lower() for (name,) in connection.execute("SELECT function_name FROM duckdb_functions()").fetchall()}
    assert known >= CALLABLE - SYNTAX


def test_no_dangerous_function_is_listed() -> None:
    assert [name for name in sorted(CALLABLE) if DANGEROUS.match(name)] == []


def test_unlisted_functions_are_refused(connection: duckdb.DuckDBPyConnection) -> None:
    gate = Gate(connection, ["t"])
    names = connection.execute("SELECT DISTINCT lower(function_name) FROM duckdb_functions()").fetchall()
    unlisted = [name for (name,) in names if re.fullmatch(r"\w+", name) and name not in CALLABLE]
    assert len(unlisted) > 200
    for name in unlisted:
        for sql in (f'SELECT "{name}"(1)', f'SELECT * FROM "{name}"(1)', f'SELECT main."{name}"(1) OVER ()'):
            with pytest.raises(GateError):
                gate.check(sql)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT * FROM x", "unknown-table"),
        ("WITH x AS (FROM y), y AS (SELECT 1) FROM x", "unknown-table"),
        ("SELECT * FROM (WITH x AS (SELECT 1) FROM x), x", "unknown-table"),
        ("SELECT 1; SELECT 2", "not-allowed"),
        ("SELEC 1", "syntax"),
    ],
)
def test_kind_of_error(connection: duckdb.DuckDBPyConnection, sql: str, kind: str) -> None:
    with pytest.raises(GateError) as refused:
        Gate(connection, ["t"]).check(sql)
    assert refused.value.kind == kind


@pytest.mark.parametrize(
    "sql", ["WITH x AS (SELECT 1) FROM x, (FROM x)", "WITH X AS (SELECT 1) FROM x", "FROM T", "FROM MUSIC_DB.MAIN.t"]
)
def test_names_in_scope_are_allowed(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    assert not Gate(connection, ["t"]).check(sql)
