"""What stands in a data root, to compare with another one: tables, what is published, files moved aside and waiting."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow.parquet as pq

from music_assets.data_root import DataRoot
from music_assets.ingest.content_hash import content_hash
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import NothingPublishedError, connect, newest_snapshot
from music_assets.tables import RAW_TABLES, REJECTED_ROWS, TABLES, Table
from music_assets_tests.faults.drops import DroppedCsv
from music_assets_tests.support.ingest_harness import waiting_files

Rows = Counter[tuple]
PUBLISHED_VERSIONS = 2


@dataclass(frozen=True)
class State:
    """All rows of all tables but for the time they were taken at, and the files that were moved aside."""

    tables: Mapping[str, Rows]
    published: Mapping[str, Rows] | None
    rejected: Counter[str]

    @property
    def checksums(self) -> dict[str, str]:
        """The SHA-256 of each table's sorted rows, of each table's as published, and of the files moved aside."""
        shown = {f"published {name}": _digest(rows.elements()) for name, rows in (self.published or {}).items()}
        return {
            **{name: _digest(rows.elements()) for name, rows in self.tables.items()},
            **shown,
            "files moved aside": _digest(self.rejected.elements()),
        }

    def lost(self, expected: "State") -> int:
        """Return how many rows and files of the expected state are missing."""
        return sum((expected._counted - self._counted).values())

    def doubled(self, expected: "State") -> int:
        """Return how many rows and files there are beyond those of the expected state."""
        return sum((self._counted - expected._counted).values())

    @property
    def _counted(self) -> Counter:
        taken = [(name, *row) for name, rows in self.tables.items() for row in rows.elements()]
        return Counter(taken) + self.rejected


def state_of(root: DataRoot) -> State:
    """Read a data root."""
    store = DeltaStore(root)
    return State({table.full_name: rows_of(store, table) for table in TABLES}, published_rows(root), _rejected(root))


def rows_of(store: DeltaStore, table: Table) -> Rows:
    """Return the rows of the newest snapshot, read with plain pyarrow, without the time they were taken at."""
    names = [column.name for column in table.columns if column.name != "ingested_at"]
    files = store.table_version(table).files
    return Counter(tuple(row[name] for name in names) for file in files for row in pq.read_table(file).to_pylist())


def published_rows(root: DataRoot) -> dict[str, Rows] | None:
    """Return the rows of each table as published, without the time they were taken at; None: nothing is published."""
    try:
        newest_snapshot(root)
    except NothingPublishedError:
        return None
    with connect(root) as connection:
        return {
            table.full_name: Counter(
                connection.execute(
                    f"SELECT {', '.join(c.name for c in table.columns if c.name != 'ingested_at')} "
                    f"FROM {table.full_name}"
                ).fetchall()
            )
            for table in TABLES
        }


def check_nothing_lost(root: DataRoot, dropped: Iterable[DroppedCsv], expected: State) -> None:
    """Check what must hold at any moment: each file waits as it was, or is in, or was moved aside; never half of it."""
    store = DeltaStore(root)
    aside = {path.read_bytes() for path in root.rejected.glob("*") if not path.name.endswith("reason.txt")}
    for file in dropped:
        path = root.drop_folder(file.table) / file.name
        waits = path.exists() and path.read_bytes() == file.content
        taken = store.committed_ids(file.table, [hashlib.sha256(file.content).hexdigest()])
        assert waits or taken or file.content in aside, f"{file.name} is lost"
    for table in (*RAW_TABLES, REJECTED_ROWS):
        here, full = _rows_by_file(store, table), expected.tables[table.full_name]
        for source, rows in here.items():
            assert rows == Counter({row: n for row, n in full.items() if _source(table, row) == source}), source


def check_no_leftovers(root: DataRoot) -> None:
    """Check, after a run has ended and all is vacuumed, that no file is there that nothing refers to."""
    store = DeltaStore(root)
    for table in TABLES:
        store.vacuum(table, 0)
        folder = store.folder(table)
        found = {str(path) for path in folder.rglob("*") if path.is_file() and "_delta_log" not in path.parts}
        kept = set(store.table_version(table).files)
        assert found == kept, f"left over or lost in {table.full_name}: {found ^ kept}"
        assert all(any(part.iterdir()) for part in folder.glob("part-*")), f"empty folders in {folder}"
        odd = [path.name for path in folder.glob("_delta_log/*") if path.suffix not in (".json", ".parquet")]
        assert odd == [], f"left over in the log of {table.full_name}: {odd}"
    shown = newest_snapshot(root)
    versions = {path for path in root.snapshots.iterdir() if path.suffix == ".duckdb"}
    tell_of_them = {path.with_suffix(".json") for path in versions}
    others = {path.name for path in {*root.snapshots.iterdir()} - versions - tell_of_them}
    assert shown.path in versions
    assert len(versions) <= PUBLISHED_VERSIONS, f"{len(versions)} published versions"
    assert others == {"current.json"}, f"left over in music_db: {others}"
    scratch = [path for path in root.scratch.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert scratch == [], f"left over in the scratch folder: {scratch}"
    assert waiting_files(root) == []


def _rows_by_file(store: DeltaStore, table: Table) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for row, number in rows_of(store, table).items():
        found.setdefault(_source(table, row), Counter())[row] += number
    return found


def _source(table: Table, row: tuple) -> str:
    names = [column.name for column in table.columns if column.name != "ingested_at"]
    return row[names.index("source_file")]


def _rejected(root: DataRoot) -> Counter[str]:
    """The digests of the files that were moved aside."""
    files = [path for path in root.rejected.glob("*") if not path.name.endswith("reason.txt")]
    return Counter(content_hash(path) for path in files if path.stat().st_size)


def _digest(items: Iterable[object]) -> str:
    return hashlib.sha256("\n".join(sorted(map(repr, items))).encode()).hexdigest()
