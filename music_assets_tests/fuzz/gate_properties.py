"""Properties of the query gate for any text: a clean refusal, or one SELECT that reads nothing outside the database."""

import duckdb

from music_assets.service.sandbox.gate import Gate, GateError

TABLES = ("artist_rank", "users")
KINDS = {"syntax", "not-allowed", "unknown-table"}
TIMEOUT_MILLISECONDS = 300


class GateChecker:
    """A gate in front of a connection without access to files, which raises when a query tries to read one."""

    def __init__(self) -> None:
        self.connection = duckdb.connect(
            ":memory:",
            config={
                "threads": 1,
                "memory_limit": "100MB",
                "temp_directory": "",
                "autoload_known_extensions": False,
                "autoinstall_known_extensions": False,
                "errors_as_json": True,
                "max_expression_depth": 250,
                "python_enable_replacements": False,
            },
        )
        self.connection.execute("CREATE TABLE artist_rank AS SELECT 'Chad' AS country, 'Can' AS artist, 1 AS rank")
        self.connection.execute("CREATE TABLE users AS SELECT 1 AS user_id, 'Chad' AS country, [1, 2] AS list")
        self.connection.execute("SET enable_external_access = false")
        self.connection.execute(f"SET max_execution_time = {TIMEOUT_MILLISECONDS}")
        self.connection.execute("SET lock_configuration = true")
        self.gate = Gate(self.connection, TABLES)

    def check(self, sql: str) -> bool:
        """Check the verdict on a text, and what running it does if it is allowed. Returns whether it is allowed."""
        try:
            self.gate.check(sql)
        except GateError as refused:
            assert refused.kind in KINDS
            assert refused.detail
            assert refused.location is None or 0 <= refused.location <= len(sql.encode())
            return False
        assert [str(kind).split(".")[-1] for kind in self._kinds(sql)] in (["SELECT"], ["EXPLAIN"])
        before = self._state()
        try:
            self.connection.execute(sql).fetchmany(10)
        except duckdb.PermissionException as error:
            raise AssertionError(f"the gate allowed a query that reads files: {sql!r}: {error}") from error
        except (duckdb.Error, RuntimeError, MemoryError):
            pass
        assert self._state() == before, sql
        return True

    def _kinds(self, sql: str) -> list[duckdb.StatementType]:
        return [statement.type for statement in self.connection.extract_statements(sql)]

    def _state(self) -> list[tuple[object, ...]]:
        return self.connection.execute(
            "SELECT table_name, estimated_size FROM duckdb_tables() UNION ALL "
            "SELECT view_name, 0 FROM duckdb_views() WHERE NOT internal UNION ALL "
            "SELECT database_name, 0 FROM duckdb_databases() ORDER BY ALL"
        ).fetchall()
