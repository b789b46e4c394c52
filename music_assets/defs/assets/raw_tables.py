"""The raw assets: dropped CSV files, loaded exactly once into append-only tables."""

import time

import dagster as dg

from music_assets.defs.assets import OWNERS
from music_assets.defs.metadata import ingest_metadata, table_metadata
from music_assets.ingest.ingest import Ingest, IngestRunningError
from music_assets.storage.delta import ConcurrentCommitError
from music_assets.tables import USER_DATA, USER_TOP_ARTISTS, Table


def _raw_asset(table: Table) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey(table.asset_key),
        description=table.description,
        group_name="raw_parquet",
        owners=OWNERS,
        kinds={"csv", "parquet", "deltalake"},
    )
    def raw(context: dg.AssetExecutionContext, ingest: dg.ResourceParam[Ingest]) -> dg.MaterializeResult:
        started = time.monotonic()
        try:
            report = ingest.load(table, context.log)
        except (IngestRunningError, ConcurrentCommitError) as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        version = ingest.store.table_version(table)
        return dg.MaterializeResult(
            metadata={**table_metadata(table, version, time.monotonic() - started), **ingest_metadata(report)}
        )

    return raw


user_data = _raw_asset(USER_DATA)
user_top_artists = _raw_asset(USER_TOP_ARTISTS)
