"""Changes of the log of a Delta table on S3: made in a copy of the log on this machine, then uploaded.

delta-rs reads the log several times for each commit. In a copy that takes no request. The upload of the new entry with
If-None-Match is the commit.
"""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from music_assets.data_root import DataRoot, Scratch, identity
from music_assets.object_store import ObjectChangedError, ObjectStore

LOG_FOLDER = "_delta_log"
ENTRY = re.compile(r"\d{20}\.json")
ATTEMPTS = 15
"""Attempts to commit while other processes commit to the same table."""
Result = TypeVar("Result")


def change_log(root: DataRoot, store: ObjectStore, table_folder: Path, change: Callable[[Path], Result]) -> Result:
    """Let `change` change a copy of the table, which has its log only; upload the changes, and return the result.

    If another process commits meanwhile, `change` is called again on a copy with its commit, where delta-rs detects
    conflicts. Raises ObjectChangedError if other processes are always first.
    """
    log = table_folder / LOG_FOLDER
    scratch = Scratch(root.scratch)
    for attempt in range(1, ATTEMPTS + 1):
        copy = Path(tempfile.mkdtemp(dir=scratch.folder))
        before = root.link(log, copy / LOG_FOLDER)
        result = change(copy)
        try:
            _upload(store, root.relative(log), copy / LOG_FOLDER, before)
            root.refresh(log)
            return result
        except ObjectChangedError:
            root.refresh(log)
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def _upload(store: ObjectStore, log: str, copy: Path, before: dict[str, tuple[int, int]]) -> None:
    """Upload what is new in the copy of a log, the commit first, and delete what it lacks."""
    after = {path.name: path for path in copy.iterdir()}
    new = sorted(name for name, path in after.items() if before.get(name) != identity(path))
    for name in sorted(new, key=lambda each: not ENTRY.fullmatch(each)):
        if ENTRY.fullmatch(name):
            _create(store, f"{log}/{name}", after[name].read_bytes())
        else:
            store.upload(after[name], f"{log}/{name}")
    store.delete([f"{log}/{name}" for name in before.keys() - after.keys()])


def _create(store: ObjectStore, key: str, entry: bytes) -> None:
    try:
        store.write(key, entry, create=True)
    except ObjectChangedError:
        if store.read(key) != entry:  # otherwise it was written, and the answer was lost
            raise
