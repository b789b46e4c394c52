"""What is damaged in a table: its log, its parquet files, compared with each other and with what was published.

Looks only, and does so with as little as it can trust: file by file, before a library reads the log as a whole.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from music_assets.storage.delta import FILES, DeltaStore
from music_assets.storage.published_snapshot import NothingPublishedError, newest_snapshot
from music_assets.tables import Table

LOG = "_delta_log"


@dataclass(frozen=True)
class DamagedFile:
    """A damaged file of a table, what is wrong with it, and the CSV files whose rows it held, where the log knows."""

    path: Path
    problem: str
    csv_files: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.path} {self.problem}"


@dataclass(frozen=True)
class StrayFiles:
    """What lies in a table's folder beside its log: files that the newest version does not refer to."""

    unreferenced: tuple[Path, ...] = ()
    foreign: tuple[Path, ...] = ()


def damaged_files(store: DeltaStore, table: Table) -> list[DamagedFile]:
    """Return what is damaged in the table; nothing where all is well, or where there is no table yet."""
    folder = store.folder(table)
    in_log = list(_log_damage(folder / LOG)) if (folder / LOG).is_dir() else []
    if in_log:
        return in_log
    try:
        lost = truncated_log(store, table)
        return [lost] if lost else list(_file_damage(folder))
    except Exception as error:  # Whatever the library has against a log that reads well file by file.
        return [DamagedFile(folder / LOG, f"cannot be read: {str(error).splitlines()[0]}")]


def truncated_log(store: DeltaStore, table: Table) -> DamagedFile | None:
    """Return the log of a table of history that holds fewer rows than were published of it: it was cut off.

    A table whose folder is gone was removed on purpose, and so was one that was made anew.
    """
    try:
        shown = newest_snapshot(store.root).tables.get(table.full_name)
    except NothingPublishedError:
        return None
    if shown is None or table.sort_by:  # what is computed anew may come out smaller
        return None
    found = store.table_version(table)
    same_table = found.table_id == shown.table_id if found.version >= 0 else store.folder(table).exists()
    if not same_table or found.rows >= shown.rows:
        return None
    return DamagedFile(store.folder(table) / LOG, f"tells of {found.rows} rows, where {shown.rows} were published")


def stray_files(store: DeltaStore, table: Table) -> StrayFiles:
    """Return what lies in the folder of a table whose log can be read, and is not part of its newest version."""
    folder = store.folder(table)
    referenced = {Path(file) for file in store.table_version(table).files}
    others = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path not in referenced and path.relative_to(folder).parts[0] != LOG
    ]
    ours = [path for path in others if path.parent != folder and path.relative_to(folder).parts[0].startswith("part-")]
    return StrayFiles(tuple(ours), tuple(path for path in others if path not in ours))


def _log_damage(log: Path) -> Iterator[DamagedFile]:
    """Yield the entries of a log that are missing or cannot be read, from its last checkpoint on."""
    entries = {int(path.stem): path for path in log.glob("*.json") if path.stem.isdigit()}
    checkpoints = {int(path.name.split(".")[0]): path for path in log.glob("*.checkpoint*.parquet")}
    checkpoint = max(checkpoints, default=-1)
    if checkpoint >= 0 and (problem := _footer_problem(checkpoints[checkpoint])):
        yield DamagedFile(checkpoints[checkpoint], problem)
    for version in range(checkpoint + 1, max(entries, default=-1) + 1):
        if version not in entries:
            yield DamagedFile(log / f"{version:020}.json", "is missing")
        elif _actions(entries[version]) is None:
            yield DamagedFile(entries[version], "is empty or cut off")


def _actions(entry: Path) -> list[dict[str, Any]] | None:
    """Return the actions of a log entry; None where it cannot be read."""
    try:
        actions = [json.loads(line) for line in entry.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return None
    return actions if actions and all(isinstance(action, dict) for action in actions) else None


def _file_damage(folder: Path) -> Iterator[DamagedFile]:
    """Yield the parquet files of the newest version that are missing, or are not as they were when committed."""
    if not DeltaTable.is_deltatable(str(folder)):
        return
    adds = pa.table(DeltaTable(str(folder)).get_add_actions(flatten=True)).select(["path", "size_bytes", "num_records"])
    for add in adds.to_pylist():
        path = folder / add["path"]
        problem = _file_problem(path, add["size_bytes"], add["num_records"])
        if problem:
            yield DamagedFile(path, problem, _csv_files(folder / LOG, add["path"]))


def _file_problem(path: Path, size: int, rows: int) -> str:
    if not path.is_file():
        return "is missing"
    found = path.stat().st_size
    if found != size:
        return f"is {found} bytes long, where {size} were committed"
    return _footer_problem(path, rows)


def _footer_problem(path: Path, rows: int | None = None) -> str:
    try:
        footer = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read: {str(error).splitlines()[0]}"
    return f"has {footer.num_rows} rows, where {rows} were committed" if rows not in (None, footer.num_rows) else ""


def _csv_files(log: Path, added: str) -> tuple[str, ...]:
    """Return the CSV files that were taken in the commit that added a parquet file."""
    for entry in sorted(log.glob("*.json")):
        actions = _actions(entry) or []
        if any(action.get("add", {}).get("path") == added for action in actions):
            told = next((action["commitInfo"].get(FILES) for action in actions if "commitInfo" in action), None)
            return tuple(file["name"] for file in json.loads(told)) if told else ()
    return ()
