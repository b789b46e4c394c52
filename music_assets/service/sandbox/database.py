"""Layer 2: a read-only connection to one snapshot, with locked settings and no access to other files."""

import re
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import duckdb
import pyarrow as pa

from music_assets.service.formats import PLAIN_TYPES, Result, UnsupportedTypeError, columns_of
from music_assets.service.sandbox.gate import CATALOG, CATALOG_VIEWS, Allowed, Gate, GateError, parse_error
from music_assets.storage.sql import identifier, literal

ROWS_PER_BATCH = 10_000
MAX_INTERVAL_HOURS = 2**63 // (3600 * 10**9)
CACHED_CHECKS = 1024
CACHED_SQL_CHARACTERS = 4_000
"""The gate's answer is cached for SQL up to this length."""
SMALL_RESULT_BYTES = 32 * 1024
"""After a result up to this size, the rows of the statement's next one are read as Python objects: for a small result
that is faster than to set up a transfer of Arrow data.
"""
MAX_EXECUTION_TIME = "max_execution_time"
LATE_MATERIALIZATION = "late_materialization_max_rows"
LATE_ROWS = 50
"""Up to this LIMIT, the first rows of views of parquet files are found by the columns of ORDER BY alone; a second pass
reads their other columns. That halves the time on these large views, but adds half to lookups in sorted tables.
"""
INTERRUPT_SECONDS = 0.02
"""Pause between two interrupts of a query."""
RESUME_SECONDS = 1.0
"""Time to wait for a signal that was sent already."""
VIEWS = f"SELECT view_name FROM duckdb_views() WHERE database_name = '{CATALOG}' AND NOT internal"

_REPORTED_ERRORS = (
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.InvalidInputException,
    duckdb.TypeMismatchException,
    duckdb.SyntaxException,
    duckdb.InvalidTypeException,
    duckdb.NotImplementedException,
)
"""Errors whose message is reported to the client."""
_INTERNAL_NAMES = re.compile(
    r"\b(pg_\w+|duckdb_\w+|sqlite_\w+|information_schema|memory\.|system\.|read_parquet)|\.(parquet|duckdb)\b",
    re.IGNORECASE,
)


class RejectedError(Exception):
    """The statement was refused or failed: `kind` is the kind of problem, `position` the position in the SQL."""

    def __init__(self, kind: str, detail: str, position: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.position = position


class BrokenError(Exception):
    """The snapshot can no longer be read. The process must end."""


@dataclass
class _Statement:
    """An allowed statement. `is_small`: its last result was small and of plain types, as the next one will be."""

    sql: str
    parsed: duckdb.Statement
    allowed: Allowed
    is_small: bool = False


class Database:
    """A connection to one snapshot at a time: `use` opens a snapshot, `run` queries it.

    The working directory must be the data root. All paths are relative to it, so that nothing in DuckDB's catalog or
    messages says where it is.
    """

    def __init__(self, memory_limit_mb: int, threads: int) -> None:
        self._memory_limit_mb = memory_limit_mb
        self._threads = threads
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._snapshot: tuple[str, list[str], list[str]] = ("", [], [])
        self._values: dict[str, int] = {}
        self._interrupted = threading.Event()

    @property
    def interrupted(self) -> bool:
        """Whether `interrupt` was called, and `resume` not yet."""
        return self._interrupted.is_set()

    @property
    def tables(self) -> list[str]:
        """The tables of the open snapshot."""
        return self._snapshot[2]

    def interrupt(self) -> None:
        """Stop the running query, and each one until `resume` is called, as if its time were over.

        Call it from another thread. It returns after `resume`: DuckDB ignores an interrupt just before a query starts.
        """
        self._interrupted.set()
        while self._interrupted.is_set():
            with suppress(duckdb.ConnectionException):  # a snapshot is being opened, and the last connection is closed
                if self._connection is not None:
                    self._connection.interrupt()
            time.sleep(INTERRUPT_SECONDS)

    def resume(self) -> None:
        """Wait for the call of `interrupt`, which a signal may still be about to make, and accept queries again."""
        self._interrupted.wait(RESUME_SECONDS)
        self._interrupted.clear()

    def use(self, path: str, files: list[str], tables: list[str]) -> None:
        """Open the snapshot in this file. Besides it, only these parquet files, which its views read, are accessible.

        Raises RejectedError of kind `snapshot-gone` if the file cannot be opened.
        """
        self._snapshot = (path, files, tables)
        connection = duckdb.connect(":memory:", config=self._config())
        try:
            connection.execute(f"ATTACH {literal(path)} AS {CATALOG} (READ_ONLY)")
            connection.execute(f"USE {CATALOG}")
            views = {name for (name,) in connection.execute(VIEWS).fetchall()}
            _hide_catalog(connection)
            for name, value in self._locked_settings(files).items():
                connection.execute(f"SET {name} = {value}")
        except duckdb.Error:
            connection.close()
            raise RejectedError("snapshot-gone", "The snapshot has been deleted.") from None
        if self._connection is not None:
            self._connection.close()
        self._connection, self._views, self._values = connection, views, {}
        gate = Gate(connection, tables)

        @lru_cache(CACHED_CHECKS)
        def check(sql: str) -> _Statement:
            allowed = gate.check(sql)
            return _Statement(sql, connection.extract_statements(sql)[0], allowed)

        self._check = check

    def _reopen(self) -> None:
        """Open the snapshot again after an internal error, which leaves the connection unusable. Raises BrokenError."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        try:
            self.use(*self._snapshot)
        except RejectedError as error:
            raise BrokenError from error

    def _config(self) -> dict[str, Any]:
        return {
            "threads": self._threads,
            "async_threads": 1,
            "memory_limit": f"{self._memory_limit_mb}MB",
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_extension_repositories": "forbidden",
            "allow_persistent_secrets": False,
            "python_enable_replacements": False,
            "max_expression_depth": 250,
            "errors_as_json": True,
        }

    def _locked_settings(self, files: list[str]) -> dict[str, str]:
        return {
            "streaming_buffer_size": "'1MB'",
            "TimeZone": "'UTC'",
            "allowed_paths": "[" + ", ".join(map(literal, files)) + "]",
            "enable_external_access": "false",
            "allowed_configs": f"['{MAX_EXECUTION_TIME}', '{LATE_MATERIALIZATION}']",
            "lock_configuration": "true",
        }

    def run(self, sql: str, params: Any, limit: int, timeout_ms: int, max_bytes: int) -> tuple[Result, bool]:
        """Run one statement; return at most `limit` rows, and whether the statement is volatile.

        Raises RejectedError, and BrokenError if the snapshot can no longer be read after an internal error of DuckDB.
        """
        if self._connection is None:
            raise RejectedError("snapshot-gone", "No snapshot is open.")
        self._set(self._connection, MAX_EXECUTION_TIME, timeout_ms)
        try:
            statement = self._statement(sql)
            allowed = statement.allowed
            self._set(self._connection, LATE_MATERIALIZATION, LATE_ROWS * (not allowed.tables.isdisjoint(self._views)))
            return _execute(self._connection, statement, params, limit, max_bytes), allowed.volatile
        except GateError as error:
            raise RejectedError(error.kind, error.detail, _position(sql, error.location)) from None
        except UnsupportedTypeError as error:
            raise RejectedError("sql", str(error)) from None
        except (duckdb.InternalException, duckdb.FatalException):
            self._reopen()
            raise RejectedError("query-failed", "DuckDB could not run this query.") from None
        except (duckdb.OutOfMemoryException, MemoryError, pa.ArrowMemoryError):
            raise RejectedError("out-of-memory", "The query exceeds the memory limit.") from None
        except duckdb.InterruptException:
            raise RejectedError("timeout", f"The query was stopped after {timeout_ms} ms.") from None
        except _REPORTED_ERRORS as error:
            raise self._rejection(sql, params, error) from None
        except (duckdb.Error, pa.ArrowException, RuntimeError):
            raise RejectedError("sql", "DuckDB could not run this query.") from None

    def _statement(self, sql: str) -> _Statement:
        check = self._check if len(sql) <= CACHED_SQL_CHARACTERS else self._check.__wrapped__
        return check(sql)

    def _set(self, connection: duckdb.DuckDBPyConnection, name: str, value: int) -> None:
        if value != self._values.get(name):
            connection.execute(f"SET {name} = {int(value)}")
            self._values[name] = value

    def _rejection(self, sql: str, params: Any, error: duckdb.Error) -> RejectedError:
        message, location = parse_error(error)
        if isinstance(error, duckdb.BinderException) and location is None:
            location = self._binder_location(sql, params)
        lines = message.splitlines() or [""]
        hints = [line.strip() for line in lines[1:] if line.startswith("Candidate bindings")]
        detail = " ".join([lines[0], *hints])
        if _INTERNAL_NAMES.search(detail):
            detail = "DuckDB could not run this query."
        return RejectedError("sql", detail, _position(sql, location))

    def _binder_location(self, sql: str, params: Any) -> int | None:
        """Return the location of a binder error. DuckDB reports it for statements, but not for relations."""
        prefix = "EXPLAIN "
        try:
            if self._connection is not None:
                self._connection.execute(prefix + sql, params or None)
        except duckdb.Error as error:
            location = parse_error(error)[1]
            return None if location is None else max(location - len(prefix), 0)
        return None


def _hide_catalog(connection: duckdb.DuckDBPyConnection) -> None:
    """Put an empty view in front of each view of the catalog, which would show paths and settings.

    SHOW TABLES reads two of the views.
    """
    for schema, name in connection.execute(CATALOG_VIEWS).fetchall():
        columns, rows = "*", "false"
        if name in ("duckdb_tables", "duckdb_views"):
            columns, rows = "* REPLACE (NULL AS sql)", f"database_name = '{CATALOG}' AND schema_name = 'main'"
        connection.execute(f"CREATE TEMP VIEW {name} AS SELECT {columns} FROM system.{schema}.{name} WHERE {rows}")


def _execute(
    connection: duckdb.DuckDBPyConnection, statement: _Statement, params: Any, limit: int, max_bytes: int
) -> Result:
    was_small, statement.is_small = statement.is_small, False
    result = _read_rows(connection, statement.parsed, params, limit, max_bytes) if was_small else None
    if result is None:
        result = _read_batches(connection, statement.sql, params, limit, max_bytes)
    is_plain = all(column["type"] in PLAIN_TYPES for column in result.columns)
    statement.is_small = is_plain and sum(batch.nbytes for batch in result.batches) <= SMALL_RESULT_BYTES
    return result


def _read_rows(
    connection: duckdb.DuckDBPyConnection, parsed: duckdb.Statement, params: Any, limit: int, max_bytes: int
) -> Result | None:
    """Return the result as `_read_batches` does, in two thirds of the time if it is small.

    None: a column has a type that is not plain, or that a parameter has changed.
    """
    cursor = connection.execute(parsed, params or None)
    try:
        columns = [{"name": name, "type": str(kind)} for name, kind, *_ in cursor.description]
        if any(column["type"] not in PLAIN_TYPES for column in columns):
            return None
        schema = pa.schema([(column["name"], PLAIN_TYPES[column["type"]]) for column in columns])
        read = partial(cursor.fetchmany, min(ROWS_PER_BATCH, limit + 1))
        batches = (
            pa.RecordBatch.from_arrays(list(map(pa.array, zip(*rows, strict=True), schema.types)), schema=schema)
            for rows in iter(read, [])
        )
        return _limited(schema, batches, columns, limit, max_bytes)
    finally:
        cursor.abort()  # the connection refuses other work while a result is unfinished


def _read_batches(connection: duckdb.DuckDBPyConnection, sql: str, params: Any, limit: int, max_bytes: int) -> Result:
    relation = connection.sql(sql, params=params or None)
    if relation is None:
        raise RejectedError("not-allowed", "The statement returns no rows.")
    columns = columns_of(relation)
    reader = _with_exact_intervals(relation).to_arrow_reader(min(ROWS_PER_BATCH, limit + 1))
    try:
        return _limited(reader.schema, reader, columns, limit, max_bytes)
    except OSError as error:
        raise _duckdb_error(error) from None
    finally:
        reader.close()


def _limited(
    schema: pa.Schema, unlimited: Iterable[pa.RecordBatch], columns: list[dict[str, str]], limit: int, max_bytes: int
) -> Result:
    """Return at most `limit` rows. Raises RejectedError if they have more than `max_bytes`."""
    batches, rows, size = [], 0, 0
    for batch in unlimited:
        batches.append(batch.slice(0, limit - rows))
        size += batch.nbytes
        rows += batch.num_rows
        if size > max_bytes:
            raise RejectedError("result-too-large", f"The result exceeds {max_bytes // 2**20} MB.")
        if rows > limit:
            break
    return Result(schema, batches, columns, {"row_count": min(rows, limit), "truncated": rows > limit})


def _with_exact_intervals(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Return the relation, in which an interval that Arrow cannot hold, as it counts nanoseconds, is an error."""
    if not any("INTERVAL" in str(kind) for kind in relation.types):
        return relation
    return relation.project(
        ", ".join(
            f"{_checked_interval(f'#{number}', str(kind))} AS {identifier(name)}"
            for number, (name, kind) in enumerate(zip(relation.columns, relation.types, strict=True), start=1)
        )
    )


def _checked_interval(column: str, kind: str) -> str:
    if "INTERVAL" not in kind:
        return column
    too_long = f"abs(date_part('hour', {column})) >= {MAX_INTERVAL_HOURS}"
    if kind != "INTERVAL":
        too_long = f"regexp_matches(CAST({column} AS VARCHAR), '[0-9]{{7,}}:[0-9]{{2}}:')"
    return f"CASE WHEN {too_long} THEN error('an interval is too long: cast it to VARCHAR') ELSE {column} END"


def _duckdb_error(error: OSError) -> duckdb.Error:
    """Return the DuckDB error that the Arrow reader raised as an OSError of the same text: `Conversion Error: ...`."""
    name = str(error).partition(" Error:")[0].title().replace(" ", "")
    kind: type[duckdb.Error] = getattr(duckdb, f"{name}Exception", duckdb.Error)
    return kind(str(error))


def _position(sql: str, location: int | None) -> dict[str, Any] | None:
    """Return the position of a byte of the SQL: offset in characters, line and column from 1, and the text there."""
    if location is None:
        return None
    before = sql.encode()[:location].decode(errors="ignore")
    line_start = before.rfind("\n") + 1
    return {
        "offset": len(before),
        "line": before.count("\n") + 1,
        "column": len(before) - line_start + 1,
        "near": sql[len(before) : len(before) + 40],
    }
