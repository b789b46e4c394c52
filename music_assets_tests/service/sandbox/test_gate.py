"""The gate and its lists: every listed function exists in DuckDB, no dangerous one is listed, others are refused."""

import os
import re

import duckdb
import pytest

from music_assets.service.sandbox import functions
from music_assets.service.sandbox.database import Database
from music_assets.service.sandbox.gate import CATALOG_VIEWS, Gate, GateError
from music_assets_tests.service.conftest import Dataset

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
    assert not Gate(connection, ["t"]).check(sql).volatile


def test_views_of_the_catalog_cannot_be_read_through_cte_names(connection: duckdb.DuckDBPyConnection) -> None:
    gate = Gate(connection, ["t"])
    names = [name for (name,) in connection.execute("SELECT view_name FROM duckdb_views() WHERE internal").fetchall()]
    readable = []
    for name in names:
        try:
            connection.execute(f"FROM {name} LIMIT 0")
        except duckdb.Error:
            continue  # must be named with its schema
        readable.append(name)
        odd = name.replace("k", "\u212a").replace(
            "s", "\u017f"
        )  # Python folds these characters to k and s, DuckDB does not
        for sql in (
            f"FROM {name}",
            f"WITH {name} AS (FROM {name}) FROM {name}",
            f"WITH {name.upper()} AS MATERIALIZED (SELECT 1) FROM {name}",
            f"WITH RECURSIVE {name} AS (FROM {name} UNION ALL FROM {name}) FROM {name}",
            f"WITH a AS (WITH {name} AS (FROM {name}) FROM {name}) FROM a",
            f"EXPLAIN WITH {name} AS (FROM {name}) FROM {name}",
            f'WITH "{odd}" AS (SELECT 1) FROM {name}',
        ):
            with pytest.raises(GateError):
                gate.check(sql)
    assert {"duckdb_views", "sqlite_master", "pg_class", "pragma_database_list"} <= set(readable)


@pytest.mark.parametrize(
    ("sql", "allowed"),
    [
        ("WITH x AS (FROM x) FROM x", False),
        ("WITH x AS (SELECT 1), y AS (FROM x) FROM y", True),
        ("WITH RECURSIVE x AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM x WHERE i < 3) FROM x", True),
        ("WITH tables AS (SELECT 1) FROM tables", True),
        ("SELECT list_aggregate([1], 'sum'), [1].list_aggr('MAX'), aggregate([1], 'min')", True),
        ("SELECT list_aggregate([1], 'stats')", False),
        ("SELECT list_aggregate([1], 'su' || 'm')", False),
        ("SELECT list_aggregate([1], $1)", False),
        ("SELECT [1].array_aggr('any_function')", False),
        ("SELECT NULL::INT[100][1000]", True),
        ("SELECT NULL::INT[100][1001]", False),
        ("SELECT try_cast(NULL AS STRUCT(a INT[100000], b INT[1])[2])", False),
        ("/* explain */ -- this\n EXPLAIN SELECT 1", True),
        ("EXPLAIN /* ANALYZE */ ANALYZE SELECT 1", False),
    ],
)
def test_scopes_names_and_sizes(connection: duckdb.DuckDBPyConnection, sql: str, allowed: bool) -> None:
    try:
        Gate(connection, ["t"]).check(sql)
    except GateError:
        assert not allowed
    else:
        assert allowed


def test_catalog_behind_the_gate_shows_nothing(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if a statement passed the gate, the views of the catalog would be empty, or name published tables."""
    monkeypatch.chdir(dataset.root)
    database = Database(256, 1)
    files = [os.path.relpath(file) for table in dataset.published.tables.values() for file in table.files]
    database.use(os.path.relpath(dataset.published.path), files, list(dataset.published.tables))
    assert database._connection is not None
    for _, name in database._connection.execute(CATALOG_VIEWS).fetchall():
        rows = database._connection.execute(f"FROM {name}").fetchall()
        assert "parquet'" not in str(rows)
        assert str(dataset.root) not in str(rows)
        assert not rows or name in ("duckdb_tables", "duckdb_views")
    assert len(database._connection.execute("SHOW TABLES").fetchall()) >= 5


def test_tables_of_a_statement(connection: duckdb.DuckDBPyConnection) -> None:
    sql = "WITH x AS (FROM T) SELECT * FROM x JOIN main.u USING (a) WHERE a IN (SELECT a FROM music_db.v)"
    assert Gate(connection, ["t", "u", "v", "w"]).check(sql).tables == {"t", "u", "v"}
