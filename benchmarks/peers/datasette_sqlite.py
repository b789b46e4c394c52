"""The tables in SQLite, for datasette to serve: indexed by what is asked for.

    python datasette_sqlite.py SNAPSHOT SQLITE
    datasette serve --immutable SQLITE ...

SNAPSHOT is a DuckDB file with the tables. Tuned by https://docs.datasette.io/en/stable/performance.html: the file is
opened as immutable, so that nothing is locked and rows are counted once.
"""

import sqlite3
import sys
from pathlib import Path

import duckdb

TABLES = {
    "raw_parquet_user_data": ["country"],
    "processed_parquet_artist_rank_in_country": ["country, rank"],
    "processed_parquet_country_rank_per_artist": ["artist_name, rank"],
}
ROWS_AT_ONCE = 50_000


def main(snapshot: str, target: str) -> None:
    """Copy the tables, then index them."""
    Path(target).unlink(missing_ok=True)
    source = duckdb.connect(snapshot, read_only=True)
    sqlite = sqlite3.connect(target, isolation_level=None)
    sqlite.execute("PRAGMA journal_mode = OFF")
    sqlite.execute("PRAGMA synchronous = OFF")
    sqlite.execute("BEGIN")
    for table, indexes in TABLES.items():
        rows = source.execute(
            f"SELECT * REPLACE (ingested_at::VARCHAR AS ingested_at) FROM {table}"
            if table.startswith("raw")
            else f"FROM {table}"
        )
        names = [column[0] for column in rows.description]
        sqlite.execute(f"CREATE TABLE {table} ({', '.join(names)})")
        insert = f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})"
        while batch := rows.fetchmany(ROWS_AT_ONCE):
            sqlite.executemany(insert, batch)
        for number, columns in enumerate(indexes):
            sqlite.execute(f"CREATE INDEX {table}_{number} ON {table} ({columns})")
    sqlite.execute("COMMIT")
    sqlite.execute("ANALYZE")
    sqlite.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
