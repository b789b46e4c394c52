"""The lookup tables of the published snapshot, computed by `transforms/lookups.py` while it is built."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import duckdb
import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from music_assets.storage.published_snapshot import PublishedSnapshot, PublishedTable
from music_assets.storage.sql import literal
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    ARTIST_SEARCH,
    COUNTRY_RANK_PER_ARTIST,
    COUNTRY_TOTALS,
    DISTINCTIVE_ARTISTS,
    RANK_CHANGES,
    SIMILAR_COUNTRIES,
    WORLD_ARTISTS,
    Table,
)
from music_assets.transforms import lookups

LOG = logging.getLogger(__name__)
PREVIOUS = "previous"
Database = tuple[str, str]


def create_lookup_tables(
    connection: duckdb.DuckDBPyConnection, tables: Mapping[str, PublishedTable], previous: PublishedSnapshot | None
) -> dict[Table, int]:
    """Create the lookup tables in a snapshot that holds the rankings, as `tables` describes them.

    Returns their numbers of rows. `rank_changes` compares with the previous snapshot, and is empty without.
    """
    backend = ibis.duckdb.from_connection(connection)
    artists, countries = (backend.table(each.full_name) for each in (ARTIST_RANK_IN_COUNTRY, COUNTRY_RANK_PER_ARTIST))
    totals = _create(backend, COUNTRY_TOTALS, lookups.country_totals(artists))
    world = _create(backend, WORLD_ARTISTS, lookups.world_artists(countries))
    created = {
        COUNTRY_TOTALS: totals,
        WORLD_ARTISTS: world,
        ARTIST_SEARCH: _create(backend, ARTIST_SEARCH, lookups.artist_search(world)),
        DISTINCTIVE_ARTISTS: _create(backend, DISTINCTIVE_ARTISTS, lookups.distinctive_artists(artists, world, totals)),
        SIMILAR_COUNTRIES: _create(backend, SIMILAR_COUNTRIES, lookups.similar_countries(artists, world, totals)),
        RANK_CHANGES: _create_rank_changes(backend, tables, previous),
    }
    return {table: rows.count().to_pyarrow().as_py() for table, rows in created.items()}


def _create(backend: Backend, table: Table, rows: ir.Table) -> ir.Table:
    typed = rows.select(list(table.schema)).cast(table.schema).order_by(list(table.sort_by))
    return backend.create_table(table.full_name, typed)


def _create_rank_changes(
    backend: Backend, tables: Mapping[str, PublishedTable], previous: PublishedSnapshot | None
) -> ir.Table:
    if previous is not None and RANK_CHANGES.full_name in previous.tables:
        try:
            with _attached(backend, previous) as database:
                return _create(backend, RANK_CHANGES, _rank_changes(backend, tables, previous, database))
        except duckdb.Error as error:
            LOG.warning(f"{RANK_CHANGES.full_name} is empty, since {previous.path} cannot be read: {error}")
    return _create(backend, RANK_CHANGES, ibis.memtable(RANK_CHANGES.schema.to_pyarrow().empty_table()))


@contextmanager
def _attached(backend: Backend, snapshot: PublishedSnapshot) -> Iterator[Database]:
    backend.raw_sql(f"ATTACH {literal(str(snapshot.path))} AS {PREVIOUS} (READ_ONLY)")
    try:
        yield (PREVIOUS, "main")
    finally:
        backend.raw_sql(f"DETACH {PREVIOUS}")


def _rank_changes(
    backend: Backend, tables: Mapping[str, PublishedTable], previous: PublishedSnapshot, database: Database
) -> ir.Table:
    name = ARTIST_RANK_IN_COUNTRY.full_name
    if previous.tables[name] == tables[name]:  # published again, as after a training
        return backend.table(RANK_CHANGES.full_name, database=database)
    return lookups.rank_changes(_ranks(backend), _ranks(backend, database))


def _ranks(backend: Backend, database: Database | None = None) -> ir.Table:
    """Return country, artist_name and rank in each country, and in the world, whose country is empty."""
    artists, world = (
        backend.table(each.full_name, database=database) for each in (ARTIST_RANK_IN_COUNTRY, WORLD_ARTISTS)
    )
    return artists.select("country", "artist_name", "rank").union(
        world.select("artist_name", "rank", country=ibis.literal("")).select("country", "artist_name", "rank")
    )
