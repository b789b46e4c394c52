"""Drops into a data root whose runs are killed, compared with the same drops where no run is killed.

After the drops one of them is retracted, a user is erased, and the data root is backed up, lost and restored. These
commands are killed as well.
"""

import hashlib
import json
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL

import pytest

from music_assets.data_root import DataRoot, LayoutError
from music_assets.maintenance.backup import MANIFEST, BackupError, restore
from music_assets.tables import REFRESH_RANKINGS
from music_assets_tests.faults.deployment import SETTINGS, Deployment
from music_assets_tests.faults.drops import DroppedCsv, drop_files, generate_drops
from music_assets_tests.faults.kill_points import Fault, KillPoint
from music_assets_tests.faults.state import (
    State,
    check_commits_are_whole,
    check_no_leftovers,
    check_nothing_lost,
    state_of,
)
from music_assets_tests.support.project import Project
from music_assets_tests.support.published import published_rows
from music_assets_tests.support.s3_server import S3Server

KILLED = -SIGKILL
ANY_TIME = "at any time"
BACKUP = "backup"
"""Folder of the backup, relative to the working directory of a command."""
FORGOTTEN_USER = 7
"""A user of whom `generate_drops` makes rejected rows too."""


@dataclass
class Baseline:
    """The drops of a seed, then the commands that remove rows, copy and restore the data root.

    For each: the state without kills, and how often the process reached each kill point.
    """

    drops: list[list[DroppedCsv]]
    commands: list[tuple[str, ...]] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    occurrences: list[dict[str, int]] = field(default_factory=list)
    seconds: float = 0.0
    """Duration of the last run."""

    @classmethod
    def create(
        cls, folder: Path, seed: int, number: int, s3: S3Server | None = None, commands: bool = True
    ) -> "Baseline":
        """Generate `number` drops and refresh after each; then run the commands."""
        deployment = Deployment.create(folder, s3)
        baseline = cls(generate_drops(seed, number))
        for drop in baseline.drops:
            drop_files(drop, deployment.root)
            started = time.monotonic()
            assert deployment.run() == 0, deployment.log_end
            baseline.seconds = time.monotonic() - started
            baseline.states.append(state_of(deployment.root))
            baseline.occurrences.append(json.loads(deployment.occurrences.read_text()))
        if not commands:
            return baseline
        retracted = hashlib.sha256(baseline.drops[0][0].content).hexdigest()
        baseline.commands = [
            ("retract", retracted, "--yes"),
            ("forget", str(FORGOTTEN_USER), "--yes"),
            ("backup", BACKUP),
            ("restore", BACKUP),
        ]
        for command in baseline.commands:
            if command[0] == "restore":
                deployment.lose()
            assert deployment.run(command) == 0, deployment.log_end
            baseline.occurrences.append(json.loads(deployment.occurrences.read_text()))
            assert deployment.run() == 0, deployment.log_end
            baseline.states.append(state_of(deployment.root))
        return baseline


@dataclass
class Scenario:
    """A data root whose runs are killed, with counts of the kills and of broken promises."""

    deployment: Deployment
    baseline: Baseline
    kills: Counter[str] = field(default_factory=Counter)
    completed: int = 0
    """Runs that ended before they reached their kill point."""
    missing: int = 0
    surplus: int = 0
    round: int = -1

    @property
    def expected(self) -> State:
        """The state of the baseline after the current round."""
        return self.baseline.states[self.round]

    @property
    def command(self) -> tuple[str, ...] | None:
        """The command of this round, or None if it has a drop."""
        number = self.round - len(self.baseline.drops)
        return self.baseline.commands[number] if number >= 0 else None

    def advance(self) -> None:
        """Start the next round: write the files of the next drop, if there is one, or lose what is to be restored."""
        self.round += 1
        if self.command == ("restore", BACKUP):
            self.deployment.lose()
        if not self.command:
            drop_files(self.baseline.drops[self.round], self.deployment.root)

    def kill_at(self, point: KillPoint, occurrence: int = 1) -> bool:
        """Run the work of this round until it is killed at the point, and check the data root.

        Returns False if it ended first.
        """
        work = self.command or REFRESH_RANKINGS
        return self._check_killed(point.name, self.deployment.run(work, Fault(point, occurrence)))

    def kill_after(self, seconds: float) -> bool:
        """Run the work of this round for so long, then kill it and check the data root.

        Returns False if it ended first.
        """
        return self._check_killed(ANY_TIME, self.deployment.run_for(seconds, self.command or REFRESH_RANKINGS))

    def recover(self) -> None:
        """Repeat the command, refresh in this process, where no start-up costs time, and check the result."""
        if self.command:
            assert self.deployment.run(self.command) == 0, self.deployment.log_end
        assert Project(self.deployment.root, **SETTINGS).refresh().success
        self.check_recovered()

    def check_recovered(self) -> None:
        """Check, after a successful run, that the state is that of the baseline and that no file is left over."""
        found = state_of(self.deployment.root)
        self.missing += found.missing(self.expected)
        self.surplus += found.surplus(self.expected)
        assert found.differences(self.expected) == set()
        check_no_leftovers(self.deployment.root)

    def _check_killed(self, point: str, code: int) -> bool:
        assert code in (0, KILLED), self.deployment.log_end
        self.kills[point] += code == KILLED
        self.completed += code == 0
        if code == KILLED and self.command == ("restore", BACKUP):
            self._check_unusable()
            return True
        if code == KILLED and self.command == ("backup", BACKUP):
            self._remove_unfinished_backup()
        if self.command:
            check_commits_are_whole(self.deployment.root, self.baseline.states[self.round - 1], self.expected)
        else:
            dropped = [file for drop in self.baseline.drops[: self.round + 1] for file in drop]
            check_nothing_lost(self.deployment.root, dropped, self.expected)
        published = [None, *(state.published for state in self.baseline.states)]
        assert published_rows(self.deployment.root) in published[self.round : self.round + 2], "damaged snapshot"
        return code == KILLED

    def _check_unusable(self) -> None:
        """Check that nothing can read a data root whose restore was killed, unless it was complete."""
        try:
            assert published_rows(self.deployment.root) == self.expected.published
        except LayoutError as error:
            assert "unfinished restore" in str(error)

    def _remove_unfinished_backup(self) -> None:
        folder = self.deployment.home / BACKUP
        if folder.exists() and not (folder / MANIFEST).exists():
            with pytest.raises(BackupError):
                restore(folder, DataRoot(folder / "new"), print)
        shutil.rmtree(folder, ignore_errors=True)
