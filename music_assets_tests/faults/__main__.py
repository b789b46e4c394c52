"""Kill many runs: `python -m music_assets_tests.faults --kills 200 --seed 0`, or `make faults`.

Each scenario is a data root of its own with three drops, after which a drop is retracted, a user is erased, and the
data root is backed up, lost and restored. In each of these rounds, up to six processes in a row are killed at kill
points and occurrences drawn from the seed, or after a random time; then one completes. The report that is printed is
the one in benchmarks/RESULTS.md. Exit code 1 means that a promise was broken.
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
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from music_assets_tests.faults.deployment import Deployment
from music_assets_tests.faults.kill_points import KillPoint
from music_assets_tests.faults.scenario import ANY_TIME, Baseline, Scenario
from music_assets_tests.support.s3_server import S3Server, s3_server

DROPS = 3
KILLS_PER_ROUND = 6
SHARE_AT_ANY_TIME = 0.2
BASELINES = 2


@dataclass
class Campaign:
    """Scenarios that run in parallel until enough runs were killed or the time is over."""

    folder: Path
    seed: int
    kills: int
    seconds: float
    s3: S3Server | None = None
    scenarios: list[Scenario] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def killed(self) -> int:
        """How many runs were killed so far."""
        return sum(scenario.kills.total() for scenario in self.scenarios)

    @property
    def is_over(self) -> bool:
        """Whether no further drop is needed."""
        return self.killed >= self.kills or time.monotonic() - self.started > self.seconds

    def run(self, parallel: int) -> None:
        """Run scenarios, `parallel` at the same time."""
        with ThreadPoolExecutor(parallel) as workers:
            baselines = list(workers.map(self._baseline, range(BASELINES)))
            numbers = itertools.count()
            list(workers.map(lambda _: self._run_scenarios(numbers, baselines), range(parallel)))

    def _baseline(self, number: int) -> Baseline:
        return Baseline.create(self.folder / f"baseline {number}", self.seed * BASELINES + number, DROPS, self.s3)

    def _run_scenarios(self, numbers: Iterator[int], baselines: list[Baseline]) -> None:
        while not self.is_over:
            number = next(numbers)
            scenario = Scenario(
                Deployment.create(self.folder / f"scenario {number}", self.s3), baselines[number % BASELINES]
            )
            self.scenarios.append(scenario)
            try:
                self._run(scenario, random.Random(f"{self.seed} {number}"))
            except (AssertionError, TimeoutError):
                self.failures.append(f"scenario {number}, drop {scenario.round + 1}: {traceback.format_exc()}")
            print(f"{self.killed} kills, {len(self.failures)} failures", file=sys.stderr, flush=True)

    def _run(self, scenario: Scenario, source: random.Random) -> None:
        """In each round kill processes, each at a later point than the one before, until one completes."""
        for _ in scenario.baseline.states:
            scenario.advance()
            completed = not all(kill() for kill in _kills(scenario, source))
            if scenario.command and not completed:
                assert scenario.deployment.run(scenario.command) == 0, scenario.deployment.log_end
            if scenario.command or not completed:
                assert scenario.deployment.run() == 0, scenario.deployment.log_end
            scenario.check_recovered()
            if self.is_over:
                return


def main() -> int:
    """Run the campaign that the arguments describe and print its report."""
    parser = argparse.ArgumentParser(prog="python -m music_assets_tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="minimum number of runs to kill")
    parser.add_argument("--seed", type=int, default=0, help="seed of the drops, points and occurrences")
    parser.add_argument("--parallel", type=int, default=os.cpu_count(), help="number of data roots at the same time")
    parser.add_argument("--minutes", type=float, default=120, help="maximum duration in minutes")
    parser.add_argument("--s3", action="store_true", help="data roots on an S3 server that is started")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        s3 = stack.enter_context(s3_server(Path(folder))) if arguments.s3 else None
        campaign = Campaign(Path(folder), arguments.seed, arguments.kills, arguments.minutes * 60, s3)
        campaign.run(arguments.parallel)
        print("\n".join(_report(campaign)))
    return 1 if campaign.failures else 0


def _kills(scenario: Scenario, source: random.Random) -> Iterator[Callable[[], bool]]:
    """Yield kills at random points in the order of the run.

    Only the first can be at a later occurrence: after it, the run that recovers may pass a point less often.
    """
    occurrences = scenario.baseline.occurrences[scenario.round]
    reached = [point for point in KillPoint if occurrences[point.name]]
    chosen = sorted(source.sample(range(len(reached)), min(KILLS_PER_ROUND, len(reached))))
    for number, place in enumerate(chosen):
        point = reached[place]
        if source.random() < SHARE_AT_ANY_TIME:
            yield partial(scenario.kill_after, source.uniform(0, scenario.baseline.seconds))
        else:
            yield partial(scenario.kill_at, point, 1 if number else source.randint(1, occurrences[point.name]))


def _report(campaign: Campaign) -> Iterator[str]:
    scenarios = campaign.scenarios
    kills = sum((scenario.kills for scenario in scenarios), Counter())
    drops = [drop for scenario in scenarios for drop in scenario.baseline.drops[: scenario.round + 1]]
    rows = sum(rows.total() for scenario in scenarios for rows in scenario.expected.tables.values())
    yield from ("| what | number |", "|---|---|")
    yield f"| runs killed | {kills.total()} |"
    yield f"| runs that completed before they reached the point | {sum(scenario.completed for scenario in scenarios)} |"
    yield f"| data roots, drops, files dropped | {len(scenarios)}, {len(drops)}, {sum(map(len, drops))} |"
    yield f"| rows compared at the end | {rows} |"
    yield f"| rows and files lost | {sum(scenario.missing for scenario in scenarios)} |"
    yield f"| rows and files counted twice | {sum(scenario.surplus for scenario in scenarios)} |"
    yield f"| other promises broken | {len(campaign.failures)} |"
    yield f"| seconds | {time.monotonic() - campaign.started:.0f} |"
    yield from ("", "| killed | times |", "|---|---|")
    for name in (*(point.name for point in KillPoint), ANY_TIME):
        yield f"| {name.lower().replace('_', ' ')} | {kills[name]} |"
    yield from campaign.failures


if __name__ == "__main__":
    sys.exit(main())
