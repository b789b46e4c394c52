"""Dagster's launcher of runs, which can also tell whether a run is still alive.

`run_monitoring` in dagster.yaml asks it, and marks a run as failed whose process is gone. Dagster's own launcher cannot
tell. A run that died together with the daemon beside it, or that a person had started, would count as started for ever,
and no further refresh would start.
"""

import time
from collections.abc import Iterator

import dagster as dg
import psutil
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus

CLOCK_SECONDS = 1.0
"""By how much the start of a process, worked out from when the machine started, may be off."""


class LocalRunLauncher(DefaultRunLauncher):
    """Launches runs on this machine, and looks whether their processes are there."""

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


def _is_alive(pid: int, moment: float) -> bool:
    """Tell whether the process that had this number at that moment is alive; the number may be another's by now."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= moment + CLOCK_SECONDS and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
