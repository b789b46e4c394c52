"""Real runs of the job in processes of their own, one of which may have to die on the way.

Each is what `dagster job execute -m music_assets.definitions -j JOB` runs, in a process of its own that is forked from
one which has imported everything: start-up would take most of the time otherwise, and nothing is touched during it.
"""

import json
import multiprocessing
import os
import shutil
import sys
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from signal import Signals

from music_assets.data_root import DataRoot
from music_assets.settings import PREFIX
from music_assets.tables import REFRESH_RANKINGS
from music_assets_tests.faults.points import Point, arm, count_arrivals

REPOSITORY = Path(__file__).parents[2]
SETTINGS = {"SETTLE_SECONDS": "0", "REJECT_FAIL_SHARE": "1", "THREADS": "1"}
PATIENCE = 300
"""Seconds after which a run that has not ended is taken to hang."""
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "alembic.command",
        "dagster._cli.job",
        "dagster._core.storage.local_compute_log_manager",
        "dagster._core.storage.sqlite_storage",
        "ibis.backends.duckdb",
        "matplotlib.backends.backend_agg",
        "music_assets.defs.build",
        "sqlalchemy.dialects.sqlite",
    ]
)


@dataclass(frozen=True)
class Arrival:
    """The n-th arrival at a point, and the signal that a run gets there."""

    point: Point
    number: int = 1
    sent: Signals = Signals.SIGKILL


@dataclass(frozen=True)
class Home:
    """A data root, and the DAGSTER_HOME of the runs on it."""

    root: DataRoot
    dagster: Path

    def __post_init__(self) -> None:
        self.dagster.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / "dagster.yaml", self.dagster)
        self.log.touch()

    @property
    def log(self) -> Path:
        """What its runs have printed."""
        return self.dagster / "runs.log"

    @property
    def arrivals(self) -> Path:
        """How often the last run that nobody disturbed came by each point, as JSON."""
        return self.dagster / "arrivals.json"

    def start(self, job: str = REFRESH_RANKINGS, fault: Arrival | None = None) -> ForkServerProcess:
        """Start a run of the job, which is killed, or stopped, at the fault."""
        process = PROCESSES.Process(target=_execute, args=(self, job, fault))
        process.start()
        return process

    def run(self, job: str = REFRESH_RANKINGS, fault: Arrival | None = None) -> int:
        """Run the job to its end; return its exit code, that is minus the number of the signal that killed it."""
        return ended(self.start(job, fault))

    def run_for(self, seconds: float) -> int:
        """Run the job for that long at most, then kill it."""
        process = self.start()
        process.join(seconds)
        process.kill()
        return ended(process)


def ended(process: ForkServerProcess) -> int:
    """Wait for a run to end; return its exit code."""
    process.join(PATIENCE)
    code = process.exitcode
    if code is None:
        process.kill()
        raise TimeoutError(f"the run has not ended after {PATIENCE} s")
    return code


def _execute(home: Home, job: str, fault: Arrival | None) -> None:
    log = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(REPOSITORY)
    os.environ |= {f"{PREFIX}{name}": value for name, value in SETTINGS.items()}
    os.environ |= {f"{PREFIX}DATA": str(home.root), "DAGSTER_HOME": str(home.dagster)}
    if fault:
        arm(fault.point, fault.number, fault.sent)
    counts = {} if fault else count_arrivals()
    from dagster._cli import main

    sys.argv = ["dagster", "job", "execute", "-m", "music_assets.definitions", "-j", job]
    try:
        main()
    finally:
        home.arrivals.write_text(json.dumps(counts))
