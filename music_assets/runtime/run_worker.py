"""Worker process of a run: imports the libraries, then waits for the command of the run.

It imports nothing of this package before the command arrives, so that a run always uses the current code.
"""

import atexit
import gc
import json
import os
import signal
import sys
from importlib import import_module

LIBRARIES = (
    "alembic.command",
    "dagster._cli",
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.sqlite_storage",
    "deltalake",
    "ibis.backends.duckdb.converter",
    "ibis.formats.pandas",
    "inotify_simple",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pydantic_settings",
    "scipy",
    "sqlalchemy.dialects.sqlite",
    "threadpoolctl",
    "upath.implementations.local",
)
"""The libraries a refresh imports, including deferred imports: two seconds in a new process.

Without Polars, which reads its number of threads, a setting of the run, when it is imported.
"""


def main() -> None:
    """Read the arguments of the command `dagster`, a JSON array on one line of standard input, and run it.

    Exits silently at the end of the input, which means that the launcher has exited. Exits without the clean-up of the
    interpreter, which takes up to a second.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for name in LIBRARIES:
        import_module(name)
    gc.freeze()  # else each garbage collection during the run scans all these objects
    line = sys.stdin.readline()
    code = _run_dagster(json.loads(line)) if line else 0
    atexit._run_exitfuncs()  # they remove scratch folders
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run_dagster(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    from dagster._cli import main as dagster

    from music_assets.runtime.run_history import keep_open

    keep_open()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[1:] = arguments
    try:
        dagster()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    return 1


if __name__ == "__main__":
    main()
