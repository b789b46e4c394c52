"""Delta tables: versions, concurrent commits, vacuum. Read back with plain deltalake and pyarrow."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from music_assets.data_root import DataRoot
from music_assets.storage.delta import ConcurrentCommitError, DeltaStore
from music_assets.tables import ARTIST_RANK_IN_COUNTRY, RAW_TABLES, REJECTED_ROWS, TABLES, USER_DATA, Table

HOUR = 3600


@pytest.fixture
def store(data_root: DataRoot) -> DeltaStore:
    return DeltaStore(data_root)


def written(store: DeltaStore, country: str, rows: int = 1) -> Path:
    """Write a parquet file of artist_rank_in_country without committing it."""
    return file_of(
        store,
        ARTIST_RANK_IN_COUNTRY,
        [
            {"country": country, "artist_name": f"artist {rank}", "total_playcount": 1.0, "rank": rank, "listeners": 1}
            for rank in range(1, rows + 1)
        ],
    )


def file_of(store: DeltaStore, table: Table, rows: list[dict]) -> Path:
    schema = pa.schema([field.with_nullable(True) for field in table.schema.to_pyarrow()])
    path = store.new_folder(table) / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return path


def countries(store: DeltaStore, version: int | None = None) -> list[str]:
    files = store.table_version(ARTIST_RANK_IN_COUNTRY, version).files
    return sorted(row["country"] for file in files for row in pq.read_table(file).to_pylist())


def test_missing_table_is_empty(store: DeltaStore) -> None:
    for table in TABLES:
        snapshot = store.table_version(table)
        assert (snapshot.version, snapshot.files, snapshot.rows, snapshot.latest_ingest) == (-1, (), 0, None)
        assert not store.transactions(table, ["anything"])
        assert store.commit_metadata(table, "files") == []
        assert store.vacuum(table, 0) == []


def test_readers_see_files_only_after_their_commit(store: DeltaStore) -> None:
    """A reader keeps the version it opened."""
    store.append(ARTIST_RANK_IN_COUNTRY, [written(store, "Chad", 2)], {}, {})
    snapshot = store.table_version(ARTIST_RANK_IN_COUNTRY)
    more = written(store, "Germany", 3)
    assert store.table_version(ARTIST_RANK_IN_COUNTRY) == snapshot
    store.append(ARTIST_RANK_IN_COUNTRY, [more], {}, {})
    assert snapshot.rows == sum(pq.read_metadata(file).num_rows for file in snapshot.files) == 2
    newer = store.table_version(ARTIST_RANK_IN_COUNTRY)
    assert (newer.rows, newer.version) == (5, snapshot.version + 1)
    assert newer.size_bytes == sum(Path(file).stat().st_size for file in newer.files)


def test_replace(store: DeltaStore) -> None:
    first = store.replace(ARTIST_RANK_IN_COUNTRY, [written(store, "Chad"), written(store, "Mali")])
    second = store.replace(ARTIST_RANK_IN_COUNTRY, [written(store, "Germany")])
    assert countries(store) == ["Germany"]
    assert countries(store, second) == ["Germany"]
    assert countries(store, first) == ["Chad", "Mali"]


def test_commit_metadata(store: DeltaStore) -> None:
    versions = [store.replace(ARTIST_RANK_IN_COUNTRY, [written(store, "x")], {"n": [n]}) for n in range(4)]
    assert store.commit_metadata(ARTIST_RANK_IN_COUNTRY, "n") == [[3], [2], [1], [0]]
    assert store.commit_metadata(ARTIST_RANK_IN_COUNTRY, "n", since=versions[1]) == [[3], [2]]
    assert store.commit_metadata(ARTIST_RANK_IN_COUNTRY, "n", upto=versions[1]) == [[1], [0]]
    assert store.commit_metadata(ARTIST_RANK_IN_COUNTRY, "n", since=versions[3]) == []
    assert store.commit_metadata(ARTIST_RANK_IN_COUNTRY, "other") == []


def test_vacuum_deletes_unreferenced_files_after_the_retention(store: DeltaStore) -> None:
    """Including files that were never committed, and tables with a checkpoint."""
    replaced = written(store, "Chad")
    store.replace(ARTIST_RANK_IN_COUNTRY, [replaced])
    current = written(store, "Germany")
    store.replace(ARTIST_RANK_IN_COUNTRY, [current])
    DeltaTable(str(store.folder(ARTIST_RANK_IN_COUNTRY))).create_checkpoint()
    fresh, stale = written(store, "fresh"), written(store, "stale")
    empty = store.new_folder(ARTIST_RANK_IN_COUNTRY)
    for path in (stale, stale.parent, current, empty):
        os.utime(path, (time.time() - 2 * HOUR,) * 2)

    store.vacuum(ARTIST_RANK_IN_COUNTRY, 3)
    assert all(path.exists() for path in (replaced, current, fresh, stale, empty))
    store.vacuum(ARTIST_RANK_IN_COUNTRY, 0.5)
    assert [path.exists() for path in (replaced, current, fresh, stale, empty)] == [True, True, True, False, False]
    store.vacuum(ARTIST_RANK_IN_COUNTRY, 0)
    assert [path.exists() for path in (replaced, current, fresh)] == [False, True, False]
    assert countries(store) == ["Germany"]
    assert [path.name for path in store.folder(ARTIST_RANK_IN_COUNTRY).glob("part-*")] == [current.parent.name]


@pytest.mark.parametrize("exists", [False, True], ids=["new table", "table with rows"])
@pytest.mark.parametrize("kind", ["same file", "other files", "replace"])
def test_concurrent_writers(store: DeltaStore, exists: bool, kind: str) -> None:
    """Regression: two writers that both created, or both replaced, an empty table both succeeded."""
    table = ARTIST_RANK_IN_COUNTRY
    if exists:
        store.replace(table, [written(store, "before")])
    both = threading.Barrier(2)
    done: list[str] = []

    def write(name: str) -> None:
        file = written(store, name)
        identity = "same" if kind == "same file" else name
        commit: Callable[[], int] = (
            (lambda: store.replace(table, [file]))
            if kind == "replace"
            else (lambda: store.append(table, [file], {identity: 1}, {}))
        )
        both.wait()
        for _ in range(5):
            try:
                commit()
            except ConcurrentCommitError:
                if kind == "other files":
                    continue
                return
            done.append(name)
            return

    writers = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    before = ["before"] if exists else []
    found = countries(store)
    if kind == "other files":
        assert found == ["a", "b", *before]
    elif kind == "same file":
        assert len(done) == 1
        assert found == sorted([*done, *before])
    else:
        assert len(found) == 1
        assert found[0] in done


def test_transaction_is_committed_once(store: DeltaStore) -> None:
    store.append(ARTIST_RANK_IN_COUNTRY, [written(store, "a")], {"x": 1, "y": 5}, {})
    assert store.transactions(ARTIST_RANK_IN_COUNTRY, ["y"]) == {"y": 5}
    assert store.transactions(REJECTED_ROWS, ["y"]) == {}
    message = "processed_parquet_artist_rank_in_country: another process committed the same files first"
    with pytest.raises(ConcurrentCommitError, match=message):
        store.append(ARTIST_RANK_IN_COUNTRY, [written(store, "b")], {"z": 1, "y": 6}, {})
    assert countries(store) == ["a"]
    assert store.transactions(ARTIST_RANK_IN_COUNTRY) == {"x": 1, "y": 5}


def test_transaction_is_replaced_if_it_has_the_expected_version(store: DeltaStore) -> None:
    """A lower version replaces a higher one: 0 marks contents that were retracted."""
    for version, expected in ((5, {}), (7, {"x": 5, "y": 3}), (0, {"x": 7})):
        store.append(ARTIST_RANK_IN_COUNTRY, [written(store, f"{version}")], {"x": version}, {}, expected)
        assert store.transactions(ARTIST_RANK_IN_COUNTRY) == {"x": version}
        store.create_checkpoint(ARTIST_RANK_IN_COUNTRY)
        assert store.transactions(ARTIST_RANK_IN_COUNTRY) == {"x": version}
    with pytest.raises(ConcurrentCommitError):
        store.append(ARTIST_RANK_IN_COUNTRY, [written(store, "late")], {"x": 8}, {}, {"x": 7})
    assert countries(store) == ["0", "5", "7"]


def test_transactions_before_and_after_checkpoints(store: DeltaStore) -> None:
    """The lookup scans the log once, not once for each id, which took ten seconds after ten thousand files."""
    for number in range(5):
        names = {f"first of {number}": number, f"second of {number}": -number}
        store.append(ARTIST_RANK_IN_COUNTRY, [written(store, "a")], names, {})
        if number in (1, 3):
            store.create_checkpoint(ARTIST_RANK_IN_COUNTRY)
    committed = {f"first of {number}": number for number in range(5)}
    committed |= {f"second of {number}": -number for number in range(5)}
    assert store.transactions(ARTIST_RANK_IN_COUNTRY, [*committed, "first of 5", "", '"']) == committed
    assert store.transactions(ARTIST_RANK_IN_COUNTRY) == committed
    assert store.transactions(ARTIST_RANK_IN_COUNTRY, []) == {}
    assert store.transactions(REJECTED_ROWS, committed) == {}
    with pytest.raises(ConcurrentCommitError):
        store.append(ARTIST_RANK_IN_COUNTRY, [written(store, "b")], {"first of 1": 1}, {})


@pytest.mark.parametrize("table", [*RAW_TABLES, REJECTED_ROWS], ids=lambda table: table.name)
def test_plain_deltalake_opens_raw_tables(store: DeltaStore, table: Table) -> None:
    store.append(table, [file_of(store, table, [{}])], {"x": 1}, {})
    delta = DeltaTable(str(store.folder(table)))
    assert delta.metadata().name == table.full_name
    declared = pa.schema(delta.schema().to_arrow())
    assert declared.names == [column.name for column in table.columns]


def test_plain_deltalake_reads_the_rows(store: DeltaStore, tmp_path: Path) -> None:
    store.replace(ARTIST_RANK_IN_COUNTRY, [written(store, "Chad", 2)])
    rows = pa.table(DeltaTable(str(store.folder(ARTIST_RANK_IN_COUNTRY))).to_pyarrow_table()).to_pylist()
    assert [row["artist_name"] for row in rows] == ["artist 1", "artist 2"]


def test_special_characters_in_the_path(tmp_path: Path) -> None:
    store = DeltaStore(DataRoot(tmp_path / "my data, 100% & [more]+é'#?*"))
    store.replace(ARTIST_RANK_IN_COUNTRY, [written(store, "Chad")])
    assert countries(store) == ["Chad"]
    assert store.table_version(USER_DATA).version == -1
