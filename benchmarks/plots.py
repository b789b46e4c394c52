"""The pictures of RESULTS.md: bars with their spread, one group a variant; and lines for growth."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.derived import STEPS, seconds_per_million_rows
from benchmarks.results import OURS, Session

WIDTH = 8
BAR = 0.3
STYLE = {
    "svg.hashsalt": "music-assets",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
COLOURS = {OURS: "#d95f02"}
OTHERS = ("#666666", "#7570b3", "#1b9e77", "#a6761d")


def bars(session: Session, figure: str, label: str, variants: Sequence[str], path: Path, logarithmic: bool) -> None:
    """Draw the median of a figure for each contestant, with minimum and maximum as whiskers."""
    names = list(dict.fromkeys(name for variant in variants for name in session.contestants(variant)))
    colours = {name: COLOURS.get(name, OTHERS[place % len(OTHERS)]) for place, name in enumerate(names)}
    places: list[float] = []
    labels: list[str] = []
    with mpl.rc_context(STYLE):
        drawing, axes = plt.subplots()
        place = 0.0
        for variant in variants:
            for name in names:
                values = session.figures(name, figure, variant)
                if not values:
                    continue
                median = session.median(name, figure, variant) or 0.0
                spread = [[median - min(values)], [max(values) - median]]
                axes.barh(place, median, BAR * 0.9, xerr=spread, color=colours[name], capsize=2, ecolor="#222222")
                places.append(place)
                labels.append(f"{variant}: {name}" if variant else name)
                place += BAR
            place += BAR
        axes.set_yticks(places, labels)
        axes.invert_yaxis()
        axes.set_xlabel(label)
        if logarithmic:
            axes.set_xscale("log")
        drawing.set_size_inches(WIDTH, 1 + 0.7 * place)
        _save(drawing, path)


def growth_lines(session: Session, path: Path) -> None:
    """Draw the cost of a million rows over the number of users, for each step."""
    with mpl.rc_context(STYLE):
        drawing, axes = plt.subplots(figsize=(WIDTH, 3))
        for step, colour in zip(STEPS, OTHERS, strict=False):
            costs = seconds_per_million_rows(session, step)
            axes.plot(list(costs), list(costs.values()), marker="o", label=step, color=colour)
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("users")
        axes.set_ylabel("seconds per million rows")
        axes.legend(frameon=False)
        _save(drawing, path)


def _save(drawing: plt.Figure, path: Path) -> None:
    """Write the same bytes for the same figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(drawing)
