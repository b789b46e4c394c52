"""Runs killed at every kill point and at random times: after the next run nothing is lost, doubled or left over."""

import random
from pathlib import Path

import pytest

from music_assets_tests.faults.conftest import SEED
from music_assets_tests.faults.deployment import SETTINGS, Deployment
from music_assets_tests.faults.kill_points import OBJECTS, KillPoint
from music_assets_tests.faults.scenario import Baseline, Scenario
from music_assets_tests.support.project import Project
from music_assets_tests.support.s3_server import S3Server

COMMIT = (
    [KillPoint.AFTER_COMMIT_OF_REJECTS, KillPoint.AFTER_COMMIT_OF_ROWS, KillPoint.SNAPSHOT_RENAMED],
    [KillPoint.BEFORE_DELETION_OF_CSV, KillPoint.AFTER_COMMIT_OF_RANKING, KillPoint.BEFORE_POINTER],
)
THIRD_DROP = [KillPoint.BEFORE_DELETION_OF_OLD_SNAPSHOT, KillPoint.AFTER_DELETION_OF_OLD_SNAPSHOT]
"""Two snapshots are kept, so only the third is published in place of another."""
COMMANDS = {
    "retract": [KillPoint.BEFORE_REMOVAL_OF_ROWS, KillPoint.AFTER_REMOVAL_OF_ROWS],
    "forget": [
        KillPoint.REMAINING_ROWS_WRITTEN,
        KillPoint.AFTER_REMOVAL_OF_ROWS,
        KillPoint.FILE_REDACTED,
        KillPoint.AFTER_COMMIT_OF_RANKING,
        KillPoint.AFTER_POINTER,
        KillPoint.AFTER_DELETION_OF_OLD_SNAPSHOT,
        KillPoint.AFTER_VACUUM,
        KillPoint.STATISTICS_NOT_ERASED,
        KillPoint.STATISTICS_UNWRITTEN,
    ],
    "backup": [KillPoint.COPY_UNSYNCED, KillPoint.FILE_COPIED, KillPoint.MANIFEST_UNWRITTEN],
    "restore": [KillPoint.COPY_UNSYNCED, KillPoint.FILE_COPIED],
}
OF_COMMANDS = [
    KillPoint.REMAINING_ROWS_WRITTEN,
    KillPoint.BEFORE_REMOVAL_OF_ROWS,
    KillPoint.AFTER_REMOVAL_OF_ROWS,
    KillPoint.FILE_REDACTED,
    KillPoint.STATISTICS_NOT_ERASED,
    KillPoint.STATISTICS_UNWRITTEN,
    KillPoint.COPY_UNSYNCED,
    KillPoint.FILE_COPIED,
    KillPoint.MANIFEST_UNWRITTEN,
]
POINTS = [point for point in KillPoint if point not in (*THIRD_DROP, *OF_COMMANDS, *OBJECTS)]
ALL = (POINTS[1::2], POINTS[::2], THIRD_DROP)


def test_every_kill_point_is_reached(baseline: Baseline) -> None:
    """A renamed function would turn its kill point off."""
    reached = {name for counts in baseline.occurrences for name, count in counts.items() if count}
    assert reached == set(KillPoint.__members__) - {point.name for point in OBJECTS}


@pytest.mark.parametrize("points_by_drop", [COMMIT, ALL], ids=["commit", "all"])
def test_run_recovers_from_kills_at_a_point(points_by_drop: tuple[list[KillPoint], ...], scenario: Scenario) -> None:
    for points in points_by_drop:
        scenario.advance()
        for point in points:
            assert scenario.kill_at(point), f"no run reached {point.name}"
        scenario.recover()


def test_commands_recover_from_kills(scenario: Scenario) -> None:
    for _ in scenario.baseline.drops:
        scenario.advance()
        assert Project(scenario.deployment.root, **SETTINGS).refresh().success
    for command, points in COMMANDS.items():
        scenario.advance()
        assert scenario.command
        assert scenario.command[0] == command
        for point in points:
            assert scenario.kill_at(point), f"{command} did not reach {point.name}"
        scenario.recover()


def test_run_recovers_from_kills_at_any_time(scenario: Scenario) -> None:
    moments = random.Random(SEED)
    for _ in range(2):
        scenario.advance()
        for _ in range(2):
            scenario.kill_after(moments.uniform(0, 0.8 * scenario.baseline.seconds))
        scenario.recover()


def test_run_on_s3_recovers_from_kills(s3: S3Server, tmp_path: Path) -> None:
    baseline = Baseline.create(tmp_path / "baseline", SEED, 1, s3, commands=False)
    scenario = Scenario(Deployment.create(tmp_path / "killed", s3), baseline)
    scenario.advance()
    for point in OBJECTS:
        assert scenario.kill_at(point), f"no run reached {point.name}"
    scenario.recover()
