"""The extended run: `python -m music_assets_tests.faults --kills 200 --seed 0` prints what docs/reliability.md holds.

Each story is a data root of its own: three drops, after each of which up to six runs are killed in a row, at points and
arrivals drawn from the seed, or at any time; then one run goes to its end. Exits with 1 where a promise is broken.
"""

import argparse
import itertools
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from music_assets.data_root import DataRoot
from music_assets_tests.faults.points import Point
from music_assets_tests.faults.runs import Home
from music_assets_tests.faults.story import ANY_TIME, Story, Undisturbed

DROPS = 3
KILLS_PER_DROP = 6
SHARE_AT_ANY_TIME = 0.2
KINDS_OF_DROPS = 2


@dataclass
class Extended:
    """A run of many stories at once, until there are enough kills or it has taken long enough."""

    folder: Path
    seed: int
    kills: int
    seconds: float
    stories: list[Story] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    @property
    def enough(self) -> bool:
        """Whether it is time to come to the end."""
        return self.killed >= self.kills or time.monotonic() - self.begun > self.seconds

    @property
    def killed(self) -> int:
        """How many runs were killed so far."""
        return sum(story.kills.total() for story in self.stories)

    def run(self, at_once: int) -> None:
        """Tell stories, so many at once."""
        with ThreadPoolExecutor(at_once) as workers:
            expected = list(workers.map(self._undisturbed, range(KINDS_OF_DROPS)))
            numbers = itertools.count()
            list(workers.map(lambda _: self._tell_on(numbers, expected), range(at_once)))

    def _undisturbed(self, kind: int) -> Undisturbed:
        return Undisturbed.made(self.folder / f"undisturbed {kind}", self.seed * KINDS_OF_DROPS + kind, DROPS)

    def _tell_on(self, numbers: Iterator[int], expected: list[Undisturbed]) -> None:
        while not self.enough:
            number = next(numbers)
            place = self.folder / f"story {number}"
            story = Story(Home(DataRoot(place / "data"), place / "home"), expected[number % KINDS_OF_DROPS])
            self.stories.append(story)
            try:
                self._tell(story, random.Random(f"{self.seed} {number}"))
            except (AssertionError, TimeoutError):
                self.failures.append(f"story {number}, drop {story.round + 1}: {traceback.format_exc()}")
            print(f"{self.killed} kills, {len(self.failures)} failures", file=sys.stderr, flush=True)

    def _tell(self, story: Story, source: random.Random) -> None:
        """Kill runs after each drop, at points one later than the other, until one comes to its end."""
        for _ in range(DROPS):
            story.drop()
            if all(kill() for kill in _kills(story, source)):
                assert story.home.run() == 0, story.home.log.read_text()[-3000:]
            story.check_recovered()
            if self.enough:
                return


def main() -> int:
    """Run it as the arguments say; print the table."""
    parser = argparse.ArgumentParser(prog="python -m music_assets_tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="runs to kill at least")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same drops, points and arrivals")
    parser.add_argument("--at-once", type=int, default=os.cpu_count(), help="data roots at a time")
    parser.add_argument("--minutes", type=float, default=120, help="come to an end after so long, whatever was killed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        extended = Extended(Path(folder), arguments.seed, arguments.kills, arguments.minutes * 60)
        extended.run(arguments.at_once)
        print("\n".join(_report(extended.stories, extended.failures, time.monotonic() - extended.begun)))
    return 1 if extended.failures else 0


def _kills(story: Story, source: random.Random) -> Iterator[Callable[[], bool]]:
    """Yield kills: the first at any arrival at its point, after which later points are come by once more at least."""
    arrivals = story.undisturbed.arrivals[story.round]
    reached = [point for point in Point if arrivals[point.name]]
    chosen = sorted(source.sample(range(len(reached)), KILLS_PER_DROP))
    for number, place in enumerate(chosen):
        point = reached[place]
        if source.random() < SHARE_AT_ANY_TIME:
            yield partial(story.kill_after, source.uniform(0, story.undisturbed.seconds))
        else:
            yield partial(story.kill_at, point, 1 if number else source.randint(1, arrivals[point.name]))


def _report(stories: list[Story], failures: list[str], seconds: float) -> Iterator[str]:
    kills = sum((story.kills for story in stories), Counter())
    drops = [drop for story in stories for drop in story.undisturbed.drops[: story.round + 1]]
    rows = sum(rows.total() for story in stories for rows in story.expected.tables.values())
    yield "| what | number |"
    yield "|---|---|"
    yield f"| runs killed | {kills.total()} |"
    yield f"| runs that came to their end before the point | {sum(story.spared for story in stories)} |"
    yield f"| data roots, drops, files dropped | {len(stories)}, {len(drops)}, {sum(map(len, drops))} |"
    yield f"| rows compared at the end | {rows} |"
    yield f"| rows and files lost | {sum(story.lost for story in stories)} |"
    yield f"| rows and files counted twice | {sum(story.doubled for story in stories)} |"
    yield f"| other promises broken | {len(failures)} |"
    yield f"| seconds | {seconds:.0f} |"
    yield ""
    yield "| killed | times |"
    yield "|---|---|"
    for name in (*(point.name for point in Point), ANY_TIME):
        yield f"| {name.lower().replace('_', ' ')} | {kills[name]} |"
    yield from failures


if __name__ == "__main__":
    sys.exit(main())
