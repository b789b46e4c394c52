"""How the log of a table identifies what was loaded: by content, and by the file that delivered it.

Both are application transactions of the commit, which checkpoints keep for as long as the table exists. Their version
is the `ingested_at` of the rows in microseconds since 1970. A content has the version of its latest load; a file that
was loaded is never loaded again, even if it could not be deleted.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from music_assets.ingest.landing import DroppedFile

EPOCH = datetime(1970, 1, 1)
UNKNOWN_TIME = 1
"""Version of contents that release 0.1 loaded."""
RETRACTED = 0
"""Version of contents whose rows were retracted. Files have the negative of their version instead."""


@dataclass(frozen=True)
class Load:
    """A file that was loaded: its content hash, its name, and the `ingested_at` of its rows."""

    content_hash: str
    name: str
    ingested_at: datetime
    is_retracted: bool


def version_of(ingested_at: datetime) -> int:
    """Return the transaction version of rows that were loaded at this UTC time."""
    return (ingested_at - EPOCH) // timedelta(microseconds=1)


def time_of(version: int) -> datetime:
    """Return the UTC time of a transaction version."""
    return EPOCH + timedelta(microseconds=version)


def file_id(file: DroppedFile, content_hash: str) -> str:
    """Return the transaction id of a file.

    The time of the last status change is part of it: a file that is delivered again can have the name, inode and
    modification time of one that was deleted, but no program can set that time.
    """
    return f"{content_hash}:{file.inode}:{file.modified_ns}:{file.changed_ns}:{file.name}"


def rejects_id(table_name: str, content_hash: str) -> str:
    """Return the transaction id of the rejected rows of a content, in the table that all raw tables share."""
    return f"{table_name}:{content_hash}"


def parse_file_id(transaction_id: str, version: int) -> Load | None:
    """Return what a transaction of a raw table says about a file, or None if it is about something else."""
    content_hash, *status = transaction_id.split(":", 4)
    if len(status) != 4:
        return None
    return Load(content_hash, status[-1], time_of(abs(version)), is_retracted=version <= RETRACTED)
