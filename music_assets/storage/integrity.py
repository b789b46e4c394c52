"""Damage to a table: compares its log, its parquet files, and what was published. Changes nothing that lasts.

Reads file by file before it trusts a library with the log as a whole.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from music_assets.data_root import DamagedTableError, DataRoot
from music_assets.storage.delta import PART, DeltaStore, read_log_entry
from music_assets.storage.lineage import FILES, removed_rows
from music_assets.storage.log_upload import LOG_FOLDER
from music_assets.storage.published_snapshot import NothingPublishedError, newest_snapshot
from music_assets.tables import Table


@dataclass(frozen=True)
class DamagedFile:
    """A damaged file of a table, the problem, and the CSV files whose rows it contained, as far as the log says."""

    address: str
    problem: str
    csv_files: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.address} {self.problem}"


@dataclass(frozen=True)
class StrayFiles:
    """Files in a table's folder that its newest version does not refer to: written by this project, and others."""

    unreferenced: tuple[Path, ...] = ()
    foreign: tuple[Path, ...] = ()


def damaged_files(store: DeltaStore, table: Table) -> list[DamagedFile]:
    """Return the damaged files of the table; none if the table does not exist.

    Of files on S3, copies on this machine that are damaged are deleted or fetched again.
    """
    log = store.log_folder(table)
    damaged_entries = list(_damaged_log_entries(store.root, log))
    if damaged_entries and store.root.store:  # perhaps only the copy is
        store.root.refetch(log)
        damaged_entries = list(_damaged_log_entries(store.root, log))
    if damaged_entries:
        return damaged_entries
    try:
        truncated = truncated_log(store, table)
        return [truncated] if truncated else list(_damaged_parquet_files(store, table))
    except Exception as error:  # deltalake refuses some logs whose entries can all be read
        return [DamagedFile(store.root.address(log), f"cannot be read: {_first_line(error)}")]


def refuse_damaged(store: DeltaStore, tables: Iterable[Table]) -> None:
    """Raise DamagedTableError if one of the tables is damaged."""
    for table in tables:
        for damage in damaged_files(store, table):
            raise DamagedTableError(f"{damage}. Repair this first: `music-assets doctor` says how.")


def truncated_log(store: DeltaStore, table: Table) -> DamagedFile | None:
    """Return the log of a raw table, or of rejected_rows, that has fewer rows than were published.

    A table is not damaged if its folder was deleted, if it was created again, or if its rows were removed on request.
    """
    try:
        shown = newest_snapshot(store.root).tables.get(table.full_name)
    except NothingPublishedError:
        return None
    if shown is None or table.sort_by:  # a computed table may shrink
        return None
    found = store.table_version(table)
    same_table = found.table_id == shown.table_id if found.version >= 0 else _has_folder(store, table)
    if not same_table or found.rows >= shown.rows:
        return None
    if found.rows + removed_rows(store, table, since=shown.version) >= shown.rows:
        return None
    log = store.root.address(store.folder(table) / LOG_FOLDER)
    return DamagedFile(log, f"has {found.rows} rows, but {shown.rows} were published")


def stray_files(store: DeltaStore, table: Table) -> StrayFiles:
    """Return the files in the folder of a table with an intact log that are not part of its newest version."""
    folder = store.folder(table)
    referenced = {Path(file) for file in store.table_version(table).paths}
    others = [
        path
        for path in store.root.files_below(folder)
        if path not in referenced and path.relative_to(folder).parts[0] != LOG_FOLDER
    ]
    ours = [path for path in others if path.parent != folder and path.relative_to(folder).parts[0].startswith(PART)]
    return StrayFiles(tuple(ours), tuple(path for path in others if path not in ours))


def _damaged_log_entries(root: DataRoot, log: Path) -> Iterator[DamagedFile]:
    """Yield the entries of a log that are missing or cannot be read, from its last checkpoint on."""
    entries = {int(path.stem): path for path in log.glob("*.json") if path.stem.isdigit()}
    checkpoints = {int(path.name.split(".")[0]): path for path in log.glob("*.checkpoint*.parquet")}
    checkpoint = max(checkpoints, default=-1)
    if checkpoint >= 0 and (problem := _footer_problem(checkpoints[checkpoint])):
        yield DamagedFile(root.address(checkpoints[checkpoint]), problem)
    for version in range(checkpoint + 1, max(entries, default=-1) + 1):
        if version not in entries:
            yield DamagedFile(root.address(log / f"{version:020}.json"), "is missing")
            continue
        try:
            read_log_entry(entries[version])
        except DamagedTableError:
            yield DamagedFile(root.address(entries[version]), "is empty or cut off")


def _damaged_parquet_files(store: DeltaStore, table: Table) -> Iterator[DamagedFile]:
    """Yield the parquet files of the newest version that are missing, or differ from what was committed."""
    delta = store.open(table)
    if delta is None:
        return
    folder = store.folder(table)
    sizes = store.root.files_below(folder)
    adds = pa.table(delta.get_add_actions(flatten=True)).select(["path", "size_bytes", "num_records"])
    for add in adds.to_pylist():
        path = folder / add["path"]
        problem = _size_problem(sizes.get(path), add["size_bytes"])
        if not problem and (not store.root.store or path.exists()):
            problem = _footer_problem(path, add["num_records"])
            if problem and store.root.store:  # S3 checks the content of what it stores: this is a copy
                path.unlink()
                continue
        if problem:
            yield DamagedFile(store.root.address(path), problem, _csv_files(folder / LOG_FOLDER, add["path"]))


def _has_folder(store: DeltaStore, table: Table) -> bool:
    folder = store.folder(table)
    return bool(store.root.files_below(folder)) if store.root.store else folder.exists()


def _size_problem(found: int | None, size: int) -> str:
    if found is None:
        return "is missing"
    return f"is {found} bytes long, but {size} were committed" if found != size else ""


def _footer_problem(path: Path, rows: int | None = None) -> str:
    try:
        footer = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read: {_first_line(error)}"
    return f"has {footer.num_rows} rows, but {rows} were committed" if rows not in (None, footer.num_rows) else ""


def _csv_files(log: Path, added: str) -> tuple[str, ...]:
    """Return the CSV files that were loaded by the commit that added a parquet file."""
    for entry in sorted(log.glob("*.json")):
        try:
            actions = read_log_entry(entry)
        except DamagedTableError:
            continue
        if any(action.get("add", {}).get("path") == added for action in actions):
            files = next((action["commitInfo"].get(FILES) for action in actions if "commitInfo" in action), None)
            return tuple(file["name"] for file in json.loads(files)) if files else ()
    return ()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
