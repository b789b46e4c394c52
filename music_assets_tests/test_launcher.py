"""Whether a run is alive, told by the process that wrote its number into the run's log."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.launcher import WorkerStatus

from music_assets.launcher import LocalRunLauncher

REPOSITORY = Path(__file__).parents[1]
HOUR = 3600


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
