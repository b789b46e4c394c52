"""Dagster's launcher of runs, made to start them sooner, to stop any of them, and to tell whether one is still alive.

Sooner: a worker stands by that has loaded what a run needs (`run_worker`); Dagster's own launcher starts from nothing
each time. The next one starts when the run has ended, so that it takes nothing from the run.

Alive: `run_monitoring` in dagster.yaml asks, and marks a run as failed whose process is gone. Dagster's own launcher
cannot tell. A run that died together with the daemon beside it, or that a person had started, would count as started
for ever, and no further refresh would start.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import dagster as dg
import psutil
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import ExecuteRunArgs

CLOCK_SECONDS = 1.0
"""By how much the start of a process, worked out from when the machine started, may be off."""
WORKER = (sys.executable, "-m", "music_assets.runtime.run_worker")


class LocalRunLauncher(DefaultRunLauncher):
    """Launches runs on this machine, stops them, and looks whether their processes are there."""

    def __init__(self, inst_data: Any = None) -> None:
        super().__init__(inst_data)
        self._standing_by: subprocess.Popen[str] | None = None
        self._disposed = False
        self._lock = threading.Lock()

    def launch_run(self, context: LaunchRunContext) -> None:
        """Give the run to the worker that stands by, or to a new one; Dagster's way where it needs another Python."""
        origin, run = context.job_code_origin, context.dagster_run
        if origin is None or origin.executable_path != sys.executable:
            super().launch_run(context)
            return
        command = ExecuteRunArgs(origin, run.run_id, self._instance.get_ref()).get_command_args()
        worker = self._begun(command[command.index("api") :])
        threading.Thread(target=self._replace, args=[worker], daemon=True).start()

    def _begun(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        with self._lock:
            worker, self._standing_by = self._standing_by, None
        if worker and _begin(worker, arguments):
            return worker
        worker = _new_worker()
        _begin(worker, arguments)
        return worker

    def _replace(self, worker: subprocess.Popen[str]) -> None:
        """Start the next worker once this one has ended, unless another stands by already."""
        worker.wait()
        with self._lock:
            if not (self._standing_by or self._disposed):
                self._standing_by = _new_worker()

    def dispose(self) -> None:
        """Let the worker that stands by go."""
        with self._lock:
            self._disposed = True
            if self._standing_by:
                self._standing_by.terminate()
                self._standing_by.communicate()

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run, whoever started it on this machine. Tells whether there was a process to interrupt."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if GRPC_INFO_TAG in run.tags:
            return super().terminate(run_id)
        self._instance.report_run_canceling(run)
        alive = [pid for pid, moment in self._processes(run) if _is_alive(pid, moment)]
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        return bool(alive)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Tell run monitoring that it may ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Tell whether the process of a run that has started is alive, by the number which it wrote into the log."""
        seen = list(self._processes(run))
        if any(_is_alive(pid, moment) for pid, moment in seen):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if seen:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"process {seen[-1][0]} has died")
        record = self._instance.get_run_record_by_id(run.run_id)
        started = record.start_time if record else None
        if started is None or time.time() - started < self._instance.run_monitoring_start_timeout_seconds:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "no process has begun to work on it")

    def _processes(self, run: dg.DagsterRun) -> Iterator[tuple[int, float]]:
        """Yield the number of each process that worked on the run, and when it said so."""
        for entry in self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            event = entry.dagster_event
            pid = event.engine_event_data.metadata.get("pid") if event else None
            if pid is not None:
                yield int(str(pid.value)), entry.timestamp


def _new_worker() -> subprocess.Popen[str]:
    return subprocess.Popen(WORKER, stdin=subprocess.PIPE, text=True)  # noqa: S603


def _begin(worker: subprocess.Popen[str], arguments: Sequence[str]) -> bool:
    """Hand the worker its command, the arguments of `dagster`. Tells whether it was there to take it."""
    assert worker.stdin
    try:
        worker.stdin.write(json.dumps(arguments) + "\n")
        worker.stdin.close()
    except BrokenPipeError:
        return False
    return True


def _is_alive(pid: int, moment: float) -> bool:
    """Tell whether the process that had this number at that moment is alive; the number may be another's by now."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= moment + CLOCK_SECONDS and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
