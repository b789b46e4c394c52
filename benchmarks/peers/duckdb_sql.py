"""From CSV files to sorted rankings in DuckDB SQL: `python duckdb_sql.py [--publish] FOLDER [USERS TOP_ARTISTS]`.

The CSV files become the next raw parquet file of each table. Both rankings are computed from all raw parquet files; of
the rows with the same key, those of the latest file count. `--publish` writes every output of music-assets: the
origin of each raw row, and a DuckDB file to query.

Tuned by https://duckdb.org/docs/stable/guides/performance/overview: the schema is given, insertion order is not
preserved, parquet has the default (light) compression. DUCKDB_THREADS sets the number of threads.
"""

import os
import sys
from pathlib import Path

import duckdb

SCHEMAS = {
    "user_data": "{user_id: 'INTEGER', country: 'VARCHAR', total_scrobbles: 'BIGINT'}",
    "user_top_artists": "{user_id: 'INTEGER', rank: 'INTEGER', artist_name: 'VARCHAR', playcount: 'BIGINT', "
    "mbid: 'VARCHAR'}",
}
KEYS = {"user_data": "user_id", "user_top_artists": "user_id, rank"}
SQL = Path(__file__).parent

if __name__ == "__main__":
    publish = "--publish" in sys.argv
    folder, *files = (Path(argument) for argument in sys.argv[1:] if argument != "--publish")
    connection = duckdb.connect(config={"temp_directory": f"{folder}/spill", "preserve_insertion_order": False})
    if threads := os.environ.get("DUCKDB_THREADS"):
        connection.execute(f"SET threads = {threads}")
    for name, csv in zip(SCHEMAS, files, strict=False):
        raw = folder / "raw" / name
        raw.mkdir(parents=True, exist_ok=True)
        origin = f", '{csv.name}' AS source_file, now()::TIMESTAMP AS ingested_at" if publish else ""
        rows = f"read_csv('{csv}', header = true, auto_detect = false, columns = {SCHEMAS[name]})"
        connection.execute(f"COPY (SELECT *{origin} FROM {rows}) TO '{raw}/{len(list(raw.iterdir())):04}.parquet'")
    for name, key in KEYS.items():
        parts = [str(part) for part in sorted((folder / "raw" / name).iterdir())]
        later = [f"ANTI JOIN read_parquet({parts[place + 1 :]}) USING ({key})" for place in range(len(parts) - 1)]
        current = " UNION ALL ".join(f"FROM '{part}' {join}" for part, join in zip(parts, [*later, ""], strict=True))
        connection.execute(f"CREATE VIEW {name} AS {current}")
    connection.execute((SQL / "duckdb_sql.sql").read_text().format(folder=folder))
    if publish:
        connection.execute((SQL / "duckdb_publish.sql").read_text().format(folder=folder))
