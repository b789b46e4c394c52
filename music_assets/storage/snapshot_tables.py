"""How the tables of the published snapshot are stored."""

import duckdb

from music_assets.storage.sql import column_type, identifier
from music_assets.tables import ARTIST_RANK_IN_COUNTRY, WORLD_ARTISTS, Table

OPTIONS = "ROW_GROUP_SIZE 32768, BLOCK_SIZE 65536, RECOVERY_MODE no_wal_writes"
"""A lookup decodes whole row groups: with a quarter of the default rows it takes a third to two thirds of the time.
The file would be a fifth larger; with small blocks, of which less is empty, it is a twentieth larger. Nobody recovers a
file that is half built, so no statement need flush a write-ahead log.
"""
ZSTD = {ARTIST_RANK_IN_COUNTRY: "artist_name", WORLD_ARTISTS: "artist_name"}
"""Columns of names that differ within a row group. DuckDB would choose a dictionary: as small, four times as slow."""


def create_table(connection: duckdb.DuckDBPyConnection, table: Table, query: str | None = None) -> int:
    """Create a table with the rows of a query, which has its columns in any order; return their number."""
    columns = ", ".join(
        f"{identifier(name)} {column_type(kind)}{' USING COMPRESSION zstd' if name == ZSTD.get(table) else ''}"
        for name, kind in table.schema.items()
    )
    connection.execute(f"CREATE TABLE {table.full_name} ({columns})")
    if query is None:
        return 0
    ((rows,),) = connection.execute(f"INSERT INTO {table.full_name} BY NAME {query}").fetchall()
    return int(rows)
