"""The ranking assets: the artists of each country by plays, and the countries of each artist by share of plays.

A ranking is checked before it is committed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import ibis.expr.types as ir

from music_assets.data_root import one_look
from music_assets.defs.assets import OWNERS, RANKING_CODE
from music_assets.defs.checks import Check, CheckContext, Thresholds, check_specs, evaluate, has_failed
from music_assets.defs.io_manager import IN_MEMORY
from music_assets.engines.base import Engine, repeated_users_in
from music_assets.storage.delta import DeltaStore
from music_assets.storage.integrity import damaged_files
from music_assets.storage.lineage import COVERED, UNRANKED, coverage_of
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    COUNTRY_RANK_PER_ARTIST,
    RAW_TABLES,
    Table,
)
from music_assets.transforms import rankings
from music_assets.transforms.current_rows import CurrentRows
from music_assets.transforms.rankings import Numbered
from music_assets.transforms.totals import PreviousTotals, delivered_since, totals, updated_totals
from music_assets.transforms.unranked_plays import Counts, unranked_plays, updated_unranked_plays


def ranking_assets(checks: Sequence[Check]) -> list[dg.AssetsDefinition]:
    """Return the assets of both rankings, with the checks that apply to them."""

    @dg.asset(
        **_options(ARTIST_RANK_IN_COUNTRY, checks),
        ins={table.name: dg.AssetIn(dg.AssetKey(table.asset_key)) for table in RAW_TABLES},
    )
    def artist_rank_in_country(
        store: dg.ResourceParam[DeltaStore],
        engine: dg.ResourceParam[Engine],
        reader: dg.ResourceParam[Engine],
        thresholds: dg.ResourceParam[Thresholds],
        user_data: ir.Table,
        user_top_artists: ir.Table,
    ) -> Iterator[Any]:
        """Rank the artists of each country; after a small drop by an update of the previous totals."""
        ranked, unranked = rank_artists(store, engine, reader, user_data, user_top_artists)
        context = CheckContext(ARTIST_RANK_IN_COUNTRY, store, reader, thresholds, unranked=unranked)
        yield from _checked(ranked, checks, context)

    @dg.asset(
        **_options(COUNTRY_RANK_PER_ARTIST, checks),
        ins={ARTIST_RANK_IN_COUNTRY.name: dg.AssetIn(metadata={IN_MEMORY: True}, dagster_type=dg.Any)},
    )
    def country_rank_per_artist(
        store: dg.ResourceParam[DeltaStore],
        engine: dg.ResourceParam[Engine],
        reader: dg.ResourceParam[Engine],
        thresholds: dg.ResourceParam[Thresholds],
        artist_rank_in_country: Numbered | ir.Table,
    ) -> Iterator[Any]:
        """Rank the countries of each artist."""
        ranked = rankings.country_rank_per_artist(artist_rank_in_country, engine.cache, engine.release)
        yield from _checked(ranked, checks, CheckContext(COUNTRY_RANK_PER_ARTIST, store, reader, thresholds))

    return [artist_rank_in_country, country_rank_per_artist]


def _options(table: Table, checks: Sequence[Check]) -> dict[str, Any]:
    return {
        "key": dg.AssetKey(table.asset_key),
        "description": table.description,
        "check_specs": check_specs(table, checks),
        "output_required": False,
        "group_name": "rankings",
        "owners": OWNERS,
        "code_version": RANKING_CODE,
        "kinds": {"ibis", "parquet", "deltalake"},
    }


def _checked(ranked: Numbered, checks: Sequence[Check], context: CheckContext) -> Iterator[Any]:
    """Yield the results of the checks; then, unless Dagster fails the step because of them, the ranking."""
    blocking = {check.name for check in checks if check.blocking}
    failed = set()
    for result in evaluate(checks, replace(context, uncommitted=ranked)):
        yield result
        if has_failed(result):
            failed.add(result.check_name)
    if not failed & blocking:
        counted = {UNRANKED: dg.MetadataValue.json(context.unranked)} if context.unranked else {}
        yield dg.Output(ranked, metadata=counted)


@one_look()
def rank_artists(
    store: DeltaStore, engine: Engine, reader: Engine, user_data: ir.Table, user_top_artists: ir.Table
) -> tuple[Numbered, Counts]:
    """Compute artist_rank_in_country from the histories, and count the plays that it does not count."""
    previous = previous_totals(store, engine)
    delivered = previous and delivered_since(previous, user_data, user_top_artists, engine.cache)
    if previous and delivered:
        computed = updated_totals(previous.totals, delivered)
        unranked = updated_unranked_plays(previous.unranked, delivered.before, delivered.now)
    else:
        # This reads two columns, for which DuckDB needs a tenth of the time that Spark does.
        repeated = {table: repeated_users_in(reader, table, store.table_version(table).files) for table in RAW_TABLES}
        current = CurrentRows.of(user_data, user_top_artists, repeated)
        computed, unranked = totals(current), unranked_plays(current)
    return rankings.artist_rank_in_country(computed, engine.cache, engine.release), unranked


def previous_totals(store: DeltaStore, engine: Engine) -> PreviousTotals | None:
    """Return the totals of the newest ranking, or None if it is damaged, or if its commit lacks what is to be known."""
    version = store.table_version(ARTIST_RANK_IN_COUNTRY)
    covered, unranked = (
        store.commit_metadata(ARTIST_RANK_IN_COUNTRY, key, version.version - 1) for key in (COVERED, UNRANKED)
    )
    coverage = coverage_of(covered[0]) if covered else {}
    if not unranked or coverage.keys() != {table.name for table in RAW_TABLES}:
        return None
    if damaged_files(store, ARTIST_RANK_IN_COUNTRY):
        return None
    return PreviousTotals(engine.read(ARTIST_RANK_IN_COUNTRY, version.files), unranked[0], coverage)
