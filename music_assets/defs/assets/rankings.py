"""The ranking assets: the artists of each country by plays, and the countries of each artist by share of plays."""

import dagster as dg
import ibis.expr.types as ir
import pyarrow as pa

from music_assets.defs.assets import OWNERS
from music_assets.engines.base import Engine, repeated_users_in
from music_assets.storage.delta import DeltaStore
from music_assets.storage.integrity import damaged_files
from music_assets.storage.lineage import COVERED, INPUTS, coverage_of
from music_assets.tables import ARTIST_RANK_IN_COUNTRY, COUNTRY_RANK_PER_ARTIST, USER_DATA, USER_TOP_ARTISTS, Table
from music_assets.transforms import rankings
from music_assets.transforms.totals import PreviousTotals, refreshed_totals


@dg.asset(
    key=dg.AssetKey(ARTIST_RANK_IN_COUNTRY.asset_key),
    description=ARTIST_RANK_IN_COUNTRY.description,
    ins={
        "user_data": dg.AssetIn(dg.AssetKey(USER_DATA.asset_key)),
        "user_top_artists": dg.AssetIn(dg.AssetKey(USER_TOP_ARTISTS.asset_key)),
    },
    group_name="rankings",
    owners=OWNERS,
    kinds={"ibis", "parquet", "deltalake"},
)
def artist_rank_in_country(
    store: dg.ResourceParam[DeltaStore],
    engine: dg.ResourceParam[Engine],
    reader: dg.ResourceParam[Engine],
    user_data: ir.Table,
    user_top_artists: ir.Table,
) -> ir.Table:
    """Rank the artists of each country; after a small drop by an update of the previous totals."""

    def repeated(table: Table) -> pa.Table:
        # This reads two columns, for which DuckDB needs a tenth of the time that Spark does.
        return repeated_users_in(reader, table, store.table_version(table).files)

    previous = previous_totals(store, engine)
    return rankings.artist_rank_in_country(
        refreshed_totals(user_data, user_top_artists, previous, engine.cache, repeated)
    )


@dg.asset(
    key=dg.AssetKey(COUNTRY_RANK_PER_ARTIST.asset_key),
    description=COUNTRY_RANK_PER_ARTIST.description,
    group_name="rankings",
    owners=OWNERS,
    kinds={"ibis", "parquet", "deltalake"},
)
def country_rank_per_artist(artist_rank_in_country: ir.Table) -> ir.Table:
    """Rank the countries of each artist."""
    return rankings.country_rank_per_artist(artist_rank_in_country)


def previous_totals(store: DeltaStore, engine: Engine) -> PreviousTotals | None:
    """Return the totals of the newest ranking, or None if it is damaged or its coverage unknown."""
    if damaged_files(store, ARTIST_RANK_IN_COUNTRY):
        return None
    version = store.table_version(ARTIST_RANK_IN_COUNTRY)
    inputs, covered = (
        store.latest_commit_metadata(ARTIST_RANK_IN_COUNTRY, key, upto=version.version) for key in (INPUTS, COVERED)
    )
    coverage = coverage_of(inputs, covered or {})
    if coverage.keys() != {USER_DATA.name, USER_TOP_ARTISTS.name}:
        return None
    return PreviousTotals(engine.read(ARTIST_RANK_IN_COUNTRY, version.files), coverage)
