"""Plots of RESULTS.md, for the cases in which a plot shows more than the tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from benchmarks.cases.growth import STEPS, seconds_per_million_rows
from benchmarks.results import OURS, Session

LINES: dict[str, Any] = {"marker": "o", "ylim": (0, None)}


def draw(session: Session, path: Path) -> None:
    """Draw the plot of a case in `PLOTS`; the same measurements give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": OURS, "svg.fonttype": "none", "axes.grid": True, "axes.axisbelow": True}):
        figure = PLOTS[session.case](session).figure
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def _medians(session: Session, metric: str, variants: list[str]) -> pd.DataFrame:
    names = session.contestants(variants[-1])
    return pd.DataFrame({name: [session.median(name, metric, one) for one in variants] for name in names}, variants)


def _queries(session: Session) -> Any:
    variants = [one for one in session.variants if session.values(OURS, "p99_ms", one)][::-1]
    medians, p99 = (_medians(session, metric, variants).astype(float) for metric in ("median_ms", "p99_ms"))
    whiskers: Any = np.stack([medians * 0, p99 - medians]).transpose(2, 0, 1)
    return medians.plot.barh(logx=True, xerr=whiskers, width=0.8, figsize=(8, 7), xlabel="ms: median; whisker: p99")


def _growth(session: Session) -> Any:
    costs = pd.DataFrame({step: seconds_per_million_rows(session, step) for step in STEPS})
    return costs.plot(**LINES, logx=True, figsize=(8, 3), xlabel="users", ylabel="s per million rows")


PLOTS: dict[str, Callable[[Session], Any]] = {"queries": _queries, "growth": _growth}
