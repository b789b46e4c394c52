"""The I/O manager between real assets: commits, inputs, and the recorded input versions."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq
import pytest

from music_assets.defs.assets import raw_tables as raw_parquet
from music_assets.defs.assets.published_snapshot import music_db
from music_assets.defs.assets.rankings import ranking_assets
from music_assets.defs.io_manager import DeltaIOManager
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.storage.lineage import COVERED, INPUTS, UNRANKED
from music_assets.storage.publisher import Publisher
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    COUNTRY_RANK_PER_ARTIST,
    TABLES,
    USER_DATA,
    USER_TOP_ARTISTS,
    Table,
)
from music_assets_tests.support.ingest_harness import IngestHarness

ASSETS = [*dg.load_assets_from_modules([raw_parquet]), *ranking_assets(()), music_db]
USERS = "user_id,country,total_scrobbles\n"
ARTISTS = "user_id,rank,artist_name,playcount,mbid\n"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def materialize(
    harness: IngestHarness, instance: dg.DagsterInstance, selection: str = "*", raise_on_error: bool = True
) -> dg.ExecuteInProcessResult:
    io_manager = DeltaIOManager(harness.store, harness.engine, harness.engine, TABLES, {}, retention_hours=168)
    return dg.materialize(
        ASSETS,
        instance=instance,
        selection=selection,
        raise_on_error=raise_on_error,
        resources={
            "io_manager": io_manager,
            "store": harness.store,
            "engine": harness.engine,
            "reader": harness.engine,
            "thresholds": None,
            "threads": 1,
            "ingest": harness.ingest,
            "publisher": Publisher(harness.store, "200MB", 1),
        },
    )


def test_assets_read_what_upstream_assets_committed(harness: IngestHarness, instance: dg.DagsterInstance) -> None:
    harness.drop(USER_DATA, "u.csv", USERS + "1,Chad,5\n2,Germany,1\n")
    harness.drop(USER_TOP_ARTISTS, "a.csv", ARTISTS + "1,1,Moby,5,\n2,1,Moby,1,\n2,2,Zaz,3,\n")
    result = materialize(harness, instance)
    assert harness.rows(COUNTRY_RANK_PER_ARTIST) == [
        ("Chad", "Moby", 5.0, 1.0, 1, 1),
        ("Germany", "Moby", 1.0, 0.25, 2, 1),
        ("Germany", "Zaz", 3.0, 0.75, 1, 1),
    ]

    versions = {table.name: harness.store.table_version(table).version for table in TABLES}
    inputs = {name: versions[name] for name in ("user_data", "user_top_artists")}
    assert harness.store.commit_metadata(ARTIST_RANK_IN_COUNTRY, INPUTS) == [inputs]
    assert harness.store.commit_metadata(COUNTRY_RANK_PER_ARTIST, INPUTS) == [
        {"artist_rank_in_country": versions["artist_rank_in_country"]}
    ]
    (shown,) = result.asset_materializations_for_node("artist_rank_in_country")
    assert shown.metadata["dagster/row_count"].value == 3
    assert shown.metadata["table version"].value == versions["artist_rank_in_country"]

    harness.drop(USER_DATA, "later.csv", USERS + "1,Germany,5\n")
    materialize(harness, instance, 'key:"raw_parquet/user_data" or key:"music_db"')
    materialize(harness, instance, 'key:"artist_rank_in_country"')
    assert harness.rows(ARTIST_RANK_IN_COUNTRY) == [("Germany", "Moby", 6.0, 1, 2), ("Germany", "Zaz", 3.0, 2, 1)]
    assert len(harness.rows(COUNTRY_RANK_PER_ARTIST)) == 3


def test_failed_computation_changes_nothing(harness: IngestHarness, instance: dg.DagsterInstance) -> None:
    harness.drop(USER_DATA, "u.csv", USERS + "1,Chad,5\n")
    harness.drop(USER_TOP_ARTISTS, "a.csv", ARTISTS + "1,1,Moby,5,\n")
    materialize(harness, instance)
    before = harness.store.table_version(ARTIST_RANK_IN_COUNTRY)
    folders = sorted(harness.store.folder(ARTIST_RANK_IN_COUNTRY).glob("part-*"))

    @dg.asset(key=dg.AssetKey(ARTIST_RANK_IN_COUNTRY.asset_key))
    def not_castable():
        table = harness.engine.read(USER_DATA, harness.store.table_version(USER_DATA).files)
        return table.select("country", **dict.fromkeys(ARTIST_RANK_IN_COUNTRY.schema.names[1:], "country"))

    io_manager = DeltaIOManager(harness.store, harness.engine, harness.engine, TABLES, {}, retention_hours=168)
    result = dg.materialize(
        [not_castable], instance=instance, resources={"io_manager": io_manager}, raise_on_error=False
    )
    assert not result.success
    assert harness.store.table_version(ARTIST_RANK_IN_COUNTRY) == before
    assert sorted(harness.store.folder(ARTIST_RANK_IN_COUNTRY).glob("part-*")) == folders


def mark(harness: IngestHarness, metadata: dict) -> Path:
    """Replace the ranking by a total that no file explains, and return its file.

    If the total remains, the next refresh updated this ranking.
    """
    marked = ibis.memtable([("Chad", "Zaz", 1000.0, 1, 7)], schema=ARTIST_RANK_IN_COUNTRY.schema)
    folder = harness.store.new_folder(ARTIST_RANK_IN_COUNTRY)
    (file,) = harness.engine.write(marked, ARTIST_RANK_IN_COUNTRY, folder)
    harness.store.replace(ARTIST_RANK_IN_COUNTRY, [file], metadata)
    return file


def carried(harness: IngestHarness) -> dict:
    keys = INPUTS, COVERED, UNRANKED
    return {key: harness.store.commit_metadata(ARTIST_RANK_IN_COUNTRY, key)[0] for key in keys}


Drop = Callable[[str, int], None]


@pytest.fixture
def drop(harness: IngestHarness, instance: dg.DagsterInstance) -> Drop:
    """Load ten users and a file of plays; return a function that replaces the plays, and ranks."""

    def drop(name: str, plays: int) -> None:
        harness.drop(USER_TOP_ARTISTS, name, ARTISTS + f"1,1,Moby,{plays},\n")
        materialize(harness, instance, '+key:"artist_rank_in_country"')

    harness.drop(USER_DATA, "u.csv", USERS + "".join(f"{user},Chad,5\n" for user in range(1, 11)))
    drop("first.csv", 5)
    return drop


def test_small_drop_updates_a_ranking(harness: IngestHarness, drop: Drop) -> None:
    mark(harness, carried(harness))
    drop("second.csv", 7)
    assert harness.rows(ARTIST_RANK_IN_COUNTRY) == [("Chad", "Zaz", 1000.0, 1, 7)]


def test_ranking_whose_coverage_is_unknown_is_computed_again(harness: IngestHarness, drop: Drop) -> None:
    mark(harness, {key: value for key, value in carried(harness).items() if key != COVERED})
    drop("third.csv", 8)
    assert harness.rows(ARTIST_RANK_IN_COUNTRY) == [("Chad", "Moby", 8.0, 1, 1)]

    mark(harness, {key: value for key, value in carried(harness).items() if key != UNRANKED})
    drop("later.csv", 6)
    assert harness.rows(ARTIST_RANK_IN_COUNTRY) == [("Chad", "Moby", 6.0, 1, 1)]

    (file,) = harness.store.table_version(ARTIST_RANK_IN_COUNTRY).files
    Path(file).write_bytes(Path(file).read_bytes()[:-5])
    drop("fourth.csv", 9)
    assert harness.rows(ARTIST_RANK_IN_COUNTRY) == [("Chad", "Moby", 9.0, 1, 1)]

    older = mark(harness, {INPUTS: carried(harness)[INPUTS], "covered": carried(harness)[COVERED]})
    pq.write_table(pq.read_table(older).drop_columns("listeners"), older)
    drop("fifth.csv", 10)
    assert harness.rows(ARTIST_RANK_IN_COUNTRY) == [("Chad", "Moby", 10.0, 1, 1)]


def test_slower_run_does_not_replace_newer_rankings(
    harness: IngestHarness, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Regression: a run that started earlier replaced newer rankings by its older ones, and published them."""
    harness.drop(USER_DATA, "u.csv", USERS + "1,Chad,5\n")
    harness.drop(USER_TOP_ARTISTS, "a.csv", ARTISTS + "1,1,Moby,5,\n")
    materialize(harness, instance)

    class OvertakenEngine(DuckDBEngine):
        def write(self, rows: ir.Table, table: Table, folder: Path) -> list[Path]:
            """Let another run load a file and finish first."""
            if not harness.landing.files(USER_DATA):
                harness.drop(USER_DATA, "later.csv", USERS + "1,Mali,5\n")
                assert materialize(harness, instance).success
            return super().write(rows, table, folder)

    slower = IngestHarness(harness.root, OvertakenEngine(tmp_path))
    result = materialize(slower, instance, 'key:"artist_rank_in_country"', raise_on_error=False)
    assert not result.success
    failure = result.failure_data_for_node("artist_rank_in_country")
    assert failure is not None
    assert (
        "processed_parquet_artist_rank_in_country: another run has computed it from newer user_data. Nothing was "
        "changed. Run again once no other run is in progress."
    ) in failure.error.to_string()
    assert harness.rows(ARTIST_RANK_IN_COUNTRY, "country") == [("Mali",)]
    uncommitted = {str(path) for path in harness.store.folder(ARTIST_RANK_IN_COUNTRY).rglob("*.parquet")}
    assert len(uncommitted) == 2, "the first rankings, which are kept for a while, and the newest"


def test_recreated_input_is_ranked(harness: IngestHarness, instance: dg.DagsterInstance) -> None:
    """Versions start at 0 again after someone deleted a table to deliver all files again."""
    harness.drop(USER_TOP_ARTISTS, "a.csv", ARTISTS + "1,1,Moby,5,\n")
    for country in ("Chad", "Mali"):
        harness.drop(USER_DATA, "u.csv", USERS + f"1,{country},5\n")
        assert materialize(harness, instance).success
    shutil.rmtree(harness.store.folder(USER_DATA))
    harness.drop(USER_DATA, "u.csv", USERS + "1,Togo,5\n")
    assert materialize(harness, instance).success
    assert harness.rows(ARTIST_RANK_IN_COUNTRY, "country") == [("Togo",)]
