"""Drops into a data root whose runs are killed, compared with the same drops where no run is killed."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL

from music_assets_tests.faults.deployment import SETTINGS, Deployment
from music_assets_tests.faults.drops import DroppedCsv, drop_files, generate_drops
from music_assets_tests.faults.kill_points import Fault, KillPoint
from music_assets_tests.faults.state import State, check_no_leftovers, check_nothing_lost, state_of
from music_assets_tests.support.project import Project
from music_assets_tests.support.published import published_rows

KILLED = -SIGKILL
ANY_TIME = "at any time"


@dataclass
class Baseline:
    """The drops of a seed; after each, the state without kills and how often the run reached each kill point."""

    drops: list[list[DroppedCsv]]
    states: list[State] = field(default_factory=list)
    occurrences: list[dict[str, int]] = field(default_factory=list)
    seconds: float = 0.0
    """Duration of the last run."""

    @classmethod
    def create(cls, folder: Path, seed: int, number: int) -> "Baseline":
        """Generate `number` drops and refresh after each."""
        deployment = Deployment.create(folder)
        baseline = cls(generate_drops(seed, number))
        for drop in baseline.drops:
            drop_files(drop, deployment.root)
            started = time.monotonic()
            assert deployment.run() == 0, deployment.log_end
            baseline.seconds = time.monotonic() - started
            baseline.states.append(state_of(deployment.root))
            baseline.occurrences.append(json.loads(deployment.occurrences.read_text()))
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
        """The state of the baseline after the current drop."""
        return self.baseline.states[self.round]

    def drop(self) -> None:
        """Write the files of the next drop."""
        self.round += 1
        drop_files(self.baseline.drops[self.round], self.deployment.root)

    def kill_at(self, point: KillPoint, occurrence: int = 1) -> bool:
        """Run the job until it is killed at the point, and check the data root. Return False if the run ended first."""
        return self._check_killed(point.name, self.deployment.run(fault=Fault(point, occurrence)))

    def kill_after(self, seconds: float) -> bool:
        """Run the job for so long, then kill it and check the data root. Return False if the run ended first."""
        return self._check_killed(ANY_TIME, self.deployment.run_for(seconds))

    def recover(self) -> None:
        """Refresh in this process, where no start-up costs time, and check the result."""
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
        dropped = [file for drop in self.baseline.drops[: self.round + 1] for file in drop]
        check_nothing_lost(self.deployment.root, dropped, self.expected)
        published = [None, *(state.published for state in self.baseline.states)]
        assert published_rows(self.deployment.root) in published[self.round : self.round + 2], "damaged snapshot"
        self.kills[point] += code == KILLED
        self.completed += code == 0
        return code == KILLED
