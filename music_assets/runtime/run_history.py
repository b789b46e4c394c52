"""Dagster's run history in SQLite, as the process of a run writes it: without flushing the disk after each event.

Dagster opens a database for each event and closes it again. SQLite copies its write-ahead log into a database when the
last connection closes, and flushes both: more than a thousand times in a refresh. Here a connection to each database
stays open until the process ends, and commits do not flush. After a power failure the database is intact, but may lack
the last events (https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

import atexit
import os
import sqlite3
from contextlib import suppress
from typing import Any

from sqlalchemy import Pool, event

WAL = ("wal",)
_open: dict[str, sqlite3.Connection] = {}
"""The connection that stays open, by the path of the database."""


def write_without_flushing() -> None:
    """Do so in this process from now on. A run history in PostgreSQL is not affected."""
    event.listen(Pool, "connect", _keep_open)
    event.listen(Pool, "checkin", _touch)
    atexit.register(_close)


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
