"""The ranking assets: which artists lead in a country, and which countries love an artist most."""

import dagster as dg
import ibis.expr.types as ir

from music_assets.defs.assets import OWNERS
from music_assets.engines.base import Engine
from music_assets.storage.delta import DeltaStore
from music_assets.storage.lineage import earlier_totals
from music_assets.tables import ARTIST_RANK_IN_COUNTRY, COUNTRY_RANK_PER_ARTIST, USER_DATA, USER_TOP_ARTISTS, Table
from music_assets.transforms import rankings
from music_assets.transforms.current_rows import repeated_users
from music_assets.transforms.totals import totals_now


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
    """Rank the artists of each country; after a small drop, from the totals in the ranking as it stands.

    The `reader` counts who was delivered twice: it needs two columns, and is done in a tenth of the time Spark takes.
    """

    def repeated(table: Table) -> ir.Table:
        return repeated_users(reader.read(table, store.table_version(table).files), table)

    earlier = earlier_totals(store, engine)
    return rankings.artist_rank_in_country(totals_now(user_data, user_top_artists, earlier, engine.cache, repeated))


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
