"""The Trino protocol for BI tools: statements in Trino's dialect become DuckDB's, and results Trino's JSON.

A worker translates, since that takes time and memory that the caller chooses. The gate then checks the result, so the
translation decides nothing about access. The catalogue that BI tools ask for, `information_schema` and a part of
`system`, is made of the declared tables, since the gate hides DuckDB's own.
"""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import orjson
import pyarrow as pa
import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError
from sqlglot.tokens import TokenType

from music_assets.service.formats import Result, texts, values
from music_assets.service.sandbox.database import RejectedError
from music_assets.storage.sql import column_type, literal
from music_assets.tables import PUBLISHED_TABLES

CATALOG, SCHEMA = "music_db", "main"
TRINO_VERSION = "476"
"""The version whose protocol this is; clients ask for it."""
MAX_NESTED_CONSTRUCTORS = 5
MAX_VARCHAR = 2**31 - 1
"""Length by which clients know the type of unbounded text."""
STATS = {
    "state": "FINISHED", "queued": False, "scheduled": True, "nodes": 1, "totalSplits": 1, "queuedSplits": 0,
    "runningSplits": 0, "completedSplits": 1, "cpuTimeMillis": 0, "wallTimeMillis": 0, "queuedTimeMillis": 0,
    "elapsedTimeMillis": 0, "processedRows": 0, "processedBytes": 0, "peakMemoryBytes": 0, "spilledBytes": 0,
}  # fmt: skip
_IMMEDIATE = re.compile(r"EXECUTE\s+IMMEDIATE\s+'((?:[^']|'')*)'(?:\s+USING\s+(.*))?", re.IGNORECASE | re.DOTALL)
_SHOWS = (
    (r"SHOW\s+CATALOGS", 'SELECT table_cat AS "Catalog" FROM system.jdbc.catalogs'),
    (r"SHOW\s+SCHEMAS(?:\s+(?:FROM|IN)\s+\S+)?", 'SELECT schema_name AS "Schema" FROM information_schema.schemata'),
    (
        r"SHOW\s+TABLES(?:\s+(?:FROM|IN)\s+\S+)?",
        'SELECT table_name AS "Table" FROM information_schema.tables ORDER BY table_name',
    ),
    (
        r"(?:SHOW\s+COLUMNS\s+(?:FROM|IN)|DESCRIBE|DESC)\s+(?:\w+\.|\"\w+\"\.)*\"?(\w+)\"?",
        'SELECT column_name AS "Column", data_type AS "Type", \'\' AS "Extra", comment AS "Comment" '
        "FROM information_schema.columns WHERE table_name = '{0}' ORDER BY ordinal_position",
    ),
)
"""Statements about the catalogue, and the queries that answer them."""

logging.getLogger("sqlglot").setLevel(logging.CRITICAL)  # it logs statements that it cannot parse


def to_duckdb(sql: str, tables: Sequence[str]) -> str:
    """Return a statement in Trino's dialect as one in DuckDB's, on a snapshot with these tables.

    Raises RejectedError if it cannot be translated.
    """
    try:
        return _translate(_without_arguments(sql.strip().rstrip(";").rstrip()), tuple(tables))
    except SqlglotError as error:
        raise RejectedError("syntax", str(error).partition("\n")[0].strip()) from None
    except RecursionError:
        raise RejectedError("syntax", "The statement is nested too deeply.") from None


def _translate(sql: str, tables: tuple[str, ...]) -> str:
    for pattern, query in _SHOWS:
        match = re.fullmatch(pattern, sql, re.IGNORECASE)
        if match and set(match.groups()) <= set(tables):
            sql = query.format(*match.groups())
    _check_nesting(sql)
    tree: exp.Expr = sqlglot.parse_one(sql, read="trino")
    for version in list(tree.find_all(exp.CurrentVersion)):
        version.replace(exp.Literal.string(TRINO_VERSION))
    for table in list(tree.find_all(exp.Table)):
        _locate(table, tables)
    return tree.sql("duckdb", unsupported_level=ErrorLevel.RAISE)


def _check_nesting(sql: str) -> None:
    """Raise RejectedError if ARRAY or ROW is nested deeply, since the time to parse it doubles with each level."""
    open_brackets: list[bool] = []
    depth, constructor = 0, False
    for token in sqlglot.tokenize(sql, read="trino"):
        if token.token_type in (TokenType.L_PAREN, TokenType.L_BRACKET):
            open_brackets.append(constructor)
            depth += constructor
        elif token.token_type in (TokenType.R_PAREN, TokenType.R_BRACKET) and open_brackets:
            depth -= open_brackets.pop()
        if depth > MAX_NESTED_CONSTRUCTORS:
            raise RejectedError("syntax", "ARRAY or ROW is nested too deeply.")
        constructor = token.text.upper() in ("ARRAY", "ROW")


def _locate(table: exp.Table, tables: tuple[str, ...]) -> None:
    """Name a table of the snapshot as the gate expects it, or replace a table of the catalogue by its rows."""
    schema = table.db.lower()
    if schema == SCHEMA and table.catalog.lower() in ("", CATALOG):
        table.set("db", None)
        table.set("catalog", None)
        return
    rows = _catalogue(tables).get(f"{schema}.{table.name.lower()}")
    if rows is not None:
        table.replace(exp.alias_(sqlglot.parse_one(f"({rows})", read="duckdb"), table.alias or table.name, table=True))


def _without_arguments(sql: str) -> str:
    """Return the statement of EXECUTE IMMEDIATE with its arguments in place of the question marks."""
    match = _IMMEDIATE.fullmatch(sql)
    if match is None:
        return sql
    statement = match[1].replace("''", "'")
    listed = sqlglot.parse_one(f"SELECT {match[2]}", read="trino").expressions if match[2] else []
    marks = [token for token in sqlglot.tokenize(statement, read="trino") if token.token_type is TokenType.PLACEHOLDER]
    if len(marks) != len(listed):
        raise RejectedError("sql", f"The statement has {len(marks)} parameters, but {len(listed)} values are given.")
    for mark, value in zip(reversed(marks), reversed(listed), strict=True):
        statement = f"{statement[: mark.start]}({value.sql('trino')}){statement[mark.end + 1 :]}"
    return statement


@lru_cache(1)
def _catalogue(tables: tuple[str, ...]) -> dict[str, str]:
    """Return a query in DuckDB's dialect for each table of the catalogue."""
    shown = [table for table in PUBLISHED_TABLES if table.full_name in tables]
    columns = [
        (CATALOG, SCHEMA, table.full_name, column.name, number, None, "YES" if column.nullable else "NO",
         _declared_type(column_type(kind)), column.description)
        for table in shown
        for number, (column, kind) in enumerate(zip(table.columns, table.schema.types, strict=True), start=1)
    ]  # fmt: skip
    return {
        "information_schema.schemata": _rows("catalog_name, schema_name", [(CATALOG, SCHEMA)]),
        "information_schema.tables": _rows(
            "table_catalog, table_schema, table_name, table_type",
            [(CATALOG, SCHEMA, table.full_name, "BASE TABLE") for table in shown],
        ),
        "information_schema.columns": _rows(
            "table_catalog, table_schema, table_name, column_name, ordinal_position, column_default, is_nullable, "
            "data_type, comment",
            columns,
        ),
        "information_schema.views": _rows("table_catalog, table_schema, table_name, view_definition", []),
        "jdbc.catalogs": _rows("table_cat", [(CATALOG,)]),
        "metadata.table_comments": _rows(
            "catalog_name, schema_name, table_name, comment",
            [(CATALOG, SCHEMA, table.full_name, table.description) for table in shown],
        ),
    }


def _declared_type(kind: str) -> str:
    return {"TIMESTAMP": "timestamp(6)"}.get(kind, kind.lower())


def _rows(names: str, rows: Sequence[tuple[str | int | None, ...]]) -> str:
    """Return a query for constant rows."""
    if not rows:
        return f"SELECT {', '.join(f'NULL::VARCHAR AS {name}' for name in names.split(', '))} WHERE false"
    listed = ", ".join(f"({', '.join(map(_constant, row))})" for row in rows)
    return f"SELECT * FROM (VALUES {listed}) AS listed({names})"


def _constant(value: str | int | None) -> str:
    if value is None:
        return "NULL::VARCHAR"
    return str(value) if isinstance(value, int) else literal(value)


def encode(result: Result) -> Iterator[bytes]:
    """Yield the response of the protocol that has all rows of a result."""
    types = [_type(field.type) for field in result.schema]
    columns = [
        {"name": name, "type": text, "typeSignature": signature}
        for name, (text, signature, _) in zip(result.schema.names, types, strict=True)
    ]
    yield b'{"id":%s,"infoUri":"","columns":%s,"data":[' % (
        orjson.dumps(result.metadata["query_id"]),
        orjson.dumps(columns),
    )
    separator = b""
    for batch in result.batches:
        decoded = [convert(column) for column, (_, _, convert) in zip(batch.columns, types, strict=True)]
        if batch.num_rows:
            yield separator + orjson.dumps(list(zip(*decoded, strict=True)))[1:-1]
            separator = b","
    yield b'],"stats":%s,"warnings":[]}' % orjson.dumps(STATS)


Convert = Callable[[pa.Array], list[Any]]
_NUMBERS = {
    pa.bool_(): "boolean", pa.int8(): "tinyint", pa.int16(): "smallint", pa.int32(): "integer", pa.int64(): "bigint",
    pa.uint8(): "smallint", pa.uint16(): "integer", pa.uint32(): "bigint",
}  # fmt: skip
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def _type(kind: pa.DataType) -> tuple[str, dict[str, Any], Convert]:
    """Return the name of an Arrow type in Trino, its signature, and the function for its values in JSON."""
    if kind in _NUMBERS:
        return _simple(_NUMBERS[kind], pa.Array.to_pylist)
    if pa.types.is_floating(kind):
        return _simple("double" if kind == pa.float64() else "real", values)
    if pa.types.is_decimal(kind):
        return _simple("decimal", _decimals, kind.precision, kind.scale)
    if pa.types.is_date(kind):
        return _simple("date", values)
    if pa.types.is_time(kind):
        return _simple("time", values, _DIGITS[kind.unit])
    if pa.types.is_timestamp(kind):
        zone = " with time zone" if kind.tz else ""
        return _simple("timestamp", _timestamps, _DIGITS[kind.unit], suffix=zone)
    if pa.types.is_list(kind):
        name, signature, convert = _type(kind.value_type)
        signature = {"rawType": "array", "arguments": [{"kind": "TYPE", "value": signature}]}
        return f"array({name})", signature, lambda column: _lists(column, convert)
    if pa.types.is_binary(kind):
        return _simple("varbinary", values)
    # Text, and what Trino has in another form: structs and maps as JSON, intervals as ISO 8601.
    return "varchar", {"rawType": "varchar", "arguments": [{"kind": "LONG", "value": MAX_VARCHAR}]}, texts


def _simple(name: str, convert: Convert, *arguments: int, suffix: str = "") -> tuple[str, dict[str, Any], Convert]:
    text = f"{name}({','.join(map(str, arguments))})" if arguments else name
    listed = [{"kind": "LONG", "value": argument} for argument in arguments]
    return text + suffix, {"rawType": name + suffix, "arguments": listed}, convert


def _timestamps(column: pa.Array) -> list[str | None]:
    return [text and text.replace("T", " ").replace("Z", " UTC") for text in values(column)]


def _decimals(column: pa.Array) -> list[str | None]:
    return [None if number is None else f"{number:f}" for number in column.to_pylist()]


def _lists(column: pa.Array, convert: Convert) -> list[list[Any] | None]:
    return [None if item is None else convert(item.values) for item in map(_present, column)]


def _present(item: pa.Scalar) -> pa.Scalar | None:
    return item if item.is_valid else None
