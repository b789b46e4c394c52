"""Runs killed at every step of a refresh, and at any time: nothing lost, nothing counted twice, nothing left behind."""

import random
from pathlib import Path

import pytest

from music_assets.data_root import DataRoot
from music_assets_tests.faults.points import Point
from music_assets_tests.faults.runs import Home
from music_assets_tests.faults.story import SETTINGS, Story, Undisturbed
from music_assets_tests.support.project import Project

SEED = 6

STORIES = {
    "taking files": (
        [(Point.FILES_LISTED, 1), (Point.PARQUET_HALF_WRITTEN, 3), (Point.FILE_IN_REJECTED, 1)],
        [(Point.FILE_READ_EXACTLY, 1), (Point.REASON_UNWRITTEN, 1)],
    ),
    "committing": (
        [(Point.TABLE_CREATED, 1), (Point.AFTER_COMMIT_OF_REJECTS, 1), (Point.COMMIT_UNSYNCED, 1)],
        [(Point.BEFORE_COMMIT_OF_ROWS, 1), (Point.AFTER_COMMIT_OF_ROWS, 2)],
    ),
    "removing what was taken": (
        [(Point.BEFORE_REMOVAL_OF_CSV, 1), (Point.AFTER_REMOVAL_OF_CSV, 1)],
        [(Point.AFTER_REMOVAL_OF_CSV, 4), (Point.AFTER_VACUUM, 1)],
    ),
    "ranking": (
        [(Point.RANKING_WRITTEN, 1), (Point.AFTER_COMMIT_OF_RANKING, 1)],
        [(Point.BEFORE_COMMIT_OF_RANKING, 2)],
    ),
    "publishing": (
        [(Point.WHILE_BUILDING, 5), (Point.NAMED, 1), (Point.POINTER_HALF_WRITTEN, 1)],
        [(Point.BEFORE_POINTER, 1), (Point.AFTER_POINTER, 1)],
    ),
}


@pytest.mark.parametrize("rounds", STORIES.values(), ids=STORIES)
def test_a_run_killed_at_a_step_is_made_good_by_the_next(
    rounds: tuple[list[tuple[Point, int]], ...], undisturbed: Undisturbed, tmp_path: Path
) -> None:
    story = Story(Home(DataRoot(tmp_path / "data"), tmp_path / "home"), undisturbed)
    for faults in rounds:
        story.drop()
        for point, number in faults:
            assert story.kill_at(point, number), f"no run came by {point.name} for the {number}th time"
        assert Project(story.home.root, **SETTINGS).refresh().success
        story.check_recovered()


def test_a_run_killed_at_any_time_is_made_good_by_the_next(undisturbed: Undisturbed, tmp_path: Path) -> None:
    story = Story(Home(DataRoot(tmp_path / "data"), tmp_path / "home"), undisturbed)
    moments = random.Random(SEED)
    for _ in undisturbed.drops:
        story.drop()
        for _ in range(2):
            story.kill_after(moments.uniform(0, 0.8 * undisturbed.seconds))
        assert Project(story.home.root, **SETTINGS).refresh().success
        story.check_recovered()
