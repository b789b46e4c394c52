"""Layer 2: a read-only connection to one snapshot, with everything else locked, and what a statement gives there."""

import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from music_assets.service.formats import UnsupportedTypeError, columns_of
from music_assets.service.sandbox.gate import CATALOG, Gate, GateError, Verdict, explained
from music_assets.storage.sql import literal

ROWS_PER_BATCH = 10_000
REMEMBERED_VERDICTS = 1024
REMEMBERED_LENGTH = 4_000
"""Verdicts on SQL up to this many characters are kept: the same question comes again and again."""
REMEMBERED_RESULTS = 512
REMEMBERED_BYTES = 32 * 1024
"""Results up to this size are kept too while the snapshot is in use, but for those that hang on time or chance."""

_TOLD_AS_THEY_ARE = (
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
_INSIDE = re.compile(
    r"\b(pg_\w+|duckdb_\w+|sqlite_\w+|information_schema|memory\.|system\.|read_parquet)", re.IGNORECASE
)


class RejectedError(Exception):
    """The statement was refused or failed: `code` is the kind of problem, `position` where in the SQL."""

    def __init__(self, code: str, detail: str, position: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.position = position


class BrokenError(Exception):
    """The engine is beyond use; the process must end."""


@dataclass(frozen=True)
class Result:
    """Rows of a statement: their columns as DuckDB names the types, their batches, and whether more were cut off."""

    columns: list[dict[str, str]]
    schema: pa.Schema
    batches: list[pa.RecordBatch]
    rows: int
    truncated: bool
    volatile: bool


class Database:
    """The snapshot in use. `use` goes over to another; `run` asks it."""

    def __init__(self, root: str, memory_limit_mb: int, threads: int) -> None:
        self._root = root
        self._memory_limit_mb = memory_limit_mb
        self._threads = threads
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._timeout_ms = 0

    def use(self, path: str, files: list[str], tables: list[str]) -> None:
        """Go over to the snapshot in this file; its views may read these parquet files, and nothing else is readable.

        Raises RejectedError with code `snapshot-gone` where the file cannot be opened.
        """
        connection = duckdb.connect(":memory:", config=self._config())
        try:
            connection.execute(f"ATTACH {literal(path)} AS {CATALOG} (READ_ONLY)")
            connection.execute(f"USE {CATALOG}")
            for name, value in self._locks(files).items():
                connection.execute(f"SET {name} = {value}")
        except duckdb.Error:
            connection.close()
            raise RejectedError("snapshot-gone", "The snapshot is no longer there.") from None
        if self._connection is not None:
            self._connection.close()
        self._connection, self._timeout_ms = connection, 0
        self._results: OrderedDict[bytes, Result] = OrderedDict()
        self._judge = lru_cache(REMEMBERED_VERDICTS)(Gate(connection, tables).judge)

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

    def _locks(self, files: list[str]) -> dict[str, str]:
        return {
            # Fetching the ten best rows' other columns in a second pass costs more than it saves on sorted tables.
            "late_materialization_max_rows": "0",
            "streaming_buffer_size": "'1MB'",
            "TimeZone": "'UTC'",
            "allowed_paths": "[" + ", ".join(map(literal, files)) + "]",
            "enable_external_access": "false",
            "allowed_configs": "['max_execution_time']",
            "lock_configuration": "true",
        }

    def run(self, sql: str, params: Any, limit: int, timeout_ms: int, most_bytes: int) -> Result:
        """Run one statement and return at most `limit` of its rows.

        Raises RejectedError, and BrokenError where the engine cannot go on.
        """
        if self._connection is None:
            raise RejectedError("snapshot-gone", "No snapshot is open.")
        connection = self._connection
        self._bound_time(timeout_ms)
        try:
            key = orjson.dumps([sql, params, limit])
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
            result = self._rows(connection, self._verdict(sql), params, limit, most_bytes)
            self._remember(key, result)
            return result
        except GateError as error:
            raise RejectedError(error.code, error.detail, _position(sql, error.location)) from None
        except UnsupportedTypeError as error:
            raise RejectedError("sql", str(error)) from None
        except (duckdb.InternalException, duckdb.FatalException) as error:
            raise BrokenError from error
        except (duckdb.OutOfMemoryException, MemoryError, pa.ArrowMemoryError):
            raise RejectedError("out-of-memory", "The query needs more memory than a query may use here.") from None
        except duckdb.InterruptException:
            raise RejectedError("timeout", f"The query was stopped after {timeout_ms} ms.") from None
        except _TOLD_AS_THEY_ARE as error:
            raise self._told(sql, params, error) from None
        except (duckdb.Error, pa.ArrowException, RuntimeError):
            raise RejectedError("sql", "The engine could not run this query.") from None

    def _verdict(self, sql: str) -> Verdict:
        judge = self._judge if len(sql) <= REMEMBERED_LENGTH else self._judge.__wrapped__
        return judge(sql)

    def _remember(self, key: bytes, result: Result) -> None:
        small = len(key) + sum(batch.nbytes for batch in result.batches) <= REMEMBERED_BYTES
        if small and not result.volatile:
            self._results[key] = result
            if len(self._results) > REMEMBERED_RESULTS:
                self._results.popitem(last=False)

    def _bound_time(self, timeout_ms: int) -> None:
        if timeout_ms != self._timeout_ms and self._connection is not None:
            self._connection.execute(f"SET max_execution_time = {int(timeout_ms)}")
            self._timeout_ms = timeout_ms

    def _rows(
        self, connection: duckdb.DuckDBPyConnection, verdict: Verdict, params: Any, limit: int, most_bytes: int
    ) -> Result:
        relation = connection.sql(verdict.sql, params=params or None)
        if relation is None:
            raise RejectedError("not-allowed", "The statement gives no rows.")
        columns = columns_of(relation)
        reader = relation.to_arrow_reader(min(ROWS_PER_BATCH, limit + 1))
        batches, rows, size = [], 0, 0
        try:
            for batch in reader:
                batches.append(batch.slice(0, limit - rows))
                size += batch.nbytes
                rows += batch.num_rows
                if size > most_bytes:
                    raise RejectedError("result-too-large", "The answer is too large: ask for fewer rows or columns.")
                if rows > limit:
                    break
        finally:
            reader.close()
        return Result(columns, reader.schema, batches, min(rows, limit), rows > limit, verdict.volatile)

    def _told(self, sql: str, params: Any, error: duckdb.Error) -> RejectedError:
        message, location = explained(error)
        if isinstance(error, duckdb.BinderException) and location is None:
            location = self._binder_location(sql, params)
        lines = message.splitlines() or [""]
        kept = " ".join([lines[0], *(line.strip() for line in lines[1:] if line.startswith("Candidate bindings"))])
        if _INSIDE.search(kept) or self._root in kept:
            kept = "The engine could not run this query."
        return RejectedError("sql", kept, _position(sql, location))

    def _binder_location(self, sql: str, params: Any) -> int | None:
        """Ask again for the place of a binder's error: it is told for statements only, not for relations."""
        prefix = "EXPLAIN "
        try:
            if self._connection is not None:
                self._connection.execute(prefix + sql, params or None)
        except duckdb.Error as error:
            location = explained(error)[1]
            return None if location is None else max(location - len(prefix), 0)
        return None


def _position(sql: str, location: int | None) -> dict[str, Any] | None:
    """Return where in the SQL a byte stands: offset in characters, line and column from 1, and the text there."""
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
