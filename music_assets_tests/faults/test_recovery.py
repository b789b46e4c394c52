"""A real daemon recovers from runs that died."""

import dagster as dg
import psutil

from music_assets.storage.delta import DeltaStore
from music_assets.tables import USER_DATA
from music_assets_tests.faults.deployment import Deployment
from music_assets_tests.faults.kill_points import KillPoint
from music_assets_tests.faults.scenario import Scenario
from music_assets_tests.support.processes import wait_until
from music_assets_tests.support.published import published_rows


def test_daemon_recovers_from_runs_that_died_before_it_started_and_while_it_ran(scenario: Scenario) -> None:
    """A run that died together with its daemon stays `started` in Dagster; the sensor must not wait for its end."""
    deployment = scenario.deployment

    def is_published() -> bool:
        return published_rows(deployment.root) == scenario.expected.published

    def version() -> int:
        return DeltaStore(deployment.root).table_version(USER_DATA).version

    scenario.advance()
    assert scenario.kill_at(KillPoint.AFTER_COMMIT_OF_ROWS)
    (died,) = deployment.runs()
    assert died.status is dg.DagsterRunStatus.STARTED
    with deployment.daemon():
        wait_until(is_published, "recovery from a run that died before", log=deployment.log)
        assert statuses(deployment)[died.run_id] is dg.DagsterRunStatus.FAILURE
        before = version()
        scenario.advance()
        wait_until(lambda: version() > before, "the next run", log=deployment.log)
        (going,) = [run for run in deployment.runs() if not run.is_finished]
        psutil.Process(process_id(deployment, going)).kill()
        wait_until(is_published, "recovery from a run that died", log=deployment.log)
        wait_until(lambda: all(run.is_finished for run in deployment.runs()), "end of all runs", log=deployment.log)
    assert statuses(deployment)[going.run_id] is dg.DagsterRunStatus.FAILURE
    scenario.check_recovered()


def statuses(deployment: Deployment) -> dict[str, dg.DagsterRunStatus]:
    return {run.run_id: run.status for run in deployment.runs()}


def process_id(deployment: Deployment, run: dg.DagsterRun) -> int:
    with dg.DagsterInstance.from_config(str(deployment.home)) as instance:
        events = [entry.dagster_event for entry in instance.all_logs(run.run_id, dg.DagsterEventType.ENGINE_EVENT)]
    metadata = [event.engine_event_data.metadata for event in events if event]
    return next(int(str(each["pid"].value)) for each in metadata if "pid" in each)
