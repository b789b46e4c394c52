"""Runs cases: `python -m benchmarks --case csv_to_rankings --users 500000 --rounds 3`; all of them without `--case`."""

import argparse
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import results
from benchmarks.cases import CASES
from benchmarks.running import Case, Setting, line

WORK_HELP = (
    "where to work; kept afterwards. What lies in its data/N-users as users.csv and user_top_artists.csv is taken for "
    "--users N instead of made-up files"
)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=sorted(CASES), help="run this case; may come repeatedly")
    parser.add_argument("--users", type=int, default=50_000, help="users in the made-up files, 50 artists each")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement under load")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="leave out all other contestants")
    parser.add_argument("--work", type=Path, default=Path("data/benchmarks"), help=WORK_HELP)
    parser.add_argument("--results", type=Path, default=results.FILE, help="file the measurements are appended to")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cases one after the other; each is kept as soon as it has come to its end."""
    options = parsed(arguments)
    setting = Setting(options.users, options.rounds, options.work.absolute(), options.only, options.seconds)
    setting.work.mkdir(parents=True, exist_ok=True)
    command = f"python -m benchmarks {' '.join(sys.argv[1:] if arguments is None else arguments)}"
    for name in options.case or CASES:
        setting.users = options.users if options.case else min(options.users, CASES[name].most_users or options.users)
        results.append(session_of(CASES[name], setting, command), options.results)


def session_of(case: Case, setting: Setting, command: str) -> results.Session:
    """Run a case, print each measurement, and return all of them."""
    setting.skipped, setting.facts = {}, {}
    session = results.Session(
        case.name,
        setting.users,
        setting.rounds,
        command,
        datetime.now(UTC).isoformat(timespec="seconds"),
        results.machine(),
        results.versions(),
        skipped=setting.skipped,
        facts=setting.facts,
    )
    for measurement in case.run(setting):
        session.measurements.append(measurement)
        print(line(session, measurement), flush=True)
    return session


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # whoever stops a run in the background stops all it started
    main()
