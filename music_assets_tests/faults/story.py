"""A story: drops into one data root whose runs are killed, and into another one whose runs are not."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL

from music_assets.data_root import DataRoot
from music_assets_tests.faults.drops import DroppedCsv, drops, place
from music_assets_tests.faults.points import Point
from music_assets_tests.faults.runs import Arrival, Home
from music_assets_tests.faults.state import State, check_no_leftovers, check_nothing_lost, published_rows, state_of

KILLED = -SIGKILL
ANY_TIME = "at any time"
SETTINGS = {"threads": 1, "reject_fail_share": 1.0}


@dataclass
class Undisturbed:
    """The drops of a seed, what stands in a data root after each, and how often each run came by which point."""

    drops: list[list[DroppedCsv]]
    states: list[State]
    arrivals: list[dict[str, int]]
    seconds: float = 0.0
    """How long the last run took."""

    @classmethod
    def made(cls, folder: Path, seed: int, number: int) -> "Undisturbed":
        """Make the drops, and refresh after each."""
        home = Home(DataRoot(folder / "data"), folder / "home")
        made = cls(drops(seed, number), [], [])
        for drop in made.drops:
            place(drop, home.root)
            begun = time.monotonic()
            assert home.run() == 0, home.log.read_text()[-3000:]
            made.seconds = time.monotonic() - begun
            made.states.append(state_of(home.root))
            made.arrivals.append(json.loads(home.arrivals.read_text()))
        return made


@dataclass
class Story:
    """A data root whose runs are killed, and how often that has happened where, and what it has cost."""

    home: Home
    undisturbed: Undisturbed
    kills: Counter[str] = field(default_factory=Counter)
    spared: int = 0
    lost: int = 0
    doubled: int = 0
    round: int = -1

    @property
    def expected(self) -> State:
        """What stands in the undisturbed data root now."""
        return self.undisturbed.states[self.round]

    def drop(self) -> None:
        """Put the next drop into the drop folders."""
        self.round += 1
        place(self.undisturbed.drops[self.round], self.home.root)

    def kill_at(self, point: Point, number: int = 1) -> bool:
        """Run the job until it is killed there, and check what must hold then; False where it ended before."""
        return self._killed(point.name, self.home.run(fault=Arrival(point, number)))

    def kill_after(self, seconds: float) -> bool:
        """Run the job until it is killed after so long, and check what must hold then; False where it ended before."""
        return self._killed(ANY_TIME, self.home.run_for(seconds))

    def check_recovered(self) -> None:
        """Check, after a run that succeeded, that all is as where no run was killed, and that nothing is left over."""
        found = state_of(self.home.root)
        self.lost += found.lost(self.expected)
        self.doubled += found.doubled(self.expected)
        differing = {name for name, digest in self.expected.checksums.items() if found.checksums.get(name) != digest}
        assert not differing, f"not as undisturbed: {differing}"
        check_no_leftovers(self.home.root)

    def _killed(self, point: str, code: int) -> bool:
        assert code in (0, KILLED), self.home.log.read_text()[-3000:]
        dropped = [file for drop in self.undisturbed.drops[: self.round + 1] for file in drop]
        check_nothing_lost(self.home.root, dropped, self.expected)
        published = [None, *(state.published for state in self.undisturbed.states)]
        assert published_rows(self.home.root) in published[self.round : self.round + 2], "what was published is damaged"
        self.kills[point] += code == KILLED
        self.spared += code == 0
        return code == KILLED
