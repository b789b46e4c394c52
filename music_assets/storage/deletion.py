"""Deletion of rows of a Delta table on request. Only the parquet files that hold such rows are rewritten."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from music_assets.data_root import remove_unfinished
from music_assets.storage.compaction import write_merged
from music_assets.storage.delta import DeltaStore, read_log_entry
from music_assets.storage.lineage import REMOVED
from music_assets.tables import Table


def delete_rows(
    store: DeltaStore,
    table: Table,
    matching: pc.Expression,
    record: Mapping[str, Any],
    transactions: Mapping[str, int] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> int:
    """Delete the matching rows in one commit that carries the transactions, and return their number.

    The commit records the number of rows and `record` under the metadata key REMOVED, next to `metadata`. Without
    matching rows and transactions nothing is committed. The rows stay in older versions until they are vacuumed. Raises
    ConcurrentCommitError if another process removed one of the files meanwhile.
    """
    delta = store.open_for_deletion(table)
    if delta is None:
        return 0
    files, affected, rows = _without(store, table, delta, matching)
    if not affected and not transactions:
        return 0
    removed = {REMOVED: {"rows": rows, **record}, **(metadata or {})}
    store.delete(table, delta, files, affected, transactions or {}, removed)
    return rows


def replace_rows(
    store: DeltaStore, table: Table, matching: pc.Expression, added: Sequence[Path], metadata: Mapping[str, Any]
) -> None:
    """Replace the matching rows of an existing table by those of parquet files, in one commit.

    Raises ConcurrentCommitError as `delete_rows` does.
    """
    delta = store.open(table)
    if delta is None:
        raise FileNotFoundError(f"{table.full_name} does not exist.")
    files, affected, _ = _without(store, table, delta, matching)
    store.delete(table, delta, [*files, *added], affected, {}, metadata)


def _without(
    store: DeltaStore, table: Table, delta: DeltaTable, matching: pc.Expression
) -> tuple[list[Path], list[dict[str, Any]], int]:
    """Write the other rows of the files with matching rows; return the new files, the old ones, and the matches."""
    import pyarrow.dataset as ds  # loads pandas

    adds = pa.table(delta.get_add_actions(flatten=True)).sort_by("modification_time").to_pylist()
    paths = store.local_paths(table, adds)
    counts = {
        add["path"]: ds.dataset(str(path), format="parquet").count_rows(filter=matching)
        for add, path in zip(adds, paths, strict=True)
    }
    affected = [add for add in adds if counts[add["path"]]]
    kept = [store.folder(table) / add["path"] for add in affected if counts[add["path"]] < add["num_records"]]
    files = write_merged(kept, table, store.new_folder(table), keep=~matching) if kept else []
    for empty in [file for file in files if not pq.read_metadata(file).num_rows]:
        empty.unlink()
        files.remove(empty)
    return files, affected, sum(counts.values())


def erase_statistics(store: DeltaStore, table: Table) -> None:
    """Erase from the log the minima and maxima of files that the newest version does not refer to.

    They are values of rows that may have been deleted. Log entries are rewritten with the same actions, as are
    checkpoints: a new one replaces all others, if there are any. No other process may commit meanwhile.
    """
    delta = store.open(table)
    if delta is None:
        return
    live = {add["path"] for add in pa.table(delta.get_add_actions(flatten=True)).to_pylist()}
    log = store.log_folder(table)
    remove_unfinished(log)
    for entry in sorted(log.glob("*.json")):
        actions = read_log_entry(entry)
        erased = [_without_extremes(action, live) for action in actions]
        if erased != actions:
            store.root.write(entry, b"".join(json.dumps(action).encode() + b"\n" for action in erased))
    if checkpoints := set(log.glob("*.checkpoint*.parquet")):
        version = store.create_checkpoint(table)
        store.root.remove(checkpoints - {log / f"{version:020}.checkpoint.parquet"})
    store.root.refresh(log)


def _without_extremes(action: dict[str, Any], live: set[str]) -> dict[str, Any]:
    add = action.get("add")
    if not add or not add.get("stats") or add["path"] in live:
        return action
    stats = {"numRecords": json.loads(add["stats"])["numRecords"]}
    return {"add": {**add, "stats": json.dumps(stats)}}
