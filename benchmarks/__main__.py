"""Run cases: `python -m benchmarks --case csv_to_rankings --users 500000 --rounds 3`; without `--case`, all of them."""

import argparse
import shlex
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import results
from benchmarks.cases import CASES, MOST_USERS
from benchmarks.context import Context

WORK_HELP = "working folder; users.csv and user_top_artists.csv in its data/N-users are used for --users N"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cases, print each measurement, and record each case as soon as it has finished."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--case", action="append", choices=CASES, help="run this case; may be repeated")
    parser.add_argument("--users", type=int, default=50_000, help="users in the generated files, 50 artists each")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement under load")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="run only these contestants")
    parser.add_argument("--work", type=Path, default=Path("data/benchmarks"), help=WORK_HELP)
    parser.add_argument("--results", type=Path, default=results.FILE, help="file in which to record the measurements")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    for case in options.case or CASES:
        users = options.users if options.case else min(options.users, MOST_USERS.get(case, options.users))
        context = Context(users, options.rounds, options.work.absolute(), options.only, options.seconds)
        results.record(_run(case, context), options.results)


def _run(case: str, context: Context) -> results.Session:
    size = ["--users", context.users, "--rounds", context.rounds, "--seconds", f"{context.seconds:g}"]
    only = ["--only", *context.only] if context.only else []
    command = shlex.join(map(str, ["python", "-m", "benchmarks", "--case", case, *size, *only]))
    started, machine = datetime.now(UTC).isoformat(timespec="seconds"), results.machine()
    session = results.Session(case, context.users, context.rounds, command, started, machine, results.versions())
    session.skipped, session.facts = context.skipped, context.facts
    for one in CASES[case](context):
        session.measurements.append(one)
        metrics = "  ".join(f"{name} {value:,.4g}" for name, value in one.metrics.items())
        print(f"{case}  {one.variant or '-'}  round {one.round}  {one.contestant}: {metrics}", flush=True)
    return session


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # so that the commands of a stopped run are stopped, too
    main()
