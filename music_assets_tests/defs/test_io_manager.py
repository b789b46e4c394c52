"""The I/O manager, between real assets: what one returns the next one reads, and which versions it read is known."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import ibis
import pytest

from music_assets.defs.assets import rankings
from music_assets.defs.assets import raw_tables as raw_parquet
from music_assets.defs.assets.published_snapshot import music_db
from music_assets.defs.io_manager import DeltaIOManager
from music_assets.storage.lineage import COVERED
from music_assets.storage.published_snapshot import INPUTS, Publisher
from music_assets.tables import ARTIST_RANK_IN_COUNTRY, COUNTRY_RANK_PER_ARTIST, TABLES, USER_DATA, USER_TOP_ARTISTS
from music_assets_tests.support.data_root import DataRoot

ASSETS = [*dg.load_assets_from_modules([raw_parquet, rankings]), music_db]
USERS = "user_id,country,total_scrobbles\n"
ARTISTS = "user_id,rank,artist_name,playcount,mbid\n"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def materialize(data_root: DataRoot, instance: dg.DagsterInstance, selection: str = "*") -> dg.ExecuteInProcessResult:
    io_manager = DeltaIOManager(data_root.store, data_root.engine, data_root.engine, TABLES, {}, retention_hours=168)
    return dg.materialize(
        ASSETS,
        instance=instance,
        selection=selection,
        resources={
            "io_manager": io_manager,
            "store": data_root.store,
            "engine": data_root.engine,
            "reader": data_root.engine,
            "ingest": data_root.ingest,
            "publisher": Publisher(data_root.store, "200MB", 1),
        },
    )


def test_assets_read_what_the_ones_before_committed(data_root: DataRoot, instance: dg.DagsterInstance) -> None:
    data_root.drop(USER_DATA, "u.csv", USERS + "1,Chad,5\n2,Germany,1\n")
    data_root.drop(USER_TOP_ARTISTS, "a.csv", ARTISTS + "1,1,Moby,5,\n2,1,Moby,1,\n2,2,Zaz,3,\n")
    result = materialize(data_root, instance)
    assert data_root.rows(COUNTRY_RANK_PER_ARTIST) == [
        ("Chad", "Moby", 5.0, 1.0, 1),
        ("Germany", "Moby", 1.0, 0.25, 2),
        ("Germany", "Zaz", 3.0, 0.75, 1),
    ]

    versions = {table.name: data_root.store.snapshot(table).version for table in TABLES}
    inputs = {name: versions[name] for name in ("user_data", "user_top_artists")}
    assert data_root.store.metadata(ARTIST_RANK_IN_COUNTRY, INPUTS) == [inputs]
    assert data_root.store.metadata(COUNTRY_RANK_PER_ARTIST, INPUTS) == [
        {"artist_rank_in_country": versions["artist_rank_in_country"]}
    ]
    (shown,) = result.asset_materializations_for_node("artist_rank_in_country")
    assert shown.metadata["dagster/row_count"].value == 3
    assert shown.metadata["table version"].value == versions["artist_rank_in_country"]

    data_root.drop(USER_DATA, "later.csv", USERS + "1,Germany,5\n")
    materialize(data_root, instance, 'key:"raw_parquet/user_data" or key:"music_db"')
    materialize(data_root, instance, 'key:"artist_rank_in_country"')
    assert data_root.rows(ARTIST_RANK_IN_COUNTRY) == [("Germany", "Moby", 6.0, 1), ("Germany", "Zaz", 3.0, 2)]
    assert len(data_root.rows(COUNTRY_RANK_PER_ARTIST)) == 3


def test_result_that_cannot_be_computed_changes_nothing(data_root: DataRoot, instance: dg.DagsterInstance) -> None:
    data_root.drop(USER_DATA, "u.csv", USERS + "1,Chad,5\n")
    data_root.drop(USER_TOP_ARTISTS, "a.csv", ARTISTS + "1,1,Moby,5,\n")
    materialize(data_root, instance)
    before = data_root.store.snapshot(ARTIST_RANK_IN_COUNTRY)
    folders = sorted(data_root.store.folder(ARTIST_RANK_IN_COUNTRY).glob("part-*"))

    @dg.asset(key=dg.AssetKey(ARTIST_RANK_IN_COUNTRY.asset_key))
    def not_castable():
        table = data_root.engine.read(USER_DATA, data_root.store.snapshot(USER_DATA).files)
        return table.select("country", artist_name="country", total_playcount="country", rank="country")

    io_manager = DeltaIOManager(data_root.store, data_root.engine, data_root.engine, TABLES, {}, retention_hours=168)
    result = dg.materialize(
        [not_castable], instance=instance, resources={"io_manager": io_manager}, raise_on_error=False
    )
    assert not result.success
    assert data_root.store.snapshot(ARTIST_RANK_IN_COUNTRY) == before
    assert sorted(data_root.store.folder(ARTIST_RANK_IN_COUNTRY).glob("part-*")) == folders


def mark(data_root: DataRoot, metadata: dict) -> None:
    """Replace the ranking by one with a total that stands in no file: where it shows later, it was built upon."""
    marked = ibis.memtable([("Chad", "Zaz", 1000.0, 1)], schema=ARTIST_RANK_IN_COUNTRY.schema)
    folder = data_root.store.new_folder(ARTIST_RANK_IN_COUNTRY)
    files = data_root.engine.write(marked, ARTIST_RANK_IN_COUNTRY, folder)
    data_root.store.replace(ARTIST_RANK_IN_COUNTRY, files, metadata)


def carried(data_root: DataRoot) -> dict:
    return {key: data_root.store.metadata(ARTIST_RANK_IN_COUNTRY, key)[0] for key in (INPUTS, COVERED)}


def test_a_small_drop_builds_upon_a_ranking_only_where_its_commit_tells_what_it_covers(
    data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    def drop(name: str, plays: int) -> None:
        data_root.drop(USER_TOP_ARTISTS, name, ARTISTS + f"1,1,Moby,{plays},\n")
        materialize(data_root, instance, '+key:"artist_rank_in_country"')

    data_root.drop(USER_DATA, "u.csv", USERS + "".join(f"{user},Chad,5\n" for user in range(1, 11)))
    drop("first.csv", 5)
    mark(data_root, carried(data_root))
    drop("second.csv", 7)
    assert data_root.rows(ARTIST_RANK_IN_COUNTRY) == [("Chad", "Zaz", 1000.0, 1), ("Chad", "Moby", 2.0, 2)]

    mark(data_root, {INPUTS: {name: version + 1 for name, version in carried(data_root)[INPUTS].items()}})
    drop("third.csv", 8)
    assert data_root.rows(ARTIST_RANK_IN_COUNTRY) == [("Chad", "Moby", 8.0, 1)]

    (file,) = data_root.store.snapshot(ARTIST_RANK_IN_COUNTRY).files
    Path(file).write_bytes(Path(file).read_bytes()[:-5])
    drop("fourth.csv", 9)
    assert data_root.rows(ARTIST_RANK_IN_COUNTRY) == [("Chad", "Moby", 9.0, 1)]


def test_rankings_of_a_slower_run_do_not_replace_those_of_newer_rows(
    data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    """A run that had begun before another one put its older rankings over the newer ones, and published them."""
    data_root.drop(USER_DATA, "u.csv", USERS + "1,Chad,5\n")
    data_root.drop(USER_TOP_ARTISTS, "a.csv", ARTISTS + "1,1,Moby,5,\n")
    materialize(data_root, instance)

    @dg.asset(
        key=dg.AssetKey(ARTIST_RANK_IN_COUNTRY.asset_key),
        ins={name: dg.AssetIn(dg.AssetKey(["raw_parquet", name])) for name in ("user_data", "user_top_artists")},
    )
    def overtaken(user_data, user_top_artists):
        data_root.drop(USER_DATA, "later.csv", USERS + "1,Mali,5\n")
        assert materialize(data_root, instance).success
        return rankings.artist_rank_in_country(
            store=data_root.store,
            engine=data_root.engine,
            reader=data_root.engine,
            user_data=user_data,
            user_top_artists=user_top_artists,
        )

    io_manager = DeltaIOManager(data_root.store, data_root.engine, data_root.engine, TABLES, {}, retention_hours=168)
    result = dg.materialize(
        [overtaken, raw_parquet.user_data, raw_parquet.user_top_artists],
        instance=instance,
        selection="artist_rank_in_country",
        resources={"io_manager": io_manager, "ingest": data_root.ingest},
        raise_on_error=False,
    )
    assert not result.success
    failure = result.failure_data_for_node("artist_rank_in_country")
    assert failure is not None
    assert (
        "processed_parquet_artist_rank_in_country: another run has computed it from newer user_data. Nothing was "
        "changed; run again if no other run is at work."
    ) in failure.error.to_string()
    assert data_root.rows(ARTIST_RANK_IN_COUNTRY, "country") == [("Mali",)]
    uncommitted = {str(path) for path in data_root.store.folder(ARTIST_RANK_IN_COUNTRY).rglob("*.parquet")}
    assert len(uncommitted) == 2, "the first rankings, which are kept for a while, and the newest"


def test_an_input_that_was_begun_anew_is_ranked_again(data_root: DataRoot, instance: dg.DagsterInstance) -> None:
    """Versions begin with 0 again where a person has removed a table to deliver all of it anew."""
    data_root.drop(USER_TOP_ARTISTS, "a.csv", ARTISTS + "1,1,Moby,5,\n")
    for country in ("Chad", "Mali"):
        data_root.drop(USER_DATA, "u.csv", USERS + f"1,{country},5\n")
        assert materialize(data_root, instance).success
    shutil.rmtree(data_root.store.folder(USER_DATA))
    data_root.drop(USER_DATA, "u.csv", USERS + "1,Togo,5\n")
    assert materialize(data_root, instance).success
    assert data_root.rows(ARTIST_RANK_IN_COUNTRY, "country") == [("Togo",)]
