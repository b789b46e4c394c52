"""Dagster's run history in SQLite, as the process of a run writes it: its databases stay open.

For each event Dagster makes an engine of SQLAlchemy, opens a database and closes it again: half a CPU second in a
refresh. When the last connection closes, SQLite copies its write-ahead log into the database and flushes both: more
than a thousand times in a refresh. Here engines are reused, a connection to each database stays open until the process
ends, and commits do not flush. After a power failure the databases are intact, but may lack the last events
(https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

import atexit
import os
import sqlite3
from contextlib import suppress
from typing import Any

from dagster._core.storage.event_log.sqlite import sqlite_event_log
from sqlalchemy import Engine, Pool, create_engine, event

WAL = ("wal",)
_engines: dict[str, Engine] = {}
_open: dict[str, sqlite3.Connection] = {}
"""The connection that stays open, by the path of the database."""


def keep_open() -> None:
    """Keep the databases open from now on. A run history in PostgreSQL is not affected."""
    sqlite_event_log.create_engine = _engine  # type: ignore[assignment]
    event.listen(Pool, "connect", _keep_open)
    event.listen(Pool, "checkin", _touch)
    atexit.register(_close)


def _engine(address: str, **options: Any) -> Engine:
    if address not in _engines:
        _engines[address] = create_engine(address, **options)
    return _engines[address]


def _keep_open(connection: Any, record: Any) -> None:
    if not isinstance(connection, sqlite3.Connection):
        return
    connection.execute("PRAGMA synchronous = NORMAL")
    _, _, path = connection.execute("PRAGMA database_list").fetchone()
    if path:
        record.info["path"] = path
    if path not in _open and connection.execute("PRAGMA journal_mode").fetchone() == WAL:
        _open[path] = sqlite3.connect(path, check_same_thread=False)
        _open[path].execute("SELECT count(*) FROM sqlite_master").fetchone()  # opens the write-ahead log


def _touch(_connection: Any, record: Any) -> None:
    """Update the time of the database, by which the web UI notices new events of a run."""
    with suppress(KeyError, OSError):
        os.utime(record.info["path"])


def _close() -> None:
    while _open:
        _, connection = _open.popitem()
        connection.close()
