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
from functools import partial
from pathlib import Path

from music_assets_tests.faults.points import Point
from music_assets_tests.faults.runs import Home
from music_assets_tests.faults.story import ANY_TIME, Story, Undisturbed

DROPS = 3
KILLS_PER_DROP = 6
SHARE_AT_ANY_TIME = 0.2
KINDS_OF_DROPS = 2


def main() -> int:
    """Run stories until there are enough kills; print the table."""
    parser = argparse.ArgumentParser(prog="python -m music_assets_tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="runs to kill at least")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same drops, points and arrivals")
    parser.add_argument("--at-once", type=int, default=os.cpu_count(), help="data roots at a time")
    arguments = parser.parse_args()
    begun = time.monotonic()
    stories: list[Story] = []
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        expected = [
            Undisturbed.made(Path(folder) / f"undisturbed {kind}", arguments.seed * KINDS_OF_DROPS + kind, DROPS)
            for kind in range(KINDS_OF_DROPS)
        ]
        numbers = itertools.count()

        def work(_: int) -> None:
            while sum(story.kills.total() for story in stories) < arguments.kills:
                number = next(numbers)
                place = Path(folder) / f"story {number}"
                story = Story(Home(place / "data", place / "home"), expected[number % KINDS_OF_DROPS])
                stories.append(story)
                try:
                    _tell(story, random.Random(f"{arguments.seed} {number}"))
                except (AssertionError, TimeoutError):
                    failures.append(f"story {number}, drop {story.round + 1}: {traceback.format_exc()}")
                done = sum(story.kills.total() for story in stories)
                print(f"{done} kills, {len(failures)} failures", file=sys.stderr, flush=True)

        with ThreadPoolExecutor(arguments.at_once) as workers:
            list(workers.map(work, range(arguments.at_once)))
    print("\n".join(_report(stories, failures, time.monotonic() - begun)))
    return 1 if failures else 0


def _tell(story: Story, source: random.Random) -> None:
    """Kill runs after each drop, at points one later than the other, until one comes to its end."""
    for _ in range(DROPS):
        story.drop()
        if all(kill() for kill in _kills(story, source)):
            assert story.home.run() == 0, story.home.log.read_text()[-3000:]
        story.check_recovered()


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
