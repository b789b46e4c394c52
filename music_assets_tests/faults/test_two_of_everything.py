"""Two at once on one data root: one waits, or is refused in so many words; the tables are as from one alone."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from signal import Signals

import dagster as dg
import psutil
import pytest

from music_assets.data_root import DataRoot
from music_assets.storage.published_snapshot import connect
from music_assets.tables import TRAIN_EMBEDDINGS
from music_assets_tests.faults.points import Point
from music_assets_tests.faults.runs import Arrival, Home, ended
from music_assets_tests.faults.state import published_rows
from music_assets_tests.faults.stations import daemon, runs_of, wait_for
from music_assets_tests.faults.story import Story, Undisturbed
from music_assets_tests.support import training

REFUSED_FILES = "Another run is loading files below {}. Wait until it has ended."
RANKING = "processed_parquet_artist_rank_in_country"
OVERTAKEN = {
    Point.RANKING_WRITTEN: f"{RANKING}: another run has computed it from newer user_data. Nothing was changed",
    Point.BEFORE_COMMIT_OF_RANKING: f"{RANKING}: another process replaced the content in between. Nothing was changed",
}


@pytest.fixture
def story(undisturbed: Undisturbed, tmp_path: Path) -> Story:
    return Story(Home(DataRoot(tmp_path / "data"), tmp_path / "home"), undisturbed)


def other_home(story: Story) -> Home:
    """A second DAGSTER_HOME for the same data root."""
    return Home(story.home.root, story.home.dagster.with_name("other home"))


@contextmanager
def stopped(home: Home, point: Point) -> Iterator[ForkServerProcess]:
    """A run that stands still at the point, and goes on afterwards."""
    process = home.start(fault=Arrival(point, sent=Signals.SIGSTOP))
    wait_for(home, point.name, lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    try:
        yield process
    finally:
        os.kill(process.pid or 0, Signals.SIGCONT)


def test_a_run_is_refused_while_another_takes_files(story: Story) -> None:
    story.drop()
    with stopped(story.home, Point.FILE_PARSED) as first:
        other = other_home(story)
        assert other.run() == 1
        assert REFUSED_FILES.format(story.home.root) in other.log.read_text()
    assert ended(first) == 0
    story.check_recovered()


@pytest.mark.parametrize("point", OVERTAKEN, ids=lambda point: point.name)
def test_a_run_that_was_overtaken_is_refused_and_nothing_is_older_for_it(story: Story, point: Point) -> None:
    story.drop()
    with stopped(story.home, point) as first:
        story.drop()
        assert other_home(story).run() == 0
    assert ended(first) == 1
    assert OVERTAKEN[point] in story.home.log.read_text()
    story.check_recovered()


def test_a_run_waits_while_another_publishes(story: Story) -> None:
    story.drop()
    with stopped(story.home, Point.BUILT) as first:
        story.drop()
        other = other_home(story)
        second = other.start()
        # It vacuums next, for which nobody else may publish.
        wait_for(other, "taking the files", lambda: "rows into user_data" in other.log.read_text())
        time.sleep(0.5)
        assert second.is_alive()
        assert published_rows(story.home.root) is None
    assert (ended(first), ended(second)) == (0, 0)
    story.check_recovered()


def test_a_refresh_and_a_training_at_once(tmp_path: Path) -> None:
    """Each publishes what the other has made, too: neither takes the other's tables back."""
    home, alone = (Home(DataRoot(tmp_path / name), tmp_path / f"{name} home") for name in ("data", "alone"))
    for seed in (0, 1):
        for each in (home, alone):
            training.drop(each.root.path, 100, seed)
        at_once = [home.start()] if seed == 0 else [home.start(TRAIN_EMBEDDINGS), home.start()]
        assert [ended(process) for process in at_once] == [0] * len(at_once), home.log.read_text()[-3000:]
        assert alone.run() == 0
    shown, expected = published_rows(home.root), published_rows(alone.root)
    assert shown is not None
    assert expected is not None
    embedded = {name: rows for name, rows in shown.items() if name.endswith("embedding")}
    assert {name: rows for name, rows in shown.items() if name not in embedded} == {
        name: rows for name, rows in expected.items() if name not in embedded
    }
    with connect(home.root) as connection:
        (artists, known) = connection.execute(
            "SELECT count(*), count(*) FILTER (artist_name IN (SELECT artist_name FROM raw_parquet_user_top_artists)) "
            "FROM processed_parquet_artist_embedding"
        ).fetchall()[0]
    assert artists == known > 0


@pytest.mark.parametrize("homes", [1, 2], ids=["one DAGSTER_HOME", "a DAGSTER_HOME each"])
def test_two_daemons_and_a_person_on_one_data_root(story: Story, homes: int) -> None:
    first = story.home
    second = other_home(story) if homes == 2 else first
    with daemon(first), daemon(second):
        for _ in range(2):
            story.drop()
            by_hand = first.start()
            assert ended(by_hand) in (0, 1)
            wait_for(first, "publishing", lambda: published_rows(first.root) == story.expected.published)
        wait_for(first, "the end of all runs", lambda: all(run.is_finished for run in runs_of(first) + runs_of(second)))
    if homes == 2:
        assert {run.status for run in runs_of(second)} <= {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}
    story.check_recovered()
