"""What a real daemon makes of runs that have died."""

from pathlib import Path

import dagster as dg
import psutil

from music_assets.data_root import DataRoot
from music_assets.storage.delta import DeltaStore
from music_assets.tables import USER_DATA
from music_assets_tests.faults.points import Point
from music_assets_tests.faults.runs import Home
from music_assets_tests.faults.state import published_rows
from music_assets_tests.faults.stations import daemon, runs_of, wait_for
from music_assets_tests.faults.story import Story, Undisturbed


def test_the_daemon_makes_good_what_died_before_it_began_and_what_dies_beside_it(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """A run that had died with everything around it counted as started for ever, and the sensor waited for its end."""
    story = Story(Home(DataRoot(tmp_path / "data"), tmp_path / "home"), undisturbed)
    home = story.home

    def is_published() -> bool:
        return published_rows(home.root) == story.expected.published

    story.drop()
    assert story.kill_at(Point.AFTER_COMMIT_OF_ROWS)
    (died,) = runs_of(home)
    assert died.status is dg.DagsterRunStatus.STARTED
    with daemon(home):
        wait_for(home, "recovery from a run that had died", is_published)
        assert statuses(home)[died.run_id] is dg.DagsterRunStatus.FAILURE
        before = DeltaStore(home.root).table_version(USER_DATA).version
        story.drop()
        wait_for(home, "the next run", lambda: DeltaStore(home.root).table_version(USER_DATA).version > before)
        (going,) = [run for run in runs_of(home) if not run.is_finished]
        psutil.Process(process_of(home, going)).kill()
        wait_for(home, "recovery from a run that died", is_published)
        wait_for(home, "the end of all runs", lambda: all(run.is_finished for run in runs_of(home)))
    assert statuses(home)[going.run_id] is dg.DagsterRunStatus.FAILURE
    story.check_recovered()


def statuses(home: Home) -> dict[str, dg.DagsterRunStatus]:
    return {run.run_id: run.status for run in runs_of(home)}


def process_of(home: Home, run: dg.DagsterRun) -> int:
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        events = [entry.dagster_event for entry in instance.all_logs(run.run_id, dg.DagsterEventType.ENGINE_EVENT)]
    metadata = [event.engine_event_data.metadata for event in events if event]
    return next(int(str(each["pid"].value)) for each in metadata if "pid" in each)
