"""Run launcher: starts runs where their code is, terminates them, and supports health checks.

A run of a code location that a gRPC server provides on a TCP port is started by that server, which may be on another
machine and in another environment. All other runs are started on this machine, also those of a server on a Unix
socket, which is how `dagster dev` serves every location.

Prestarted: a worker process that has imported the libraries waits for the next run (`run_worker`); Dagster's default
launcher starts from scratch each time. The next worker starts when a run has ended, so as not to compete with it.

Health checks: `run_monitoring` in dagster.yaml marks a run as failed if its process has died, which Dagster's default
launcher cannot detect. Otherwise a run that died with its daemon would count as started forever, and block the next.
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
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult, ExecuteRunArgs
from dagster._serdes import deserialize_value

CLOCK_SECONDS = 1.0
"""Tolerance of a process's start time, which is derived from the boot time of the machine."""
WORKER = (sys.executable, "-m", "music_assets.runtime.run_worker")


class LocalRunLauncher(DefaultRunLauncher):
    """Launches, terminates and monitors runs, on this machine or through the code server of their location."""

    def __init__(self, inst_data: Any = None) -> None:
        super().__init__(inst_data)
        self._idle_worker: subprocess.Popen[str] | None = None
        self._disposed = False
        self._lock = threading.Lock()

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run in a worker, or, if it needs a server or another Python, as Dagster's default launcher does."""
        origin, run = context.job_code_origin, context.dagster_run
        if origin is None or origin.executable_path != sys.executable or _has_server(run):
            super().launch_run(context)
            return
        command = ExecuteRunArgs(origin, run.run_id, self._instance.get_ref()).get_command_args()
        worker = self._start_in_worker(command[command.index("api") :])
        threading.Thread(target=self._prestart_after, args=[worker], daemon=True).start()

    def _start_in_worker(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        with self._lock:
            worker, self._idle_worker = self._idle_worker, None
        if worker and _send(worker, arguments):
            return worker
        worker = _new_worker()
        _send(worker, arguments)
        return worker

    def _prestart_after(self, worker: subprocess.Popen[str]) -> None:
        """Start an idle worker when this one has ended, unless there is one already."""
        worker.wait()
        with self._lock:
            if not (self._idle_worker or self._disposed):
                self._idle_worker = _new_worker()

    def dispose(self) -> None:
        """Terminate the idle worker."""
        with self._lock:
            self._disposed = True
            if self._idle_worker:
                self._idle_worker.terminate()
                self._idle_worker.communicate()

    def terminate(self, run_id: str) -> bool:
        """Interrupt a run, including one started from the command line. Returns whether a process was interrupted."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if GRPC_INFO_TAG in run.tags:
            return super().terminate(run_id)
        self._instance.report_run_canceling(run)
        alive = [pid for pid, timestamp in self._processes(run) if _is_alive(pid, timestamp)]
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        return bool(alive)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Declare the health check to run monitoring."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether the run is alive, by the process ids in its event log, or according to its code server."""
        if _has_server(run):
            return self._health_on_server(run)
        processes = list(self._processes(run))
        if any(_is_alive(pid, timestamp) for pid, timestamp in processes):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if processes:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"process {processes[-1][0]} has died")
        record = self._instance.get_run_record_by_id(run.run_id)
        started = record.start_time if record else None
        if started is None or time.time() - started < self._instance.run_monitoring_start_timeout_seconds:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "no process has started the run")

    def _health_on_server(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether the code server executes the run. While the server is unreachable the run counts as alive."""
        client = self._get_grpc_client_for_termination(run.run_id)
        if client is None:  # it has ended meanwhile
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            reply = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id))
        except DagsterUserCodeUnreachableError:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if deserialize_value(reply, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the code server was restarted during the run")

    def _processes(self, run: dg.DagsterRun) -> Iterator[tuple[int, float]]:
        """Yield the id of each process of the run, and the time at which it was logged."""
        for entry in self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            event = entry.dagster_event
            pid = event.engine_event_data.metadata.get("pid") if event else None
            if pid is not None:
                yield int(str(pid.value)), entry.timestamp


def _has_server(run: dg.DagsterRun) -> bool:
    """Return whether the run's code location is served on a TCP port."""
    origin = run.remote_job_origin
    location = origin.repository_origin.code_location_origin if origin else None
    return isinstance(location, GrpcServerCodeLocationOrigin) and location.port is not None


def _new_worker() -> subprocess.Popen[str]:
    return subprocess.Popen(WORKER, stdin=subprocess.PIPE, text=True)  # noqa: S603


def _send(worker: subprocess.Popen[str], arguments: Sequence[str]) -> bool:
    """Send a worker the arguments of the command `dagster`. Returns whether the worker was alive to read them."""
    assert worker.stdin
    try:
        worker.stdin.write(json.dumps(arguments) + "\n")
        worker.stdin.close()
    except BrokenPipeError:
        return False
    return True


def _is_alive(pid: int, timestamp: float) -> bool:
    """Return whether the process that had this id at this time is alive; a later process may reuse the id."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= timestamp + CLOCK_SECONDS and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
