"""The asset `music_db`: the published snapshot that queries read."""

import time

import dagster as dg

from music_assets.defs.assets import OWNERS, PUBLISHED_CODE
from music_assets.defs.metadata import markdown_table, music_db_lineage, music_db_schema, table_metadata
from music_assets.embedding.refresh import FollowedLists, follow_lists
from music_assets.engines.base import Engine
from music_assets.storage.delta import DeltaStore
from music_assets.storage.publisher import Publisher
from music_assets.tables import ARTIST_EMBEDDING, EMBEDDING_TABLES, RANKING_TABLES, RAW_TABLES, TABLES, USER_EMBEDDING


@dg.asset(
    deps=[dg.AssetKey(table.asset_key) for table in (*RAW_TABLES, *RANKING_TABLES, *EMBEDDING_TABLES)],
    description="The published snapshot: one read-only DuckDB file with all tables.",
    group_name="published",
    owners=OWNERS,
    kinds={"duckdb"},
    code_version=PUBLISHED_CODE,
)
def music_db(
    context: dg.AssetExecutionContext,
    publisher: dg.ResourceParam[Publisher],
    engine: dg.ResourceParam[Engine],
    store: dg.ResourceParam[DeltaStore],
    reader: dg.ResourceParam[Engine],
    threads: dg.ResourceParam[int],
) -> dg.MaterializeResult:
    """Compute the vectors of users whose lists changed since the last training, and publish the newest tables."""
    started = time.monotonic()
    engine.clear_cache()  # the rankings are written, and the publisher needs the memory
    if followed := follow_lists(store, reader, threads):
        context.log_event(_materialization(store, followed, time.monotonic() - started))
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


def _materialization(store: DeltaStore, followed: FollowedLists, seconds: float) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        dg.AssetKey(USER_EMBEDDING.asset_key),
        description="Users whose lists changed since the training, placed among its artists.",
        metadata={
            **table_metadata(USER_EMBEDDING, store.table_version(USER_EMBEDDING), seconds),
            "users with a new vector": followed.placed,
            "users without a vector (no artist of theirs has one)": followed.unknown,
            "artists trained": dg.MetadataValue.timestamp(store.committed_at(ARTIST_EMBEDDING)),
        },
    )
