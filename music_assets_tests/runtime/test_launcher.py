"""The launcher: runs start in prestarted workers, can be terminated, and their processes are health-checked."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster import DagsterRunStatus
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget

from music_assets.runtime.dagster_home import INSTANCE_FILE
from music_assets.runtime.launcher import LocalRunLauncher
from music_assets.runtime.ports import free_port
from music_assets_tests.support.processes import TIMEOUT, kill_tree, wait_until

HOUR = 3600

PROJECT = """
import os, signal, time
from pathlib import Path
import dagster as dg

@dg.op
def op() -> None:
    {body}

@dg.job(executor_def=dg.in_process_executor)
def sample() -> None:
    op()
"""


@dg.job
def job() -> None: ...


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with the project's dagster.yaml."""
    shutil.copy(INSTANCE_FILE, tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def health(instance: dg.DagsterInstance, *pids: int, seconds_ago: float = 0) -> WorkerStatus:
    """Return the health of a run that started this long ago in these processes."""
    run = instance.create_run_for_job(job)
    timestamp = time.time() - seconds_ago
    events = [DagsterEvent(dg.DagsterEventType.RUN_START.value, "job")]
    for pid in pids:
        event = DagsterEvent(
            dg.DagsterEventType.ENGINE_EVENT.value, "job", event_specific_data=EngineEventData.in_process(pid)
        )
        events.append(event)
    for event in events:
        instance.report_dagster_event(event, run.run_id, timestamp=timestamp)
    assert isinstance(instance.run_launcher, LocalRunLauncher)
    return instance.run_launcher.check_run_worker_health(run).status


def ended_process() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_a_run_is_healthy_while_one_of_its_processes_lives(instance: dg.DagsterInstance) -> None:
    assert health(instance, os.getpid()) is WorkerStatus.RUNNING
    assert health(instance, ended_process(), os.getpid()) is WorkerStatus.RUNNING


def test_a_run_is_lost_when_its_process_has_ended(instance: dg.DagsterInstance) -> None:
    assert health(instance, ended_process()) is WorkerStatus.NOT_FOUND


def test_a_run_is_lost_when_its_process_is_a_zombie(instance: dg.DagsterInstance) -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert health(instance, process.pid) is WorkerStatus.NOT_FOUND
    process.wait()


def test_a_later_process_with_the_same_id_does_not_count(instance: dg.DagsterInstance) -> None:
    assert health(instance, os.getpid(), seconds_ago=24 * HOUR) is WorkerStatus.NOT_FOUND


def test_a_run_without_a_process_is_lost_after_the_start_timeout(instance: dg.DagsterInstance) -> None:
    assert health(instance) is WorkerStatus.RUNNING
    assert health(instance, seconds_ago=HOUR) is WorkerStatus.NOT_FOUND


def workers() -> list[psutil.Process]:
    """Return the live worker processes of this process, idle or busy."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # also raised for a zombie
            if "music_assets.runtime.run_worker" in child.cmdline():
                found.append(child)
    return found


class Project:
    """A module with one job, and an instance that runs it."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.folder = folder
        self.instance = instance

    def write(self, body: str) -> Path:
        """Write the module."""
        file = self.folder / "sample_project.py"
        file.write_text(PROJECT.format(body=body))
        return file

    def launch(self, body: str, executable: str | None = None) -> str:
        """Write the module, launch a run of its job, and return the run id."""
        self.write(body)
        job = dg.reconstructable(import_module("sample_project").sample)
        origin = job.get_python_origin()
        if executable:
            repository = origin.repository_origin._replace(executable_path=executable)
            origin = origin._replace(repository_origin=repository)
        run = self.instance.create_run_for_job(job.get_definition(), job_code_origin=origin)
        self.instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
        return run.run_id

    def pid_of_run(self, name: str) -> int:
        """Run a job that writes its process id to a file of this name, and return the id."""
        file = self.folder / name
        run_id = self.launch(f"Path({str(file)!r}).write_text(str(os.getpid()))")
        assert self.wait_for(run_id) == DagsterRunStatus.SUCCESS
        return int(file.read_text())

    def worker_after(self, pid: int) -> psutil.Process:
        """Wait until the worker with this process id has ended, and return the next one."""
        wait_until(lambda: [worker.pid for worker in workers()] not in ([], [pid]), "the next worker")
        (worker,) = workers()
        return worker

    def wait_for(self, run_id: str) -> DagsterRunStatus:
        """Wait for the end of a run and return its status."""
        wait_until(
            lambda: self.status(run_id) in (DagsterRunStatus.SUCCESS, DagsterRunStatus.CANCELED), "the end of the run"
        )
        return self.status(run_id)

    def status(self, run_id: str) -> DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run
        return run.status


@pytest.fixture
def project(tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    return Project(folder, instance)


def test_a_run_starts_in_the_idle_worker(project: Project) -> None:
    worker = project.worker_after(project.pid_of_run("first"))
    assert project.pid_of_run("second") == worker.pid


def test_concurrent_runs_have_separate_workers(project: Project) -> None:
    together = project.folder / "together"
    together.mkdir()
    body = (
        f"Path({str(together)!r}, str(os.getpid())).touch()\n"
        f"    while len(os.listdir({str(together)!r})) < 2: time.sleep(0.05)"
    )
    runs = [project.launch(body) for _ in range(2)]
    assert [project.wait_for(run) for run in runs] == [DagsterRunStatus.SUCCESS] * 2
    wait_until(lambda: len(workers()) == 1, "one idle worker")


def test_a_dead_idle_worker_is_replaced(project: Project) -> None:
    worker = project.worker_after(project.pid_of_run("first"))
    worker.kill()
    wait_until(lambda: worker.status() == psutil.STATUS_ZOMBIE, "the end of the worker")
    assert project.pid_of_run("second") != worker.pid


def test_the_idle_worker_ends_with_the_instance(project: Project) -> None:
    assert project.wait_for(project.launch("pass")) == DagsterRunStatus.SUCCESS
    project.instance.run_launcher.dispose()
    wait_until(lambda: not workers(), "the end of all workers")


def test_a_run_is_terminated(project: Project) -> None:
    started = project.folder / "begun"
    run_id = project.launch(f"Path({str(started)!r}).touch(); time.sleep({TIMEOUT})")
    wait_until(started.exists, "the start of the run")
    assert project.instance.run_launcher.terminate(run_id)
    assert project.wait_for(run_id) == DagsterRunStatus.CANCELED


def test_a_run_of_the_command_line_is_terminated(project: Project) -> None:
    """Dagster's default launcher terminates only runs that it launched."""
    started = project.folder / "begun"
    file = project.write(f"Path({str(started)!r}).touch(); time.sleep({TIMEOUT})")
    command = [sys.executable, "-m", "dagster", "job", "execute", "-f", file, "-j", "sample"]
    home = {"DAGSTER_HOME": project.instance.root_directory}
    with subprocess.Popen(command, env={**os.environ, **home}, stderr=subprocess.DEVNULL) as process:
        wait_until(started.exists, "the start of the run")
        (run,) = project.instance.get_runs()
        assert project.instance.run_launcher.terminate(run.run_id)
        process.wait(TIMEOUT)
    assert project.status(run.run_id) == DagsterRunStatus.CANCELED


def test_a_finished_run_is_not_terminated(project: Project) -> None:
    run_id = project.launch("pass")
    project.wait_for(run_id)
    assert not project.instance.run_launcher.terminate(run_id)
    assert project.status(run_id) == DagsterRunStatus.SUCCESS


def test_a_run_without_a_live_process_is_left_to_run_monitoring(project: Project) -> None:
    run_id = project.launch("os.kill(os.getpid(), signal.SIGKILL)")
    wait_until(lambda: project.status(run_id) == DagsterRunStatus.STARTED, "the start of the run")
    wait_until(lambda: not project.instance.run_launcher.terminate(run_id), "a refusal to terminate")


def test_a_run_of_another_python_is_launched_by_dagster(project: Project) -> None:
    with pytest.raises(dg.DagsterInvariantViolationError, match="requires a workspace"):
        project.launch("pass", executable="/usr/bin/another-python")
    assert workers() == []


class CodeServer:
    """A gRPC server of the project's module on a TCP port, with PLACE=server in its environment."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.port = free_port()
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "dagster", "api", "grpc", "-h", "127.0.0.1", "-p", str(self.port)]
        command += ["-f", "sample_project.py"]
        self.process = subprocess.Popen(command, cwd=self.project.folder, env={**os.environ, "PLACE": "server"})
        with socket.socket() as client:
            wait_until(lambda: client.connect_ex(("127.0.0.1", self.port)) == 0, "the server", process=self.process)

    def launch(self) -> str:
        """Launch a run of the module's job, as the daemon does, and return the run id."""
        target = GrpcServerTarget(host="127.0.0.1", port=self.port, socket=None, location_name="sample")
        instance = self.project.instance
        with WorkspaceProcessContext(instance, target) as process_context:
            workspace = process_context.create_request_context()
            (repository,) = workspace.get_code_location("sample").get_repositories().values()
            remote = repository.get_full_job("sample")
            run = instance.create_run_for_job(
                dg.reconstructable(import_module("sample_project").sample).get_definition(),
                remote_job_origin=remote.get_remote_origin(),
                job_code_origin=remote.get_python_origin(),
            )
            instance.run_launcher.launch_run(LaunchRunContext(run, workspace))
        return run.run_id


@pytest.fixture
def server(project: Project) -> Iterator[CodeServer]:
    place = project.folder / "place"
    project.write(f"Path({str(place)!r}).write_text(os.environ.get('PLACE', 'here')); time.sleep({TIMEOUT})")
    server = CodeServer(project)
    try:
        yield server
    finally:
        kill_tree(server.process)


def test_a_code_server_starts_its_runs_and_knows_whether_they_live(server: CodeServer, project: Project) -> None:
    """The server may be on another machine, where the process ids in the event log mean nothing."""
    run_id = server.launch()
    wait_until((project.folder / "place").exists, "the start of the run")
    assert (project.folder / "place").read_text() == "server"

    def status() -> WorkerStatus:
        return project.instance.run_launcher.check_run_worker_health(project.instance.get_run_by_id(run_id)).status

    assert status() is WorkerStatus.RUNNING
    kill_tree(server.process)
    assert status() is WorkerStatus.RUNNING, "the server may come back"
    server.start()
    assert status() is WorkerStatus.NOT_FOUND


def test_a_code_server_ends_its_runs_on_request(server: CodeServer, project: Project) -> None:
    run_id = server.launch()
    wait_until((project.folder / "place").exists, "the start of the run")
    assert project.instance.run_launcher.terminate(run_id)
    assert project.wait_for(run_id) == DagsterRunStatus.CANCELED
