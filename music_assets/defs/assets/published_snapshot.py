"""The asset `music_db`: the published snapshot that queries read."""

import time

import dagster as dg

from music_assets.defs.assets import OWNERS
from music_assets.defs.metadata import markdown_table, music_db_lineage, music_db_schema
from music_assets.storage.publisher import Publisher
from music_assets.tables import EMBEDDING_TABLES, RANKING_TABLES, RAW_TABLES, TABLES


@dg.asset(
    deps=[dg.AssetKey(table.asset_key) for table in (*RAW_TABLES, *RANKING_TABLES, *EMBEDDING_TABLES)],
    description="The published snapshot: one read-only DuckDB file with all tables.",
    group_name="published",
    owners=OWNERS,
    kinds={"duckdb"},
)
def music_db(publisher: dg.ResourceParam[Publisher]) -> dg.MaterializeResult:
    """Publish the newest tables."""
    started = time.monotonic()
    snapshot = publisher.publish()
    tables = [{"table": name, "version": table.version, "rows": table.rows} for name, table in snapshot.tables.items()]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(snapshot.tables[table.full_name].rows for table in TABLES),
            "dagster/column_schema": music_db_schema(),
            "dagster/column_lineage": music_db_lineage(),
            "dagster/table_name": "music_db",
            "table version": snapshot.data_version,
            "tables": markdown_table(tables),
            "path": dg.MetadataValue.path(str(snapshot.path)),
            "size (bytes)": snapshot.path.stat().st_size,
            "duration (s)": round(time.monotonic() - started, 3),
        },
        data_version=dg.DataVersion(snapshot.data_version),
    )
