"""Copy the tables to SQLite for datasette: `python datasette_sqlite.py SNAPSHOT SQLITE`.

SNAPSHOT is a DuckDB file. The tables are indexed by what is looked up, and the file is served as immutable, as
https://docs.datasette.io/en/stable/performance.html advises: no locks, and rows are counted once.
"""

import sqlite3
import sys
from pathlib import Path

import duckdb

INDEXES = {
    "raw_parquet_user_data": "country",
    "processed_parquet_artist_rank_in_country": "country, rank",
    "processed_parquet_country_rank_per_artist": "artist_name, rank",
}
BATCH_ROWS = 50_000

if __name__ == "__main__":
    snapshot, target = sys.argv[1:]
    source = duckdb.connect(snapshot, read_only=True)
    source.execute("SET VARIABLE data_root = ?", [str(Path(snapshot).absolute().parents[1])])
    sqlite = sqlite3.connect(target, isolation_level=None)
    sqlite.execute("PRAGMA journal_mode = OFF")
    sqlite.execute("PRAGMA synchronous = OFF")
    sqlite.execute("BEGIN")
    for table, index in INDEXES.items():
        times = "REPLACE (ingested_at::VARCHAR AS ingested_at)" if table.startswith("raw") else ""
        rows = source.execute(f"SELECT * {times} FROM {table}")
        names = [column[0] for column in rows.description]
        sqlite.execute(f"CREATE TABLE {table} ({', '.join(names)})")
        while batch := rows.fetchmany(BATCH_ROWS):
            sqlite.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})", batch)
        sqlite.execute(f"CREATE INDEX {table}_index ON {table} ({index})")
    sqlite.execute("COMMIT")
    sqlite.execute("ANALYZE")
