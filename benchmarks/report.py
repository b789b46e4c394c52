"""Render RESULTS.md from `results.jsonl`: `python -m benchmarks.report`.

The prose is in `notes/`: an introduction, and a file for each case with `{measurements}` where its tables belong.
`report.toml` holds the headings and the targets.
"""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cases import CASES
from benchmarks.cases.growth import STEPS, growth_ratio, seconds_per_million_rows, sizes
from benchmarks.results import FILE, FOLDER, OURS, Session, is_ours, read

CONTENT: dict[str, Any] = tomllib.loads((FOLDER / "report.toml").read_text(encoding="utf-8"))


def main(file: Path = FILE, folder: Path = FOLDER) -> None:
    """Write RESULTS.md."""
    lines = render(read(file))
    (folder / "RESULTS.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def render(sessions: Sequence[Session]) -> Iterator[str]:
    """Yield the lines of RESULTS.md."""
    yield from (_note("introduction"), "", "## Targets", "", *_targets(sessions), "")
    yield from ("## Machines and versions", "", *_machines(sessions))
    for case in CASES:
        description, _, explanation = _note(case).partition("{measurements}")
        yield from ("", description.strip())
        for session in (one for one in sessions if one.case == case):
            yield from ("", f"### {session.users:,} users", "", *_tables(session))
            yield from _origin(session)
        if explanation:
            yield from ("", explanation.strip())
    yield from ("", _note("other"))


def _note(name: str) -> str:
    return (FOLDER / "notes" / f"{name}.md").read_text(encoding="utf-8").strip()


def _targets(sessions: Sequence[Session]) -> Iterator[str]:
    """Compare each target with the session of most users, or of its own number of users."""
    yield from _table(["target", "to reach", "reached", "users"])
    for target in CONTENT["target"]:
        verdict, users = "not measured", ""
        measured = (one for one in sessions if one.case == target["case"])
        fitting = (one for one in measured if target.get("users", one.users) == one.users)
        for session in sorted(fitting, key=lambda one: one.users):
            if ratio := reached(target, session):
                is_met = target.get("at_least", 0) <= ratio <= target.get("at_most", ratio)
                verdict, users = _number(ratio) if is_met else f"**{_number(ratio)}**, missed", f"{session.users:,}"
        limit = f"≤ {target['at_most']:g}" if "at_most" in target else f"≥ {target['at_least']:g}"
        yield _row([target["text"], limit, verdict, users])


def reached(target: dict[str, Any], session: Session) -> float | None:
    """Return the ratio, or our highest median, that a session has reached; None if it was not measured."""
    if "growth" in target:
        return growth_ratio(session, target["growth"])
    if "highest" in target:
        return max(session.median(OURS, target["highest"], variant) or 0 for variant in session.variants)
    return session.ratio(**target["of"])


def _machines(sessions: Sequence[Session]) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for session in sessions:
        packages = ", ".join(f"{name} {version}" for name, version in session.versions.items())
        machine = "{processor}, {cores} cores, {memory_gb} GB of memory, {system}, Python {python}"
        description = f"{machine.format(**session.machine)}; {packages}"
        found.setdefault(description, []).append(f"{session.case} ({session.users:,} users)")
    yield from (f"- {description}: {', '.join(names)}" for description, names in found.items())


def _tables(session: Session) -> Iterator[str]:
    """Yield a table for all variants with the same metrics."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for variant in session.variants:
        measured = {name for one in session.measurements if one.variant == variant for name in one.metrics}
        groups.setdefault(tuple(name for name in CONTENT["columns"] if name in measured), []).append(variant)
    for metrics, variants in groups.items():
        yield from (*_metrics_table(session, metrics, variants), "")
    if session.case == "growth":
        yield from _table(["seconds per million rows", *(f"{users:,} users" for users in sizes(session)[1:])])
        for step in STEPS:
            yield _row([step, *(f"{cost:.2f}" for cost in seconds_per_million_rows(session, step).values())])
        yield ""


def _metrics_table(session: Session, metrics: Sequence[str], variants: Sequence[str]) -> Iterator[str]:
    main_metric = "seconds" if "seconds" in metrics else "median_ms"
    first = ["variant"] if any(variants) else []
    yield from _table([*first, "contestant", *(CONTENT["columns"][name] for name in metrics), "ours / theirs"])
    for variant in variants:
        for name in session.contestants(variant):
            ratio = None if is_ours(name) else session.ratio(main_metric, name, variant)
            cells = [_cell(session.values(name, metric, variant)) for metric in metrics]
            yield _row([*([variant] if first else []), name, *cells, f"{ratio:.2f}" if ratio else ""])


def _cell(values: Sequence[float]) -> str:
    """Return the median, and minimum and maximum if they differ."""
    if not values:
        return ""
    low, middle, high = (_number(value) for value in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def _number(value: float) -> str:
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _origin(session: Session) -> Iterator[str]:
    """Yield the command, what was compared, and the contestants that could not run."""
    load = session.machine["load_before"]
    yield f"`{session.command}`, {session.started}; rounds: {session.rounds}, busy cores before: {load}."
    if "rows" in session.facts:
        rows = ", ".join(f"{name} {count:,}" for name, count in session.facts["rows"].items())
        yield f"Rows, equal for all contestants by count and hash: {rows}."
    yield from (f"Skipped: {name}, {reason}." for name, reason in session.skipped.items())


def _table(headings: Sequence[str]) -> Iterator[str]:
    yield from (_row(headings), _row(["---"] * len(headings)))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
