"""Runs cases: `python -m benchmarks --case csv_to_rankings --users 500000 --rounds 3`; all of them without `--case`."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import results
from benchmarks.cases import CASES
from benchmarks.running import Setting, line


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
    parser.add_argument("--work", type=Path, default=Path("data/benchmarks"), help="where to work; kept afterwards")
    parser.add_argument("--results", type=Path, default=results.FILE, help="file the measurements are appended to")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cases one after the other; each is kept as soon as it has come to its end."""
    options = parsed(arguments)
    setting = Setting(options.users, options.rounds, options.work.absolute(), options.only, options.seconds)
    setting.work.mkdir(parents=True, exist_ok=True)
    for name in options.case or CASES:
        session = results.Session(
            name,
            options.users,
            options.rounds,
            f"python -m benchmarks {' '.join(sys.argv[1:] if arguments is None else arguments)}",
            datetime.now(UTC).isoformat(timespec="seconds"),
            results.machine(),
            results.versions(),
        )
        for measurement in CASES[name].run(setting):
            session.measurements.append(measurement)
            print(line(session, measurement), flush=True)
        session.skipped, session.facts = dict(setting.skipped), dict(setting.facts)
        setting.skipped.clear()
        setting.facts.clear()
        results.append(session, options.results)


if __name__ == "__main__":
    main()
