"""The points at which a run is killed, all of them, and how a process is made to die at one.

Production code knows nothing of it: a point names a function that the run calls, of this project, of a library, or of
Python itself, and the process that is to die wraps it before the run begins.
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

BEFORE = "before"
AFTER = "after"
HALFWAY = "halfway"
"""After it, with the file that it wrote cut to half: as if it had died while writing."""


@dataclass(frozen=True)
class Call:
    """A call of a function (`module:name` or `module:Class.name`), and on which side of it the process dies.

    Of the first three arguments, one must be a table, a file or a path whose name holds `only`.
    """

    function: str
    when: str
    only: str = ""

    def concerns(self, arguments: tuple[Any, ...]) -> bool:
        """Tell whether a call with these arguments counts."""
        return any(self.only in str(getattr(argument, "name", "")) for argument in arguments[:3]) or not self.only


class Point(Enum):
    """Where a run can be killed, in the order in which a run comes by."""

    FILES_LISTED = Call("music_assets.ingest.landing:Landing.complete_files", AFTER)
    FILE_HASHED = Call("music_assets.ingest.content_hash:content_hash", AFTER)
    HEADER_READ = Call("music_assets.ingest.ingest:read_header", AFTER)
    REASON_UNWRITTEN = Call("pathlib:Path.write_text", BEFORE, "reason.txt")
    FILE_IN_REJECTED = Call("music_assets.ingest.quarantine:Quarantine.move", AFTER)
    PARQUET_HALF_WRITTEN = Call("ibis.backends.duckdb:Backend.to_parquet", HALFWAY)
    FILE_READ_EXACTLY = Call("music_assets.ingest.parser:write_text", AFTER)
    FILE_PARSED = Call("music_assets.ingest.parser:Parser.parse", AFTER)
    BEFORE_COMMIT_OF_REJECTS = Call("music_assets.storage.delta:DeltaStore.append", BEFORE, "rejected_rows")
    BEFORE_SYNC = Call("os:fsync", BEFORE)
    TABLE_CREATED = Call("deltalake:DeltaTable.create", AFTER)
    AFTER_COMMIT_OF_REJECTS = Call("music_assets.storage.delta:DeltaStore.append", AFTER, "rejected_rows")
    BEFORE_COMMIT_OF_ROWS = Call("music_assets.storage.delta:DeltaStore.append", BEFORE, "user_")
    COMMIT_UNSYNCED = Call("deltalake:DeltaTable.create_write_transaction", AFTER)
    AFTER_COMMIT_OF_ROWS = Call("music_assets.storage.delta:DeltaStore.append", AFTER, "user_")
    BEFORE_REMOVAL_OF_CSV = Call("pathlib:Path.unlink", BEFORE, ".csv")
    AFTER_REMOVAL_OF_CSV = Call("pathlib:Path.unlink", AFTER, ".csv")
    BEFORE_VACUUM = Call("deltalake:DeltaTable.vacuum", BEFORE)
    AFTER_VACUUM = Call("deltalake:DeltaTable.vacuum", AFTER)
    RANKING_WRITTEN = Call("music_assets.engines.duckdb:DuckDBEngine.write", AFTER, "rank")
    BEFORE_COMMIT_OF_RANKING = Call("music_assets.storage.delta:DeltaStore.replace", BEFORE)
    AFTER_COMMIT_OF_RANKING = Call("music_assets.storage.delta:DeltaStore.replace", AFTER)
    BEFORE_PUBLISHING = Call("music_assets.storage.publisher:Publisher.publish", BEFORE)
    WHILE_BUILDING = Call("music_assets.storage.publisher:_definition", AFTER)
    BUILT = Call("pathlib:Path.rename", BEFORE, "building")
    NAMED = Call("pathlib:Path.rename", AFTER, "building")
    POINTER_HALF_WRITTEN = Call("json:dump", AFTER, "current.json")
    BEFORE_POINTER = Call("pathlib:Path.replace", BEFORE, "current.json")
    AFTER_POINTER = Call("pathlib:Path.replace", AFTER, "current.json")
    BEFORE_REMOVAL_OF_OLD = Call("pathlib:Path.unlink", BEFORE, "music_db-")
    AFTER_REMOVAL_OF_OLD = Call("pathlib:Path.unlink", AFTER, "music_db-")
    PUBLISHED = Call("music_assets.storage.publisher:Publisher.publish", AFTER)


def arm(point: Point, arrival: int, sent: signal.Signals = signal.SIGKILL) -> None:
    """Let this process be killed, or stopped, when it comes by the point for the n-th time."""
    call: Call = point.value
    owner, name = _owner(call.function)
    real: Callable[..., Any] = getattr(owner, name)
    arrivals = itertools.count(1)

    @functools.wraps(real)
    def deadly(*arguments: Any, **named: Any) -> Any:
        here = call.concerns(arguments) and next(arrivals) == arrival
        if here and call.when == BEFORE:
            os.kill(os.getpid(), sent)
        result = real(*arguments, **named)
        if here and call.when == HALFWAY:
            target = next(argument for argument in reversed(arguments) if isinstance(argument, Path))
            os.truncate(target, target.stat().st_size // 2)
        if here and call.when != BEFORE:
            os.kill(os.getpid(), sent)
        return result

    setattr(owner, name, deadly)


def count_arrivals() -> dict[str, int]:
    """Count from now on how often this process comes by each point; return the counts, which go on growing."""
    counts = dict.fromkeys(Point.__members__, 0)
    for point in Point:
        _count(point, counts)
    return counts


def _count(point: Point, counts: dict[str, int]) -> None:
    call: Call = point.value
    owner, name = _owner(call.function)
    real: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(real)
    def counted(*arguments: Any, **named: Any) -> Any:
        counts[point.name] += call.when == BEFORE and call.concerns(arguments)
        result = real(*arguments, **named)
        counts[point.name] += call.when != BEFORE and call.concerns(arguments)
        return result

    setattr(owner, name, counted)


def _owner(function: str) -> tuple[Any, str]:
    module, path = function.split(":")
    *classes, name = path.split(".")
    return functools.reduce(getattr, classes, importlib.import_module(module)), name
