"""The drop folders of a data root on S3: objects, which are complete as soon as they are listed.

Objects are staged: fetched, then read locally. The ETag shows whether another object has replaced one since.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from music_assets.data_root import DataRoot, durable_write
from music_assets.ingest.csv_header import UTF8
from music_assets.ingest.file_kinds import is_in_progress, problem_of_name
from music_assets.ingest.file_names import numbered, printable
from music_assets.ingest.landing import IN_PROGRESS_SECONDS, DroppedFile, Landing
from music_assets.object_store import ObjectChangedError, ObjectInfo, ObjectStore
from music_assets.tables import RAW_TABLES, Table

STALE_SECONDS = 3_600
"""Age of an unfinished download from which on no process can be writing it."""
CREATED_AT_ONCE_BYTES = 64 << 20
"""Size up to which `place` writes an object only if its key is free; larger ones are sent in parts, after a look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedObject(DroppedFile):
    """A CSV object in a drop folder. `path` is where it is staged; what is staged never changes."""

    root: DataRoot = field(compare=False, repr=False)
    found: ObjectInfo

    @classmethod
    def of(cls, root: DataRoot, found: ObjectInfo) -> "DroppedObject":
        """Return the dropped file of an object."""
        etag = found.etag.strip('"').replace(":", "-")
        digest = hashlib.sha256(f"{found.key}\0{found.etag}\0{found.modified}".encode()).hexdigest()[:32]
        suffix = ".csv.gz" if found.key.lower().endswith(".gz") else ".csv"
        modified_ns = int(found.modified.timestamp() * 1e9)
        return cls(root.staging / f"{digest}{suffix}", found.size, modified_ns, etag, root=root, found=found)

    @property
    def name(self) -> str:
        """The last part of the key for display and for `source_file`."""
        return printable(self.found.key.rpartition("/")[2])

    @property
    def address(self) -> str:
        """Where users find the object."""
        return f"{self.root}/{self.found.key}"

    def is_unchanged(self) -> bool:
        """Return whether what is staged is the object that was listed or, if nothing is, whether it is still there."""
        return self._is_staged() or self._is_there()

    def stage(self) -> None:
        """Fetch the object, unless that was done. Raises FileNotFoundError if it is gone or replaced."""
        if self._is_staged():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with durable_write(self.path) as file:
                self._store.download(self.found, file)
        except ObjectChangedError:
            raise FileNotFoundError(2, "replaced by another object", self.address) from None

    def unstage(self) -> None:
        """Delete the staged copy."""
        self.path.unlink(missing_ok=True)

    def delete(self) -> bool:
        """Delete the object unless another has replaced it; return whether it was the one listed."""
        if self.root.conditional_delete:
            return self._store.delete_unchanged(self.found.key, self.found.etag)
        if not self._is_there():
            return False
        self._store.delete([self.found.key])
        return True

    def move(self, target: Path) -> None:
        """Write what was read to another key, then delete the object."""
        self.copy(target)
        self.delete()

    def copy(self, target: Path) -> None:
        """Write what was read to another key."""
        self.stage()
        self.root.put(self.path, target)

    def _is_there(self) -> bool:
        found = self._store.find(self.found.key)
        return found is not None and found.etag == self.found.etag

    def _is_staged(self) -> bool:
        return self.path.exists() and self.path.stat().st_size == self.size

    @property
    def _store(self) -> ObjectStore:
        assert self.root.store
        return self.root.store


class ObjectLanding(Landing):
    """The drop folders of a data root on S3."""

    def __init__(self, root: DataRoot, settle_seconds: float = 0.0, encoding: str = UTF8) -> None:
        super().__init__(root, settle_seconds, encoding)
        self._ignored: dict[Table, list[str]] = {}

    @property
    def tables(self) -> list[Table]:
        """The raw tables."""
        return list(RAW_TABLES)

    def files(self, table: Table) -> list[DroppedFile]:
        """Return every CSV object in the drop folder of the table, the oldest first. Raises ObjectStoreError."""
        folder = self.root.relative(self.root.drop_folder(table))
        files: list[DroppedFile] = []
        ignored: dict[str, str] = {}
        for found in self._store.list(folder):
            name = found.key.removeprefix(f"{folder}/")
            if problem := _problem(name, found):
                ignored[name] = problem
            elif not is_in_progress(name):
                files.append(DroppedObject.of(self.root, found))
        self._ignored[table] = sorted(f"{printable(name)}: {problem}" for name, problem in ignored.items())
        return sorted(files, key=lambda file: (file.modified_ns, file.name))

    def ignored(self, table: Table) -> list[str]:
        """Return what the last listing of the drop folder found that will not be loaded."""
        if table not in self._ignored:
            self.files(table)
        return self._ignored[table]

    def wait_for_files(self, seconds: float) -> None:
        """Return at once, since each look costs a request."""

    def complete_files(self, maximum_wait: float = inf) -> Mapping[Table, list[DroppedFile]]:
        """Return the files of each raw table, the oldest first."""
        return {table: self.files(table) for table in RAW_TABLES}

    def discard_stale(self, waiting: Iterable[DroppedFile]) -> None:
        """Delete staged copies, left by a process that died, of objects that do not wait any more."""
        current = {file.path for file in waiting}
        for path in self.root.staging.glob("*"):
            with suppress(FileNotFoundError):
                if path not in current and time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()

    def _copy_into(self, folder: Path, file: Path, progress: Callable[[int], None]) -> Path:
        for target in numbered(folder / printable(file.name)):
            try:
                if file.stat().st_size <= CREATED_AT_ONCE_BYTES:
                    self._store.write(self.root.relative(target), file.read_bytes(), create=True)
                elif self.root.exists(target):
                    continue
                else:
                    self.root.put(file, target)
            except ObjectChangedError:
                continue
            progress(file.stat().st_size)
            return target
        raise AssertionError("there is always another number")

    @property
    def _store(self) -> ObjectStore:
        assert self.root.store
        return self.root.store


def open_landing(root: DataRoot, settle_seconds: float = 0.0, encoding: str = UTF8) -> Landing:
    """Return the drop folders of a data root of either kind."""
    return (ObjectLanding if root.store else Landing)(root, settle_seconds, encoding)


def _problem(name: str, found: ObjectInfo) -> str | None:
    """Return why an object will not be loaded, and the remedy; None if it will, or is in progress."""
    if "/" in name:
        return "in a folder: move it into the drop folder itself"
    if is_in_progress(name):
        return problem_of_name(name) if time.time() - found.modified.timestamp() > IN_PROGRESS_SECONDS else None
    return problem_of_name(name)
