"""The published rows of a data root, to compare with those of another one."""

from collections import Counter

from music_assets.data_root import DataRoot
from music_assets.storage.published_snapshot import NothingPublishedError, connect, newest_snapshot
from music_assets.tables import TABLES, Table

Rows = Counter[tuple]


def published_rows(root: DataRoot) -> dict[str, Rows] | None:
    """Return the rows of each published table without `ingested_at`, or None if nothing is published.

    Popularity is rounded: engines add in different orders.
    """
    try:
        newest_snapshot(root)
    except NothingPublishedError:
        return None
    with connect(root) as connection:
        return {
            table.full_name: Counter(
                connection.execute(
                    f"SELECT {', '.join(map(_rounded, compared_columns(table)))} FROM {table.full_name}"
                ).fetchall()
            )
            for table in TABLES
        }


def compared_columns(table: Table) -> list[str]:
    """Return the columns that depend on the delivered data only."""
    return [column.name for column in table.columns if column.name != "ingested_at"]


def _rounded(column: str) -> str:
    return f"round({column}, 12)" if column == "normalized_popularity" else column
