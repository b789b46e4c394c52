"""Runs cases: `python -m benchmarks --case csv_to_rankings --users 500000 --rounds 3`; all of them without `--case`."""

import argparse
import shlex
import signal
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
    parser.add_argument("--results", type=Path, default=results.FILE, help="file the measurements are kept in")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cases one after the other; each is kept as soon as it has come to its end."""
    options = parsed(arguments)
    setting = Setting(options.users, options.rounds, options.work.absolute(), options.only, options.seconds)
    setting.work.mkdir(parents=True, exist_ok=True)
    for name in options.case or CASES:
        setting.users = options.users if options.case else min(options.users, CASES[name].most_users or options.users)
        results.keep(session_of(CASES[name], setting), options.results)


def session_of(case: Case, setting: Setting) -> results.Session:
    """Run a case, print each measurement, and return all of them."""
    setting.skipped, setting.facts = {}, {}
    session = results.Session(
        case.name,
        setting.users,
        setting.rounds,
        command(case, setting),
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


def command(case: Case, setting: Setting) -> str:
    """Return the command that measures this again; where it works makes no difference."""
    size = ["--case", case.name, "--users", str(setting.users), "--rounds", str(setting.rounds)]
    chosen = ["--only", *setting.only] if setting.only else []
    return shlex.join(["python", "-m", "benchmarks", *size, "--seconds", f"{setting.seconds:g}", *chosen])


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # whoever stops a run in the background stops all it started
    main()
