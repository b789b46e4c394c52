"""The state of a data root, to compare with that of another one, and the promises that hold for it at any moment."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from music_assets.data_root import DataRoot
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import newest_snapshot
from music_assets.tables import RAW_TABLES, REJECTED_ROWS, TABLES, Table
from music_assets_tests.faults.drops import DroppedCsv
from music_assets_tests.support.ingest_harness import waiting_files
from music_assets_tests.support.published import Rows, compared_columns, published_rows

KEPT_SNAPSHOTS = 2


@dataclass(frozen=True)
class State:
    """All rows without `ingested_at` by table, stored and published, and the contents of rejected files."""

    tables: Mapping[str, Rows]
    published: Mapping[str, Rows] | None
    rejected_files: Counter[bytes]

    def differences(self, expected: "State") -> set[str]:
        """Return the names of the tables that differ, and `rejected files` if those do."""
        found, wanted = self._by_name(), expected._by_name()
        return {name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)}

    def missing(self, expected: "State") -> int:
        """Return how many rows and rejected files of the expected state are missing."""
        return (expected._items - self._items).total()

    def surplus(self, expected: "State") -> int:
        """Return how many rows and rejected files there are beyond the expected ones."""
        return (self._items - expected._items).total()

    def _by_name(self) -> dict[str, Counter]:
        published = {f"published {name}": rows for name, rows in (self.published or {}).items()}
        return {**self.tables, **published, "rejected files": self.rejected_files}

    @property
    def _items(self) -> Counter:
        rows = Counter((name, *row) for name, rows in self.tables.items() for row in rows.elements())
        return rows + self.rejected_files


def state_of(root: DataRoot) -> State:
    """Read the state of a data root."""
    store = DeltaStore(root)
    rejected = Counter(content for path in _rejected_files(root) if (content := root.read(path)))
    return State({table.full_name: rows_of(store, table) for table in TABLES}, published_rows(root), rejected)


def rows_of(store: DeltaStore, table: Table) -> Rows:
    """Return the rows of the newest version without `ingested_at`, read with plain pyarrow."""
    names = compared_columns(table)
    files = store.table_version(table).files
    return Counter(tuple(row[name] for name in names) for file in files for row in pq.read_table(file).to_pylist())


def check_nothing_lost(root: DataRoot, dropped: Iterable[DroppedCsv], expected: State) -> None:
    """Check that each file waits unchanged, or was loaded or rejected as a whole. This holds at any moment."""
    store = DeltaStore(root)
    rejected = {root.read(path) for path in _rejected_files(root)}
    for file in dropped:
        path = root.drop_folder(file.table) / file.name
        waits = root.exists(path) and root.read(path) == file.content
        loaded = store.transactions(file.table, [hashlib.sha256(file.content).hexdigest()])
        assert waits or loaded or file.content in rejected, f"{file.name} is lost"
    for table in (*RAW_TABLES, REJECTED_ROWS):
        complete = expected.tables[table.full_name]
        for source, rows in _rows_by_file(store, table).items():
            wanted = Counter({row: number for row, number in complete.items() if _source_file(table, row) == source})
            assert rows == wanted, source


def check_commits_are_whole(root: DataRoot, before: State, after: State) -> None:
    """Check that each raw table has the rows from before or after a command that removes rows."""
    store = DeltaStore(root)
    for table in (*RAW_TABLES, REJECTED_ROWS):
        assert rows_of(store, table) in (before.tables[table.full_name], after.tables[table.full_name])


def check_no_leftovers(root: DataRoot) -> None:
    """Check, after a run has ended, that a vacuum leaves only files that something refers to.

    On S3 older snapshots, and files that were never committed, stay for a while.
    """
    store = DeltaStore(root)
    if root.store:
        for table in TABLES:
            assert {Path(path) for path in store.table_version(table).paths} <= root.files_below(
                store.folder(table)
            ).keys()
        assert newest_snapshot(root).path in root.files_below(root.snapshots)
        assert waiting_files(root) == []
        return
    for table in TABLES:
        store.vacuum(table, 0)
        folder = store.folder(table)
        found = {str(path) for path in folder.rglob("*") if path.is_file() and "_delta_log" not in path.parts}
        assert found == set(store.table_version(table).files), f"leftovers or missing files in {table.full_name}"
        assert all(any(part.iterdir()) for part in folder.glob("part-*")), f"empty folders in {folder}"
        unexpected = [path.name for path in folder.glob("_delta_log/*") if path.suffix not in (".json", ".parquet")]
        assert unexpected == [], f"leftovers in the log of {table.full_name}"
    snapshots = {path for path in root.snapshots.iterdir() if path.suffix == ".duckdb"}
    assert newest_snapshot(root).path in snapshots
    assert len(snapshots) <= KEPT_SNAPSHOTS
    others = {path.name for path in root.snapshots.iterdir() if path.with_suffix(".duckdb") not in snapshots}
    assert others == {"current.json"}, "leftovers of publishing"
    scratch = [path for path in root.scratch.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert scratch == [], "leftovers in the scratch folder"
    assert waiting_files(root) == []


def _rows_by_file(store: DeltaStore, table: Table) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for row, number in rows_of(store, table).items():
        found.setdefault(_source_file(table, row), Counter())[row] += number
    return found


def _source_file(table: Table, row: tuple) -> str:
    return row[compared_columns(table).index("source_file")]


def _rejected_files(root: DataRoot) -> list[Path]:
    return [path for path in root.files_below(root.rejected) if not path.name.endswith("reason.txt")]
