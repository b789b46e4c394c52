"""Renders RESULTS.md and its pictures from `results.jsonl`: `python -m benchmarks.report`.

Texts that explain come from `notes/`: `introduction.md`, and one file a case.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from benchmarks import results
from benchmarks.cases import CASES
from benchmarks.derived import STEPS, grown_sizes, growth_variant, seconds_per_million_rows
from benchmarks.plots import bars, growth_lines
from benchmarks.results import OURS, Session, is_ours
from benchmarks.targets import TARGETS, Target

NOTES = results.FOLDER / "notes"

COLUMNS = {
    "seconds": "seconds",
    "cpu_seconds": "CPU seconds",
    "largest_mb": "largest process, MB",
    "sum_mb": "all processes, MB",
    "written_mb": "written, MB",
    "left_mb": "left on disk, MB",
    "until_requested": "until the run was requested, s",
    "until_begun": "until it began, s",
    "until_ended": "until it ended, s",
    "median_ms": "median, ms",
    "p99_ms": "p99, ms",
    "answers_per_second": "answers a second",
    "failures": "failures",
    "recall_at_20": "recall@20",
    "hit_rate_at_10": "HR@10",
    "ndcg_at_10": "NDCG@10",
}
"""The figures that are told, in this order, by their headings."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write RESULTS.md and the pictures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=results.FILE)
    parser.add_argument("--out", type=Path, default=results.FOLDER, help="folder for RESULTS.md and plots/")
    options = parser.parse_args(arguments)
    sessions = results.read(options.results)
    if not sessions:
        parser.error(
            f"Nothing has been measured yet: {options.results} does not exist. Run python -m benchmarks first."
        )
    (options.out / "RESULTS.md").write_text("\n".join(rendered(sessions, options.out)) + "\n", encoding="utf-8")


def rendered(sessions: Sequence[Session], out: Path) -> Iterator[str]:
    """Yield the lines of RESULTS.md, and draw the pictures on the way."""
    yield from ("# Results", "", *_note("introduction"), "## Targets", "", *_targets(sessions), "")
    yield from ("## Machine and versions", "", *_places(sessions), "")
    for name, case in CASES.items():
        found = [session for session in sessions if session.case == name]
        if not found:
            continue
        yield from (f"## {case.title}", "", case.description, "")
        for session in found:
            yield from (
                f"### {session.users:,} users",
                "",
                *_tables(session),
                *_picture(session, out),
                *_origin(session),
            )
        yield from _note(name)


def _note(name: str) -> list[str]:
    path = NOTES / f"{name}.md"
    return [path.read_text(encoding="utf-8").strip(), ""] if path.exists() else []


def _targets(sessions: Sequence[Session]) -> Iterator[str]:
    """Hold each target against the run with most users."""
    yield from _row("target", "ratio to reach", "reached", "users")
    yield from _row(*["---"] * 4)
    for target in TARGETS:
        found = [session for session in sessions if session.case == target.case]
        session = max(found, key=lambda one: one.users, default=None)
        value = target.reached(session) if session else None
        wanted = f"{'≥' if target.at_least else '≤'} {target.limit:g}"
        users = f"{session.users:,}{', busy machine' if _busy(session) else ''}" if session else ""
        yield from _row(target.text, wanted, _verdict(target, value), users)


def _busy(session: Session) -> bool:
    """Tell whether other work was going on when the run began."""
    return float(session.machine["load_before"]) > session.machine["cores"] / 2


def _verdict(target: Target, value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:.2f}" if target.met(value) else f"**{value:.2f}**, missed"


def _tables(session: Session) -> Iterator[str]:
    """Yield a table for all variants that have the same figures."""
    if session.case == "growth":
        yield from _growth_tables(session)
        return
    groups: dict[tuple[str, ...], list[str]] = {}
    for variant in session.variants:
        measured = {name for one in session.measurements if one.variant == variant for name in one.figures}
        groups.setdefault(tuple(name for name in COLUMNS if name in measured), []).append(variant)
    for figures, variants in groups.items():
        yield from (*_table(session, figures, variants), "")


def _table(session: Session, figures: Sequence[str], variants: Sequence[str]) -> Iterator[str]:
    main_figure = main_figure_of(session)
    compared = main_figure in figures and any(session.best_peer(main_figure, variant) for variant in variants)
    headings = ["what"] if any(variants) else []
    headings += ["who", *(COLUMNS[name] for name in figures)]
    headings += ["ours / theirs"] if compared else []
    yield from _row(*headings)
    yield from _row(*["---"] * len(headings))
    for variant in variants:
        for name in session.contestants(variant):
            cells = [variant] if any(variants) else []
            cells += [name, *(_cell(session.figures(name, figure, variant)) for figure in figures)]
            cells += [_ratio(session, main_figure, name, variant)] if compared else []
            yield from _row(*cells)


def _ratio(session: Session, figure: str, name: str, variant: str) -> str:
    ratio = session.ratio(figure, name, variant) if not is_ours(name) else None
    return f"{ratio:.2f}" if ratio else ""


def main_figure_of(session: Session) -> str:
    """Return the figure that contestants are compared by: time, or the median of times."""
    return "seconds" if any("seconds" in one.figures for one in session.measurements) else "median_ms"


def _growth_tables(session: Session) -> Iterator[str]:
    yield from _row("what", "users", "seconds", "seconds per million rows", "all processes, MB", "left on disk, MB")
    yield from _row(*["---"] * 6)
    for step in STEPS:
        costs = seconds_per_million_rows(session, step)
        for users in grown_sizes(session):
            seconds, memory, left = (
                _cell(session.figures(OURS, figure, growth_variant(step, users)))
                for figure in ("seconds", "sum_mb", "left_mb")
            )
            cost = f"{costs[users]:.2f}" if users in costs else "(start)"
            yield from _row(step, f"{users:,}", seconds, cost, memory, left)
    yield from ("", *_row("what", "users", "median, ms", "p99, ms", "all processes, MB"))
    yield from _row(*["---"] * 5)
    for users in grown_sizes(session):
        cells = [
            _cell(session.figures(OURS, figure, growth_variant("query", users)))
            for figure in ("median_ms", "p99_ms", "sum_mb")
        ]
        yield from _row("query", f"{users:,}", *cells)
    yield ""


def _cell(values: Sequence[float]) -> str:
    """Return the median, and minimum and maximum where they tell something."""
    if not values:
        return ""
    low, middle, high = (_number(value) for value in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def _number(value: float) -> str:
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _picture(session: Session, out: Path) -> Iterator[str]:
    path = out / "plots" / f"{session.case}-{session.users}.svg"
    if session.case == "growth":
        growth_lines(session, path)
    else:
        figure = main_figure_of(session)
        variants = [v for v in session.variants if any(session.figures(n, figure, v) for n in session.contestants(v))]
        bars(session, figure, COLUMNS[figure], variants, path, logarithmic=figure == "median_ms")
    yield from (f"![{CASES[session.case].title}, {session.users:,} users](plots/{path.name})", "")


def _origin(session: Session) -> Iterator[str]:
    """Tell by which command it was measured, what was compared, and who did not take part."""
    yield (
        f"`{session.command}`, begun {session.started}; rounds: {session.rounds}, load before: "
        f"{session.machine['load_before']}."
    )
    if _busy(session):
        yield "**The machine was busy with other work**: the times are not what a quiet one would give."
    if "rows" in session.facts:
        rows = ", ".join(f"{name} {count:,}" for name, count in session.facts["rows"].items())
        yield f"Rows, the same for all by count and hash: {rows}."
    for name, reason in session.skipped.items():
        yield f"{name} did not take part: {reason}."
    yield ""


def _places(sessions: Sequence[Session]) -> Iterator[str]:
    """Tell each machine with its versions once, and what ran there if there are several."""
    found: dict[str, list[str]] = {}
    for session in sessions:
        machine = session.machine
        packages = ", ".join(f"{name} {version}" for name, version in session.versions.items())
        place = (
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB of memory, "
            f"{machine['system']}, Python {machine['python']}; {packages}."
        )
        found.setdefault(place, []).append(f"{session.case} ({session.users:,} users)")
    for place, ran in found.items():
        yield f"- {place}" if len(found) == 1 else f"- {place} Here ran: {', '.join(ran)}."


def _row(*cells: str) -> Iterator[str]:
    yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
