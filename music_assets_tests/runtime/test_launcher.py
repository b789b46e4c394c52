"""Runs are started by workers that stand by, can be stopped, and are known to be alive by the numbers in their logs."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster import DagsterRunStatus
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.launcher import LaunchRunContext, WorkerStatus

from music_assets.runtime.launcher import LocalRunLauncher

REPOSITORY = Path(__file__).parents[2]
HOUR = 3600
PATIENCE = 60
"""Seconds after which what has not happened is taken never to happen."""

PROJECT = """
import os, signal, time
from pathlib import Path
import dagster as dg

@dg.op
def op() -> None:
    {body}

@dg.job(executor_def=dg.in_process_executor)
def made_up() -> None:
    op()
"""


@dg.job
def job() -> None: ...


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance as the project's dagster.yaml makes it."""
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def health(instance: dg.DagsterInstance, *pids: int, seconds_ago: float = 0) -> WorkerStatus:
    """What the launcher says of a run that started so long ago, and on which these processes began to work then."""
    run = instance.create_run_for_job(job)
    moment = time.time() - seconds_ago
    events = [DagsterEvent(dg.DagsterEventType.RUN_START.value, "job")]
    for pid in pids:
        event = DagsterEvent(
            dg.DagsterEventType.ENGINE_EVENT.value, "job", event_specific_data=EngineEventData.in_process(pid)
        )
        events.append(event)
    for event in events:
        instance.report_dagster_event(event, run.run_id, timestamp=moment)
    assert isinstance(instance.run_launcher, LocalRunLauncher)
    return instance.run_launcher.check_run_worker_health(run).status


def ended_process() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_a_run_whose_process_is_there_is_alive(instance: dg.DagsterInstance) -> None:
    assert health(instance, os.getpid()) is WorkerStatus.RUNNING
    assert health(instance, ended_process(), os.getpid()) is WorkerStatus.RUNNING


def test_a_run_whose_process_has_ended_is_not(instance: dg.DagsterInstance) -> None:
    assert health(instance, ended_process()) is WorkerStatus.NOT_FOUND


def test_a_run_whose_process_waits_to_be_buried_is_not(instance: dg.DagsterInstance) -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert health(instance, process.pid) is WorkerStatus.NOT_FOUND
    process.wait()


def test_a_later_process_of_the_same_number_is_another_one(instance: dg.DagsterInstance) -> None:
    assert health(instance, os.getpid(), seconds_ago=24 * HOUR) is WorkerStatus.NOT_FOUND


def test_a_run_on_which_no_process_works_has_a_while_to_begin(instance: dg.DagsterInstance) -> None:
    assert health(instance) is WorkerStatus.RUNNING
    assert health(instance, seconds_ago=HOUR) is WorkerStatus.NOT_FOUND


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def workers() -> list[psutil.Process]:
    """The workers below this process, standing by or at work; not those that have ended."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # of which a zombie is one
            if "music_assets.runtime.run_worker" in child.cmdline():
                found.append(child)
    return found


class Project:
    """A module with a job, in a folder of its own, and an instance that runs it."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.folder = folder
        self.instance = instance

    def write(self, body: str) -> Path:
        """Write the job anew."""
        file = self.folder / "made_up_project.py"
        file.write_text(PROJECT.format(body=body))
        return file

    def launch(self, body: str, executable: str | None = None) -> str:
        """Write the job anew, launch a run of it, and return the run's id."""
        self.write(body)
        job = dg.reconstructable(import_module("made_up_project").made_up)
        origin = job.get_python_origin()
        if executable:
            repository = origin.repository_origin._replace(executable_path=executable)
            origin = origin._replace(repository_origin=repository)
        run = self.instance.create_run_for_job(job.get_definition(), job_code_origin=origin)
        self.instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
        return run.run_id

    def number_of_the_process(self, name: str) -> int:
        """Run a job that writes the number of its process into a file of this name, and return it."""
        file = self.folder / name
        run_id = self.launch(f"Path({str(file)!r}).write_text(str(os.getpid()))")
        assert self.ended(run_id) == DagsterRunStatus.SUCCESS
        return int(file.read_text())

    def worker_after(self, pid: int) -> psutil.Process:
        """Wait until the worker of this number has ended, and return the one that stands by then."""
        until(lambda: [worker.pid for worker in workers()] not in ([], [pid]))
        (worker,) = workers()
        return worker

    def ended(self, run_id: str) -> DagsterRunStatus:
        """Wait for the end of a run."""
        until(lambda: self.status(run_id) in (DagsterRunStatus.SUCCESS, DagsterRunStatus.CANCELED))
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


def test_a_run_gets_the_worker_that_stands_by(project: Project) -> None:
    worker = project.worker_after(project.number_of_the_process("first"))
    assert project.number_of_the_process("second") == worker.pid


def test_two_runs_at_once_have_a_worker_each(project: Project) -> None:
    together = project.folder / "together"
    together.mkdir()
    body = (
        f"Path({str(together)!r}, str(os.getpid())).touch()\n"
        f"    while len(os.listdir({str(together)!r})) < 2: time.sleep(0.05)"
    )
    runs = [project.launch(body) for _ in range(2)]
    assert [project.ended(run) for run in runs] == [DagsterRunStatus.SUCCESS] * 2
    until(lambda: len(workers()) == 1)


def test_a_worker_that_died_while_it_stood_by_is_not_missed(project: Project) -> None:
    worker = project.worker_after(project.number_of_the_process("first"))
    worker.kill()
    until(lambda: worker.status() == psutil.STATUS_ZOMBIE)
    assert project.number_of_the_process("second") != worker.pid


def test_nobody_stands_by_once_the_instance_is_gone(project: Project) -> None:
    assert project.ended(project.launch("pass")) == DagsterRunStatus.SUCCESS
    project.instance.run_launcher.dispose()
    until(lambda: not workers())


def test_a_run_is_stopped(project: Project) -> None:
    begun = project.folder / "begun"
    run_id = project.launch(f"Path({str(begun)!r}).touch(); time.sleep({PATIENCE})")
    until(begun.exists)
    assert project.instance.run_launcher.terminate(run_id)
    assert project.ended(run_id) == DagsterRunStatus.CANCELED


def test_a_run_that_a_person_started_is_stopped(project: Project) -> None:
    """Dagster's own launcher knows only of those that it started."""
    begun = project.folder / "begun"
    file = project.write(f"Path({str(begun)!r}).touch(); time.sleep({PATIENCE})")
    command = [sys.executable, "-m", "dagster", "job", "execute", "-f", file, "-j", "made_up"]
    home = {"DAGSTER_HOME": project.instance.root_directory}
    with subprocess.Popen(command, env={**os.environ, **home}, stderr=subprocess.DEVNULL) as process:
        until(begun.exists)
        (run,) = project.instance.get_runs()
        assert project.instance.run_launcher.terminate(run.run_id)
        process.wait(PATIENCE)
    assert project.status(run.run_id) == DagsterRunStatus.CANCELED


def test_what_is_over_cannot_be_stopped(project: Project) -> None:
    run_id = project.launch("pass")
    project.ended(run_id)
    assert not project.instance.run_launcher.terminate(run_id)
    assert project.status(run_id) == DagsterRunStatus.SUCCESS


def test_a_run_whose_process_is_gone_is_left_to_run_monitoring(project: Project) -> None:
    run_id = project.launch("os.kill(os.getpid(), signal.SIGKILL)")
    until(lambda: project.status(run_id) == DagsterRunStatus.STARTED)
    until(lambda: not project.instance.run_launcher.terminate(run_id))


def test_a_run_for_another_python_goes_the_way_of_dagster(project: Project) -> None:
    with pytest.raises(dg.DagsterInvariantViolationError, match="requires a workspace"):
        project.launch("pass", executable="/usr/bin/another-python")
    assert workers() == []
