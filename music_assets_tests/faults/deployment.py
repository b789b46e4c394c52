"""A data root with its own DAGSTER_HOME, on which real runs and a real daemon work in processes of their own.

A run is what `dagster job execute -m music_assets.definitions -j JOB` does, in a process forked from one that has
imported everything. Starting a new interpreter would take most of the time, and touches nothing in the data root.
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from uuid import uuid4

import dagster as dg

from music_assets.data_root import DataRoot
from music_assets.runtime.dagster_home import INSTANCE_FILE
from music_assets.settings import PREFIX
from music_assets.tables import REFRESH_RANKINGS
from music_assets_tests.faults.kill_points import Fault, count_occurrences, inject
from music_assets_tests.support.processes import REPOSITORY, clean_environment, kill_tree
from music_assets_tests.support.s3_server import S3Server

SETTINGS = {"settle_seconds": 0, "reject_fail_share": 1.0, "threads": 1, "retry_pause": 1}
VARIABLES = {f"{PREFIX}{name.upper()}": str(value) for name, value in SETTINGS.items()}
TIMEOUT = 300
Work = str | tuple[str, ...]
"""The name of a job, or the arguments of `music-assets`."""
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
class Deployment:
    """A data root and a DAGSTER_HOME. Two deployments can share a data root."""

    root: DataRoot
    home: Path

    @classmethod
    def create(cls, folder: Path, s3: S3Server | None = None) -> "Deployment":
        """Return a deployment whose data root and home are in the folder, or whose data root is on S3."""
        root = s3.root(folder, uuid4().hex) if s3 else DataRoot(folder / "data")
        return cls(root, folder / "home")

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the processes."""
        s3 = {name: value for name, value in os.environ.items() if name.startswith("AWS_")} if self.root.store else {}
        return {**VARIABLES, **s3, **self.root.environment, "DAGSTER_HOME": str(self.home)}

    def lose(self) -> None:
        """Delete everything of the data root."""
        if self.root.store:
            self.root.remove(self.root.files_below(self.root.path))
        shutil.rmtree(self.root.path, ignore_errors=True)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        shutil.copy(INSTANCE_FILE, self.home)
        self.log.touch()

    @property
    def log(self) -> Path:
        """The output of all runs and daemons."""
        return self.home / "runs.log"

    @property
    def log_end(self) -> str:
        """The last lines of the log."""
        return self.log.read_text()[-3000:]

    @property
    def occurrences(self) -> Path:
        """How often the last run without a fault reached each kill point, as JSON."""
        return self.home / "occurrences.json"

    def start(self, work: Work = REFRESH_RANKINGS, fault: Fault | None = None) -> ForkServerProcess:
        """Start the work, with a fault or without."""
        process = PROCESSES.Process(target=_execute, args=(self, self.environment, work, fault))
        process.start()
        return process

    def run(self, work: Work = REFRESH_RANKINGS, fault: Fault | None = None) -> int:
        """Do the work to its end and return the exit code, which is negative if a signal killed the process."""
        return exit_code(self.start(work, fault))

    def run_for(self, seconds: float, work: Work = REFRESH_RANKINGS) -> int:
        """Start the work, kill it after `seconds` unless it has ended, and return the exit code."""
        process = self.start(work)
        process.join(seconds)
        process.kill()
        return exit_code(process)

    def runs(self) -> list[dg.DagsterRun]:
        """Return all runs that the DAGSTER_HOME has recorded."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            return list(instance.get_runs())

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """Run Dagster's daemon, which evaluates the sensor and launches runs, then kill it with all its children."""
        config = self.home / INSTANCE_FILE.name
        config.write_text(config.read_text().replace("poll_interval_seconds: 10", "poll_interval_seconds: 1"))
        self.runs()  # Creates Dagster's databases, which two processes must not do at the same time.
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dagster._daemon", "run", "-m", "music_assets.definitions"],
                cwd=REPOSITORY,
                env=clean_environment(self.root, **self.environment),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield
        finally:
            kill_tree(process)


def exit_code(process: ForkServerProcess) -> int:
    """Wait for a run to end and return its exit code."""
    process.join(TIMEOUT)
    code = process.exitcode
    if code is None:
        process.kill()
        raise TimeoutError(f"the run has not ended after {TIMEOUT} s")
    return code


def _execute(deployment: Deployment, environment: dict[str, str], work: Work, fault: Fault | None) -> None:
    log = os.open(deployment.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(REPOSITORY if isinstance(work, str) else deployment.home)
    os.environ |= environment
    if fault:
        inject(fault)
    counts = {} if fault else count_occurrences()
    if isinstance(work, str):
        from dagster._cli import main

        sys.argv = ["dagster", "job", "execute", "-m", "music_assets.definitions", "-j", work]
    else:
        from music_assets.cli import app as main

        sys.argv = ["music-assets", *work]
    try:
        main()
    finally:
        deployment.occurrences.write_text(json.dumps(counts))
