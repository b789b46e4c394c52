"""What `music-assets query` prints: rows of the snapshot on this machine, or of a running service."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from music_assets.client import MusicDB, MusicDBError
from music_assets.data_root import DataRoot
from music_assets.service.formats import Result, UnsupportedTypeError, columns_of
from music_assets.storage.published_snapshot import connect

ROWS_PER_BATCH = 10_000


@contextmanager
def query_snapshot(root: DataRoot, sql: str) -> Iterator[Result]:
    """Run a statement on the newest published snapshot.

    Raises MusicDBError, NothingPublishedError and duckdb.Error, the last one also while the batches are read.
    """
    with _interruptible(), connect(root) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        relation = connection.sql(sql)
        if relation is None:
            raise MusicDBError("The statement returns no rows. Send one SELECT.")
        try:
            columns = columns_of(relation)
        except UnsupportedTypeError as error:
            raise MusicDBError(str(error)) from None
        reader = relation.to_arrow_reader(ROWS_PER_BATCH)
        yield Result(reader.schema, reader, columns)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process. DuckDB would raise RuntimeError, or wait forever for the tasks of the statement."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def query_service(url: str, sql: str, key: str | None = None, limit: int | None = None) -> Result:
    """Run a statement on the service at this URL.

    The metadata says whether the service truncated the result below `limit`. Raises MusicDBError.
    """
    with MusicDB(url, key) as music_db:
        answer = music_db.query(sql, limit=None if limit is None else max(limit, 1))
    below_limit = limit is None or len(answer) < limit
    table = answer.to_arrow()
    return Result(table.schema, table.to_batches(), metadata={"truncated": answer.truncated and below_limit})
