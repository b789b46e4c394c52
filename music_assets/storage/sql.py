"""Parts of DuckDB SQL: quoted text, quoted names, types. Whole statements belong where they run."""

import duckdb
from ibis.backends.sql.datatypes import DuckDBType
from ibis.expr.datatypes import DataType


def literal(text: str) -> str:
    """Quote a text value."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Quote the name of a table or column."""
    return '"' + name.replace('"', '""') + '"'


def column_type(kind: DataType) -> str:
    """Return DuckDB's name of an Ibis type."""
    return str(duckdb.sqltype(DuckDBType.to_string(kind)))
