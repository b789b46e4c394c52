"""The points at which a refresh or a command can be killed, and how a process is made to die at one.

Production code has no hooks for this. A kill point names a function that the run calls, of this project, of a library
or of Python, and the process that has to die wraps that function before the run starts.
"""

import functools
import importlib
import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any


class When(Enum):
    """On which side of a call a process dies."""

    BEFORE = "before"
    AFTER = "after"
    HALFWAY = "halfway"
    """After the call, with the file that it wrote cut to half its size, as if the process had died while writing."""


@dataclass(frozen=True)
class Call:
    """A call of `function`, which is `module:name` or `module:Class.name`.

    Only calls count that have `only` in the name of a table or file, or in a path, among their first three arguments.
    """

    function: str
    when: When
    only: str = ""

    def matches(self, arguments: tuple[Any, ...]) -> bool:
        """Return whether a call with these arguments counts."""
        return any(self.only in _label(argument) for argument in arguments[:3])

    def wrap(self, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Replace the function, in this process, by what `wrapper` makes of it."""
        module, path = self.function.split(":")
        *classes, name = path.split(".")
        owner = functools.reduce(getattr, classes, importlib.import_module(module))
        real = getattr(owner, name)
        setattr(owner, name, functools.wraps(real)(wrapper(real)))


def _label(argument: object) -> str:
    return str(argument if isinstance(argument, Path | str) else getattr(argument, "name", ""))


class KillPoint(Enum):
    """Where a run can be killed, in the order in which a run reaches these points."""

    FILES_LISTED = Call("music_assets.ingest.landing:Landing.complete_files", When.AFTER)
    FILE_HASHED = Call("hashlib:file_digest", When.AFTER)
    HEADER_READ = Call("music_assets.ingest.ingest:read_header", When.AFTER)
    FAST_READER_HALFWAY = Call("music_assets.ingest.parser:convert", When.HALFWAY)
    PARQUET_HALF_WRITTEN = Call("ibis.backends.duckdb:Backend.to_parquet", When.HALFWAY)
    FILE_READ_EXACTLY = Call("music_assets.ingest.parser:write_text", When.AFTER)
    FILE_PARSED = Call("music_assets.ingest.parser:Parser.parse", When.AFTER)
    BEFORE_COMMIT_OF_REJECTS = Call("music_assets.storage.delta:DeltaStore.append", When.BEFORE, "rejected_rows")
    BEFORE_SYNC = Call("os:fsync", When.BEFORE)
    TABLE_CREATED = Call("deltalake:DeltaTable.create", When.AFTER)
    AFTER_COMMIT_OF_REJECTS = Call("music_assets.storage.delta:DeltaStore.append", When.AFTER, "rejected_rows")
    BEFORE_COMMIT_OF_ROWS = Call("music_assets.storage.delta:DeltaStore.append", When.BEFORE, "user_")
    COMMIT_UNSYNCED = Call("deltalake:DeltaTable.create_write_transaction", When.AFTER)
    AFTER_COMMIT_OF_ROWS = Call("music_assets.storage.delta:DeltaStore.append", When.AFTER, "user_")
    BEFORE_DELETION_OF_CSV = Call("pathlib:Path.unlink", When.BEFORE, ".csv")
    AFTER_DELETION_OF_CSV = Call("pathlib:Path.unlink", When.AFTER, ".csv")
    REASON_UNWRITTEN = Call("music_assets.data_root:DataRoot.write", When.BEFORE, "reason.txt")
    FILE_IN_REJECTED = Call("music_assets.ingest.quarantine:Quarantine.move", When.AFTER)
    REMAINING_ROWS_WRITTEN = Call("music_assets.storage.deletion:write_merged", When.AFTER)
    BEFORE_REMOVAL_OF_ROWS = Call("music_assets.storage.delta:DeltaStore.delete", When.BEFORE)
    AFTER_REMOVAL_OF_ROWS = Call("music_assets.storage.delta:DeltaStore.delete", When.AFTER)
    FILE_REDACTED = Call("music_assets.maintenance.forget:redact", When.AFTER)
    BEFORE_VACUUM = Call("deltalake:DeltaTable.vacuum", When.BEFORE)
    AFTER_VACUUM = Call("deltalake:DeltaTable.vacuum", When.AFTER)
    RANKING_WRITTEN = Call("music_assets.engines.duckdb:DuckDBEngine.write", When.AFTER, "rank")
    BEFORE_COMMIT_OF_RANKING = Call("music_assets.storage.delta:DeltaStore.replace", When.BEFORE)
    AFTER_COMMIT_OF_RANKING = Call("music_assets.storage.delta:DeltaStore.replace", When.AFTER)
    BEFORE_PUBLISHING = Call("music_assets.storage.publisher:Publisher.publish", When.BEFORE)
    SNAPSHOT_HALF_BUILT = Call("music_assets.storage.publisher:_create", When.AFTER)
    SNAPSHOT_BUILT = Call("pathlib:Path.rename", When.BEFORE, "building")
    SNAPSHOT_RENAMED = Call("pathlib:Path.rename", When.AFTER, "building")
    DESCRIPTION_UNWRITTEN = Call("pathlib:Path.open", When.AFTER, "music_db/.")
    BEFORE_POINTER = Call("os:replace", When.BEFORE, "current.json")
    AFTER_POINTER = Call("os:replace", When.AFTER, "current.json")
    BEFORE_DELETION_OF_OLD_SNAPSHOT = Call("pathlib:Path.unlink", When.BEFORE, "music_db-")
    AFTER_DELETION_OF_OLD_SNAPSHOT = Call("pathlib:Path.unlink", When.AFTER, "music_db-")
    PUBLISHED = Call("music_assets.storage.publisher:Publisher.publish", When.AFTER)
    STATISTICS_NOT_ERASED = Call("music_assets.data_root:DataRoot.write", When.BEFORE, "_delta_log")
    STATISTICS_UNWRITTEN = Call("pathlib:Path.open", When.AFTER, "_delta_log/.")
    COPY_UNSYNCED = Call("music_assets.maintenance.backup:sync", When.BEFORE)
    FILE_COPIED = Call("music_assets.maintenance.backup:_Copy.file", When.AFTER)
    MANIFEST_UNWRITTEN = Call("music_assets.maintenance.backup:durable_write", When.BEFORE)
    OBJECT_STAGED = Call("music_assets.ingest.object_landing:DroppedObject.stage", When.AFTER)
    BEFORE_UPLOAD = Call("music_assets.object_store:ObjectStore.upload", When.BEFORE)
    AFTER_UPLOAD = Call("music_assets.object_store:ObjectStore.upload", When.AFTER)
    BEFORE_LOG_OBJECT = Call("music_assets.object_store:ObjectStore.write", When.BEFORE, "_delta_log")
    AFTER_LOG_OBJECT = Call("music_assets.object_store:ObjectStore.write", When.AFTER, "_delta_log")
    BEFORE_DELETION_OF_CSV_OBJECT = Call("music_assets.object_store:ObjectStore.delete_unchanged", When.BEFORE, ".csv")
    AFTER_DELETION_OF_CSV_OBJECT = Call("music_assets.object_store:ObjectStore.delete_unchanged", When.AFTER, ".csv")
    BEFORE_POINTER_OBJECT = Call("music_assets.object_store:ObjectStore.write", When.BEFORE, "current.json")
    AFTER_POINTER_OBJECT = Call("music_assets.object_store:ObjectStore.write", When.AFTER, "current.json")


OBJECTS = [
    KillPoint.OBJECT_STAGED,
    KillPoint.BEFORE_UPLOAD,
    KillPoint.AFTER_UPLOAD,
    KillPoint.BEFORE_LOG_OBJECT,
    KillPoint.AFTER_LOG_OBJECT,
    KillPoint.BEFORE_DELETION_OF_CSV_OBJECT,
    KillPoint.AFTER_DELETION_OF_CSV_OBJECT,
    KillPoint.BEFORE_POINTER_OBJECT,
    KillPoint.AFTER_POINTER_OBJECT,
]
"""Points that are reached only with a data root on S3."""


@dataclass(frozen=True)
class Fault:
    """The signal that a run gets when it reaches a kill point for the n-th time."""

    point: KillPoint
    occurrence: int = 1
    sent: signal.Signals = signal.SIGKILL


def inject(fault: Fault) -> None:
    """Send this process the signal of the fault as soon as it reaches the kill point."""
    call: Call = fault.point.value
    occurrences = itertools.count(1)

    def wrapper(real: Callable[..., Any]) -> Callable[..., Any]:
        def deadly(*arguments: Any, **named: Any) -> Any:
            here = call.matches(arguments) and next(occurrences) == fault.occurrence
            if here and call.when is When.BEFORE:
                os.kill(os.getpid(), fault.sent)
            result = real(*arguments, **named)
            if here and call.when is When.HALFWAY:
                written = next(argument for argument in reversed(arguments) if isinstance(argument, Path))
                os.truncate(written, written.stat().st_size // 2)
            if here and call.when is not When.BEFORE:
                os.kill(os.getpid(), fault.sent)
            return result

        return deadly

    call.wrap(wrapper)


def count_occurrences() -> dict[str, int]:
    """Count how often this process reaches each kill point from now on. The returned counts are live."""
    counts = dict.fromkeys(KillPoint.__members__, 0)
    for point in KillPoint:
        _count(point, counts)
    return counts


def _count(point: KillPoint, counts: dict[str, int]) -> None:
    call: Call = point.value

    def wrapper(real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            before = call.when is When.BEFORE
            counts[point.name] += before and call.matches(arguments)
            result = real(*arguments, **named)
            counts[point.name] += not before and call.matches(arguments)
            return result

        return counted

    call.wrap(wrapper)
