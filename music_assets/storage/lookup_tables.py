"""The lookup tables of the published snapshot: answers to frequent questions, so that no query has to aggregate.

They are SQL, since DuckDB builds the snapshot whichever engine computed the rankings, and compiling Ibis expressions
would take twice as long as running them after a small drop.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import duckdb

from music_assets.storage.published_snapshot import PublishedSnapshot, PublishedTable
from music_assets.storage.snapshot_tables import create_table
from music_assets.storage.sql import literal
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    COUNTRY_RANK_PER_ARTIST,
    COUNTRY_TOTALS,
    DISTINCTIVE_ARTISTS,
    RANK_CHANGES,
    SIMILAR_COUNTRIES,
    WORLD_ARTISTS,
    Table,
)

LOG = logging.getLogger(__name__)
PREVIOUS = "previous"
LISTED = 200
"""Number of first artists, or of distinctive ones, that are stored for each country."""
SHRINKAGE = 10
"""Listeners added to the found and to the expected number, so that three listeners in a small country do not win."""
COMPARED_ARTISTS = 1_000
"""Number of artists, those with the most listeners, by which the taste of countries is compared."""
COMPARED_COUNTRIES = 500
"""Number of countries, those with the most listeners, that are compared with each other. There are 249 on Earth, but a
file may name one for each user."""
SIMILAR_COUNTRIES_LISTED = 50
ARTISTS, COUNTRIES = ARTIST_RANK_IN_COUNTRY.full_name, COUNTRY_RANK_PER_ARTIST.full_name
EXPECTED = "listings * worldwide / (SELECT sum(listings) FROM country_totals)"
"""Listeners of an artist in a country if it listened as the world does."""

QUERIES = {
    COUNTRY_TOTALS: f"""
        SELECT country, count(*) AS artists, sum(total_playcount) AS total_playcount, sum(listeners) AS listings
        FROM {ARTISTS}
        GROUP BY country""",
    WORLD_ARTISTS: f"""
        SELECT *, row_number() OVER (ORDER BY total_playcount DESC, artist_name) AS rank
        FROM (
            SELECT artist_name, sum(total_playcount) AS total_playcount, sum(listeners) AS listeners,
                count(*) AS countries, max(country) FILTER (rank = 1) AS top_country
            FROM {COUNTRIES}
            GROUP BY artist_name
        )""",
    DISTINCTIVE_ARTISTS: f"""
        WITH several AS (
            SELECT country, artist_name, total_playcount, listeners, {EXPECTED} AS expected_listeners
            FROM {ARTISTS}
            JOIN (SELECT artist_name, listeners AS worldwide FROM world_artists) USING (artist_name)
            JOIN (SELECT country, listings FROM country_totals) USING (country)
            WHERE listeners > 1  -- one user is not the taste of a country
        ), ratios AS (
            SELECT *, (listeners + {SHRINKAGE}) / (expected_listeners + {SHRINKAGE}) AS ratio FROM several
        )
        SELECT *, row_number() OVER (PARTITION BY country ORDER BY ratio DESC, artist_name) AS rank
        FROM ratios
        WHERE ratio > 1
        QUALIFY rank <= {LISTED}""",
    SIMILAR_COUNTRIES: f"""
        WITH compared AS (
            SELECT artist_name, listeners AS worldwide
            FROM world_artists
            ORDER BY listeners DESC, artist_name
            LIMIT {COMPARED_ARTISTS}
        ), ratios AS (
            SELECT country, artist_name,
                (coalesce(listeners, 0) + {SHRINKAGE}) / ({EXPECTED} + {SHRINKAGE}) AS ratio
            FROM (
                SELECT country, listings
                FROM country_totals
                WHERE listings > 0
                ORDER BY listings DESC, country
                LIMIT {COMPARED_COUNTRIES}
            )
            CROSS JOIN compared
            LEFT JOIN (SELECT country, artist_name, listeners FROM {ARTISTS}) USING (country, artist_name)
        ), tastes AS (
            SELECT country, list(ln(ratio) ORDER BY artist_name) AS taste FROM ratios GROUP BY country
        ), pairs AS (
            SELECT one.country, other.country AS similar_country,
                list_cosine_similarity(one.taste, other.taste) AS similarity
            FROM tastes AS one JOIN tastes AS other ON one.country <> other.country
        )
        SELECT *, row_number() OVER (PARTITION BY country ORDER BY similarity DESC, similar_country) AS rank
        FROM pairs
        WHERE NOT isnan(similarity)
        QUALIFY rank <= {SIMILAR_COUNTRIES_LISTED}""",
}
"""The queries of the tables that one snapshot suffices for. The later ones read the earlier tables."""

RANKS = """
    SELECT country, artist_name, rank FROM {catalog}main.processed_parquet_artist_rank_in_country
    UNION ALL SELECT '', artist_name, rank FROM {catalog}main.world_artists"""
"""Ranks in the countries, and in the world, whose country is empty."""
CHANGES = f"""
    WITH now AS NOT MATERIALIZED ({RANKS.format(catalog="")}),
    before AS NOT MATERIALIZED ({RANKS.format(catalog=f"{PREVIOUS}.")}),
    listed AS (
        SELECT country, artist_name, now.rank AS rank, before.rank AS previous_rank
        FROM (FROM now WHERE rank <= {LISTED}) AS now
        FULL JOIN (FROM before WHERE rank <= {LISTED}) AS before USING (country, artist_name)
    ),
    risen AS (FROM before SEMI JOIN (FROM listed WHERE previous_rank IS NULL) USING (country, artist_name)),
    fallen AS (FROM now SEMI JOIN (FROM listed WHERE rank IS NULL) USING (country, artist_name)),
    changes AS (
        SELECT country, artist_name, coalesce(listed.rank, fallen.rank) AS rank,
            coalesce(listed.previous_rank, risen.rank) AS previous_rank
        FROM listed
        LEFT JOIN risen USING (country, artist_name)
        LEFT JOIN fallen USING (country, artist_name)
    )
    SELECT nullif(country, '') AS country, artist_name, rank, previous_rank,
        CASE
            WHEN previous_rank IS NULL THEN 'new'
            WHEN rank IS NULL THEN 'gone'
            WHEN rank < previous_rank THEN 'riser'
            WHEN rank > previous_rank THEN 'faller'
            ELSE 'unchanged'
        END AS change
    FROM changes"""
"""The rankings are searched only for the few artists that are listed on one side: this takes a quarter of the time."""


def create_lookup_tables(
    connection: duckdb.DuckDBPyConnection, tables: Mapping[str, PublishedTable], previous: PublishedSnapshot | None
) -> dict[Table, int]:
    """Create the lookup tables in a snapshot that holds the rankings, as `tables` describes them.

    Returns their numbers of rows. `rank_changes` compares with the previous snapshot, and is empty without.
    """
    rows = {table: _create(connection, table, sql) for table, sql in QUERIES.items()}
    return {**rows, RANK_CHANGES: _create_rank_changes(connection, tables, previous)}


def _create(connection: duckdb.DuckDBPyConnection, table: Table, sql: str) -> int:
    return create_table(connection, table, f"FROM ({sql}) ORDER BY {', '.join(table.sort_by)}")


def _create_rank_changes(
    connection: duckdb.DuckDBPyConnection, tables: Mapping[str, PublishedTable], previous: PublishedSnapshot | None
) -> int:
    if previous is not None and RANK_CHANGES.full_name in previous.tables:
        # A ranking that is published again, as after a training, has changed as it had before.
        same = previous.tables[ARTISTS] == tables[ARTISTS]
        sql = f"FROM {PREVIOUS}.main.{RANK_CHANGES.full_name}" if same else CHANGES
        try:
            with _attached(connection, previous):
                return _create(connection, RANK_CHANGES, sql)
        except duckdb.Error as error:
            LOG.warning(f"{RANK_CHANGES.full_name} is empty, since {previous.path} cannot be read: {error}")
    return create_table(connection, RANK_CHANGES)


@contextmanager
def _attached(connection: duckdb.DuckDBPyConnection, snapshot: PublishedSnapshot) -> Iterator[None]:
    connection.execute(f"ATTACH {literal(str(snapshot.path))} AS {PREVIOUS} (READ_ONLY)")
    try:
        yield
    finally:
        connection.execute(f"DETACH {PREVIOUS}")
