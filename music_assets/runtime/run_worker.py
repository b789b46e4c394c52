"""The process of a run, started before there is one: it loads what every run needs, and waits for its command.

Of this package nothing is loaded before the command comes, so that a run always works with the code as it is by then.
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
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pydantic_settings",
    "scipy",
    "sqlalchemy.dialects.sqlite",
    "upath.implementations.local",
)
"""What a refresh imports, down to what it imports late. All of it would take a new process two seconds.

But for Polars: how many threads it uses is settled when it is loaded, and that is a setting of the run.
"""


def main() -> None:
    """Read one line from standard input, the arguments of the command `dagster` as a JSON array, and run it.

    Ends without a word where the line never comes: whoever started this process is gone. It always ends at once; to
    clear away every object first, as Python does, would take up to a second.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for name in LIBRARIES:
        import_module(name)
    gc.freeze()  # else each collection during the run would look through all that was loaded
    line = sys.stdin.readline()
    code = _dagster(json.loads(line)) if line else 0
    atexit._run_exitfuncs()  # scratch folders go by it
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _dagster(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    from dagster._cli import main as dagster

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
