"""The raw assets: dropped CSV files, loaded exactly once into append-only tables.

The drop folders are external assets: other programs write to them. `csv_drop_sensor` observes what waits there.
"""

import time

import dagster as dg

from music_assets.data_root import DataRoot
from music_assets.defs.assets import OWNERS, RAW_CODE
from music_assets.defs.metadata import ingest_metadata, table_metadata
from music_assets.ingest.ingest import Ingest, IngestRunningError
from music_assets.object_store import ObjectStoreError
from music_assets.storage.delta import ConcurrentCommitError
from music_assets.tables import RAW_TABLES, USER_DATA, USER_TOP_ARTISTS, Table


def drop_folder_key(table: Table) -> dg.AssetKey:
    """Return the key of the drop folder of a table: its path below the data root."""
    return dg.AssetKey(["user_data", table.name])


def drop_folders(root: DataRoot) -> list[dg.AssetSpec]:
    """Return the drop folders as external assets."""
    return [
        dg.AssetSpec(
            drop_folder_key(table),
            description=f"The folder for CSV files of {table.name}. Loaded files are deleted.",
            group_name="drops",
            owners=OWNERS,
            kinds={"csv"},
            metadata={"path": dg.MetadataValue.path(root.address(root.drop_folder(table)))},
        )
        for table in RAW_TABLES
    ]


def _raw_asset(table: Table) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey(table.asset_key),
        description=table.description,
        group_name="raw_parquet",
        owners=OWNERS,
        kinds={"csv", "parquet", "deltalake"},
        deps=[drop_folder_key(table)],
        code_version=RAW_CODE,
    )
    def raw(context: dg.AssetExecutionContext, ingest: dg.ResourceParam[Ingest]) -> dg.MaterializeResult:
        started = time.monotonic()
        try:
            report = ingest.load(table, context.log)
        except (IngestRunningError, ConcurrentCommitError, ObjectStoreError) as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        version = ingest.store.table_version(table)
        return dg.MaterializeResult(
            metadata={**table_metadata(table, version, time.monotonic() - started), **ingest_metadata(report)}
        )

    return raw


user_data = _raw_asset(USER_DATA)
user_top_artists = _raw_asset(USER_TOP_ARTISTS)
