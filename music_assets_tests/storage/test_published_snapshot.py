"""The published snapshot: complete, consistent, replaced atomically, removed once no process reads it."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_assets.data_root import DataRoot
from music_assets.storage.delta import DeltaStore
from music_assets.storage.lineage import INPUTS
from music_assets.storage.published_snapshot import (
    NothingPublishedError,
    PublishedSnapshot,
    connect,
    locate_files,
    newest_snapshot,
)
from music_assets.storage.publisher import Publisher
from music_assets.tables import (
    ARTIST_EMBEDDING,
    ARTIST_RANK_IN_COUNTRY,
    COUNTRY_RANK_PER_ARTIST,
    PUBLISHED_TABLES,
    REJECTED_ROWS,
    USER_DATA,
    USER_EMBEDDING,
    USER_TOP_ARTISTS,
    Table,
)

RANKED = [("Germany", "Zaz", 5.0, 2, 1), ("Chad", "Moby", 7.0, 1, 3), ("Germany", "Moby", 9.0, 1, 2)]
READ_UNTIL_CLOSED = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
connection.execute("SELECT count(*) FROM processed_parquet_artist_rank_in_country").fetchall()
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def store(data_root: DataRoot) -> DeltaStore:
    return DeltaStore(data_root)


@pytest.fixture
def publisher(store: DeltaStore) -> Publisher:
    return Publisher(store, "200MB", 1)


def file_of(store: DeltaStore, table: Table, rows: list[tuple]) -> Path:
    schema = pa.schema([field.with_nullable(True) for field in table.schema.to_pyarrow()])
    path = store.new_folder(table) / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema), path)
    return path


def add_user(store: DeltaStore, user: int) -> int:
    row = (user, "Germany", 1, f"{user}.csv", datetime(2020, 1, 1))
    return store.append(USER_DATA, [file_of(store, USER_DATA, [row])], {str(user): 1}, {})


def rank(store: DeltaStore, inputs: dict[str, int], rows: list[tuple] = RANKED) -> int:
    """Replace the ranking by one file per row, so that the files are not in sort order."""
    files = [file_of(store, ARTIST_RANK_IN_COUNTRY, [row]) for row in rows]
    return store.replace(ARTIST_RANK_IN_COUNTRY, files, {INPUTS: inputs})


def ask(root: DataRoot, sql: str) -> list[tuple]:
    with connect(root) as connection:
        return connection.execute(sql).fetchall()


def snapshots(root: DataRoot) -> list[str]:
    return sorted(path.name for path in root.snapshots.glob("*.duckdb"))


def test_columns_that_an_older_release_did_not_write_are_null(store: DeltaStore, publisher: Publisher) -> None:
    rank(store, {})
    for file in store.table_version(ARTIST_RANK_IN_COUNTRY).files:
        pq.write_table(pq.read_table(file).drop_columns("listeners"), file)
    publisher.publish()
    expected = [(*row[:4], None) for row in (RANKED[1], RANKED[2], RANKED[0])]
    assert ask(store.root, "FROM processed_parquet_artist_rank_in_country") == expected


def test_error_if_nothing_is_published(tmp_path: Path) -> None:
    with pytest.raises(NothingPublishedError, match=r"Nothing is published below .*run the job refresh_rankings"):
        newest_snapshot(DataRoot(tmp_path))


def test_all_tables_are_published(store: DeltaStore, publisher: Publisher) -> None:
    """Empty tables have their columns; raw tables are views; rankings are copied and sorted."""
    add_user(store, 1)
    rank(store, {"user_data": 1})
    publisher.publish()
    kinds = dict(
        ask(store.root, "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'main'")
    )
    assert set(kinds) == {table.full_name for table in PUBLISHED_TABLES}
    assert kinds["raw_parquet_user_data"] == "VIEW"
    assert kinds["processed_parquet_artist_rank_in_country"] == "BASE TABLE"
    for table in PUBLISHED_TABLES:
        columns = [name for name, *_ in ask(store.root, f"DESCRIBE {table.full_name}")]
        assert columns == [column.name for column in table.columns]
    assert ask(store.root, "FROM processed_parquet_artist_rank_in_country") == [RANKED[1], RANKED[2], RANKED[0]]
    assert ask(store.root, "SELECT user_id, country FROM raw_parquet_user_data") == [(1, "Germany")]
    assert kinds["current_user_data"] == "VIEW"
    assert ask(store.root, "FROM current_user_data") == [(1, "Germany", 1)]
    assert ask(store.root, "FROM rejected_rows") == []


@pytest.mark.parametrize("empty", [True, False], ids=["no rows", "rows"])
def test_published_types(store: DeltaStore, publisher: Publisher, empty: bool) -> None:
    moment = datetime(2020, 1, 1)
    rows: dict[Table, tuple] = {
        USER_DATA: (1, "Chad", 1, "f", moment),
        USER_TOP_ARTISTS: (1, 1, "Moby", 1, "m", "f", moment),
        ARTIST_RANK_IN_COUNTRY: RANKED[0],
        COUNTRY_RANK_PER_ARTIST: ("Chad", "Moby", 1.0, 1.0, 1, 1),
        ARTIST_EMBEDDING: ("Moby", *(50 * [0.5]), 3, True),
        USER_EMBEDDING: (1, *(50 * [0.5])),
        REJECTED_ROWS: ("user_data", "f", 2, None, "why", "raw", moment),
    }
    if not empty:
        for table, row in rows.items():
            store.append(table, [file_of(store, table, [row])], {}, {})
    publisher.publish()
    types = {
        table.name: " ".join(kind for _, kind, *_ in ask(store.root, f"DESCRIBE {table.full_name}"))
        for table in PUBLISHED_TABLES
    }
    assert types == {
        "user_data": "INTEGER VARCHAR BIGINT VARCHAR TIMESTAMP",
        "user_top_artists": "INTEGER INTEGER VARCHAR BIGINT VARCHAR VARCHAR TIMESTAMP",
        "artist_rank_in_country": "VARCHAR VARCHAR DOUBLE INTEGER BIGINT",
        "country_rank_per_artist": "VARCHAR VARCHAR DOUBLE DOUBLE INTEGER BIGINT",
        "artist_embedding": "VARCHAR" + 50 * " DOUBLE" + " BIGINT BOOLEAN",
        "user_embedding": "INTEGER" + 50 * " DOUBLE",
        "rejected_rows": "VARCHAR VARCHAR BIGINT VARCHAR VARCHAR VARCHAR TIMESTAMP",
        "current_user_data": "INTEGER VARCHAR BIGINT",
        "current_user_top_artists": "INTEGER INTEGER VARCHAR BIGINT VARCHAR",
        "country_totals": "VARCHAR BIGINT DOUBLE BIGINT",
        "world_artists": "INTEGER VARCHAR DOUBLE BIGINT BIGINT VARCHAR",
        "distinctive_artists": "VARCHAR INTEGER VARCHAR DOUBLE BIGINT DOUBLE DOUBLE",
        "similar_countries": "VARCHAR INTEGER VARCHAR DOUBLE",
        "rank_changes": "VARCHAR VARCHAR INTEGER INTEGER VARCHAR",
    }


def test_current_views_read_the_published_version(store: DeltaStore, publisher: Publisher) -> None:
    """The second delivery of user 1 replaces the first in the view; the third is not published yet."""
    add_user(store, 1)
    add_user(store, 2)
    row = (1, "Chad", 5, "again.csv", datetime(2021, 1, 1))
    version = store.append(USER_DATA, [file_of(store, USER_DATA, [row])], {"again": 1}, {})
    result = publisher.publish()
    store.append(
        USER_DATA, [file_of(store, USER_DATA, [(1, "Mali", *row[2:4], datetime(2022, 1, 1))])], {"third": 1}, {}
    )
    assert ask(store.root, "FROM current_user_data ORDER BY user_id") == [(1, "Chad", 5), (2, "Germany", 1)]
    shown = result.tables["current_user_data"]
    assert (shown.version, shown.rows, shown.files) == (version, 2, ())
    with duckdb.connect() as other:
        other.execute(f"ATTACH '{result.path}' AS music_db (READ_ONLY)")
        locate_files(other, store.root)
        assert other.execute("SELECT country FROM music_db.current_user_data WHERE user_id = 1").fetchall() == [
            ("Chad",)
        ]


def test_pointer_describes_the_tables(store: DeltaStore, publisher: Publisher) -> None:
    version = add_user(store, 1)
    ranked = rank(store, {"user_data": version})
    result = publisher.publish()
    assert newest_snapshot(store.root) == result
    assert result.tables["raw_parquet_user_data"].version == version
    assert result.tables["raw_parquet_user_data"].files == store.table_version(USER_DATA).files
    shown = result.tables["processed_parquet_artist_rank_in_country"]
    assert (shown.version, shown.rows, shown.files) == (ranked, 3, ())


def test_raw_tables_are_published_in_the_version_of_the_rankings(store: DeltaStore, publisher: Publisher) -> None:
    """Users were loaded, then the run failed. The next snapshot must not contain users that the rankings ignore."""
    seen = add_user(store, 1)
    first = rank(store, {"user_data": seen})
    store.replace(
        COUNTRY_RANK_PER_ARTIST,
        [file_of(store, COUNTRY_RANK_PER_ARTIST, [])],
        {INPUTS: {"artist_rank_in_country": first}},
    )
    add_user(store, 2)
    result = publisher.publish()
    assert result.tables["raw_parquet_user_data"].version == seen
    assert ask(store.root, "SELECT user_id FROM raw_parquet_user_data") == [(1,)]

    newer = add_user(store, 3)
    rank(store, {"user_data": newer}, RANKED[:1])
    result = publisher.publish()
    assert result.tables["processed_parquet_artist_rank_in_country"].version == first
    assert result.tables["raw_parquet_user_data"].version == seen

    store.replace(
        COUNTRY_RANK_PER_ARTIST,
        [file_of(store, COUNTRY_RANK_PER_ARTIST, [])],
        {INPUTS: {"artist_rank_in_country": store.table_version(ARTIST_RANK_IN_COUNTRY).version}},
    )
    publisher.publish()
    assert ask(store.root, "SELECT user_id FROM raw_parquet_user_data ORDER BY 1") == [(1,), (2,), (3,)]
    assert ask(store.root, "SELECT count(*) FROM processed_parquet_artist_rank_in_country") == [(1,)]


def test_pointer_is_replaced_atomically(store: DeltaStore, publisher: Publisher) -> None:
    """A reader that opened the old pointer can read it to the end."""
    first = publisher.publish()
    with (store.root.snapshots / "current.json").open() as pointer:
        begun = pointer.read(10)
        second = publisher.publish()
        assert json.loads(begun + pointer.read())["file"] == first.path.name
    assert newest_snapshot(store.root).path == second.path
    assert second.data_version > first.data_version
    assert not list((store.root.snapshots).glob(".*"))


def test_newest_two_snapshots_are_kept(store: DeltaStore, publisher: Publisher) -> None:
    paths = [publisher.publish().path.name for _ in range(4)]
    assert snapshots(store.root) == paths[-2:]


def test_concurrent_publishers(store: DeltaStore) -> None:
    """Regression: one publisher wrote the pointer of another, and the older snapshot could become the newest."""
    rank(store, {})
    with ThreadPoolExecutor(4) as workers:
        made = list(workers.map(lambda _: Publisher(store, "200MB", 1).publish(), range(8)))
    newest = max(made, key=lambda each: each.data_version)
    assert newest_snapshot(store.root) == newest
    assert len({each.data_version for each in made}) == len(made)
    assert newest.path.name in snapshots(store.root)
    assert len(snapshots(store.root)) == 2


def test_unfinished_snapshot_is_removed(store: DeltaStore, publisher: Publisher) -> None:
    folder = store.root.snapshots
    (folder / ".building-20200101T000000.000000Z.duckdb.tmp").mkdir(parents=True)
    for suffix in ("", ".wal", ".tmp/spilled"):
        (folder / f".building-20200101T000000.000000Z.duckdb{suffix}").write_text("half")
    publisher.publish()
    assert not list(folder.glob(".*"))


def test_versions_increase_although_the_clock_is_behind(store: DeltaStore, publisher: Publisher) -> None:
    """Regression: the newest snapshot was removed as the oldest while the pointer named it."""
    for day in ("2999-12-30", "2999-12-31"):
        first = publisher.publish()
        first.path.rename(first.path.with_name(f"music_db-{day.replace('-', '')}T235959.999999Z.duckdb"))
    last = publisher.publish()
    assert last.data_version == "30000101T000000.000000Z"
    assert newest_snapshot(store.root) == last
    assert last.path.exists()


def test_snapshot_in_use_is_kept(store: DeltaStore, publisher: Publisher) -> None:
    rank(store, {})
    old = publisher.publish()
    with reading(old) as reader:
        newer = [publisher.publish().path.name for _ in range(3)]
        assert snapshots(store.root) == [old.path.name, *newer[-2:]]
        reader.communicate(timeout=60)
    last = publisher.publish()
    assert snapshots(store.root) == [newer[-1], last.path.name]


def reading(snapshot: PublishedSnapshot) -> subprocess.Popen[str]:
    """Start a process that keeps the snapshot open until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", READ_UNTIL_CLOSED, str(snapshot.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "open\n"
    return process


def test_computed_tables_keep_the_published_versions_and_one_more(store: DeltaStore, publisher: Publisher) -> None:
    """Each refresh kept both rankings for a day: 25 small drops grew them from 6 to 159 MB."""
    folder = store.folder(ARTIST_RANK_IN_COUNTRY)
    rank(store, {})
    publisher.publish()
    for _ in range(25):
        unread = store.table_version(ARTIST_RANK_IN_COUNTRY)
        rank(store, {})
        publisher.publish()
        assert all(Path(file).exists() for file in unread.files)
        assert len(list(folder.glob("part-*/*.parquet"))) <= 3 * len(RANKED)
        assert len(list(folder.glob("part-*"))) <= 3 * len(RANKED)
    two_before = store.table_version(ARTIST_RANK_IN_COUNTRY, unread.version - 1)
    assert all(Path(file).exists() for file in two_before.files)


def test_deleting_old_versions_spares_raw_tables_and_uncommitted_files(store: DeltaStore, publisher: Publisher) -> None:
    add_user(store, 1)
    users = store.table_version(USER_DATA)
    store.replace(USER_DATA, [file_of(store, USER_DATA, [])])
    written_by_another_run = file_of(store, ARTIST_RANK_IN_COUNTRY, RANKED[:1])
    for _ in range(5):
        rank(store, {})
        publisher.publish()
    assert written_by_another_run.exists()
    assert all(Path(file).exists() for file in users.files)


def test_snapshot_held_open_does_not_retain_old_versions(store: DeltaStore, publisher: Publisher) -> None:
    rank(store, {})
    with reading(publisher.publish()) as reader:
        for _ in range(6):
            rank(store, {})
            publisher.publish()
        assert len(list(store.folder(ARTIST_RANK_IN_COUNTRY).glob("part-*/*.parquet"))) <= 3 * len(RANKED)
        reader.communicate(timeout=60)


def test_snapshot_is_opened_read_only(store: DeltaStore, publisher: Publisher) -> None:
    published = publisher.publish()
    assert published.path.stat().st_mode & 0o222 == 0
    with connect(store.root) as connection, pytest.raises(duckdb.InvalidInputException, match="read-only"):
        connection.execute("CREATE TABLE other (n INT)")


def test_data_root_with_special_characters(tmp_path: Path) -> None:
    store = DeltaStore(DataRoot(tmp_path / "o'clock, 100% [new]*"))
    add_user(store, 1)
    Publisher(store, "200MB", 1).publish()
    assert ask(store.root, "SELECT user_id FROM raw_parquet_user_data") == [(1,)]
