"""From CSV to sorted rankings in DuckDB SQL.

    python duckdb_sql.py FOLDER [--users CSV --top-artists CSV] [--later-wins] [--threads N] [--publish]

The CSV files, if any, become the next raw parquet file of each table; then both rankings are computed from all raw
parquet files. With `--later-wins` a row counts only if no later file has its key; without, keys are taken to be unique.
With `--publish` every output of music-assets is made: each raw row tells its file and when it was taken, and a DuckDB
file to query holds the rankings as tables in their order, and the raw tables as views.

Tuned by https://duckdb.org/docs/stable/guides/performance/overview: the schema is given instead of sniffed, insertion
order need not be preserved, parquet is written with its default (light) compression.
"""

import argparse
from pathlib import Path

import duckdb

SCHEMAS = {
    "user_data": {"user_id": "INTEGER", "country": "VARCHAR", "total_scrobbles": "BIGINT"},
    "user_top_artists": {
        "user_id": "INTEGER",
        "rank": "INTEGER",
        "artist_name": "VARCHAR",
        "playcount": "BIGINT",
        "mbid": "VARCHAR",
    },
}
KEYS = {"user_data": "user_id", "user_top_artists": "user_id, rank"}

ARTIST_RANK = """
COPY (
    SELECT *, row_number() OVER (PARTITION BY country ORDER BY total_playcount DESC, artist_name)::INTEGER AS rank
    FROM (
        SELECT country, artist_name, coalesce(sum(playcount), 0)::DOUBLE AS total_playcount
        FROM user_top_artists JOIN user_data USING (user_id)
        WHERE country IS NOT NULL
        GROUP BY ALL)
    ORDER BY country, rank)
TO '{folder}/artist_rank_in_country.parquet'
"""
COUNTRY_RANK = """
COPY (
    SELECT *, row_number() OVER (PARTITION BY artist_name ORDER BY normalized_popularity DESC, country)::INTEGER AS rank
    FROM (
        SELECT country, artist_name, total_playcount,
            CASE WHEN plays > 0 THEN total_playcount / plays ELSE 0 END AS normalized_popularity
        FROM '{folder}/artist_rank_in_country.parquet'
        JOIN (
            SELECT country, sum(total_playcount) AS plays
            FROM '{folder}/artist_rank_in_country.parquet' GROUP BY country)
        USING (country))
    ORDER BY artist_name, rank)
TO '{folder}/country_rank_per_artist.parquet'
"""


PUBLISH = """
SET preserve_insertion_order = true;
ATTACH '{folder}/music_db.duckdb' AS music_db;
CREATE TABLE music_db.artist_rank_in_country AS FROM '{folder}/artist_rank_in_country.parquet';
CREATE TABLE music_db.country_rank_per_artist AS FROM '{folder}/country_rank_per_artist.parquet';
CREATE VIEW music_db.user_data AS FROM '{folder}/raw/user_data/*.parquet';
CREATE VIEW music_db.user_top_artists AS FROM '{folder}/raw/user_top_artists/*.parquet';
DETACH music_db
"""


def add(connection: duckdb.DuckDBPyConnection, raw: Path, name: str, csv: Path, origin: bool) -> None:
    """Write the CSV as the next raw parquet file of the table; with `origin`, what each row comes from beside it."""
    folder = raw / name
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{len(list(folder.iterdir())):04}.parquet"
    rows = f"FROM read_csv('{csv}', header = true, auto_detect = false, columns = {SCHEMAS[name]})"
    if origin:
        rows = f"SELECT *, '{csv.name}' AS source_file, now()::TIMESTAMP AS ingested_at {rows}"
    connection.execute(f"COPY ({rows}) TO '{target}'")


def view(connection: duckdb.DuckDBPyConnection, raw: Path, name: str, later_wins: bool) -> None:
    """Make a view of the rows that count."""
    files = [str(file) for file in sorted((raw / name).iterdir())]
    rows = f"FROM read_parquet({files})"
    if later_wins:
        parts = [
            f"FROM '{file}' ANTI JOIN read_parquet({files[place + 1 :]}) USING ({KEYS[name]})"
            for place, file in enumerate(files[:-1])
        ]
        rows = " UNION ALL ".join([*parts, f"FROM '{files[-1]}'"])
    connection.execute(f"CREATE VIEW {name} AS {rows}")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=Path)
    parser.add_argument("--top-artists", type=Path)
    parser.add_argument("--later-wins", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--publish", action="store_true")
    options = parser.parse_args()
    raw = options.folder / "raw"

    connection = duckdb.connect()
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(f"SET temp_directory = '{options.folder}/spill'")
    if options.threads:
        connection.execute(f"SET threads = {options.threads}")
    if options.users:
        add(connection, raw, "user_data", options.users, options.publish)
        add(connection, raw, "user_top_artists", options.top_artists, options.publish)
    for name in SCHEMAS:
        view(connection, raw, name, options.later_wins)
    connection.execute(ARTIST_RANK.format(folder=options.folder))
    connection.execute(COUNTRY_RANK.format(folder=options.folder))
    if options.publish:
        connection.execute(PUBLISH.format(folder=options.folder))


if __name__ == "__main__":
    main()
