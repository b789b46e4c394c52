"""What was measured: `results.jsonl` keeps the newest session of each case and size, one JSON line each."""

import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

FOLDER = Path(__file__).parent
FILE = FOLDER / "results.jsonl"
LOAD_SECONDS = 1.0
"""Over which the load is measured."""
PACKAGES = ("duckdb", "polars", "pyspark", "dagster", "ibis-framework", "deltalake", "gensim", "implicit", "datasette")
OURS = "music-assets"
"""Further ways to run the project are named so, with a comma and the way behind it."""


@dataclass(frozen=True)
class Measurement:
    """The figures of one contestant in one round; `variant` tells what was varied within the case, if anything."""

    contestant: str
    round: int
    figures: Mapping[str, float]
    variant: str = ""


@dataclass
class Session:
    """One run of a case: what was run where, what came out, and who could not take part."""

    case: str
    users: int
    rounds: int
    command: str
    started: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    measurements: list[Measurement] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    """What else is worth telling, such as the number of rows that were compared."""

    @property
    def variants(self) -> list[str]:
        """The variants, in the order they were measured in."""
        return list(dict.fromkeys(one.variant for one in self.measurements))

    def contestants(self, variant: str = "") -> list[str]:
        """Return who took part, in order."""
        return list(dict.fromkeys(one.contestant for one in self.measurements if one.variant == variant))

    def figures(self, contestant: str, figure: str, variant: str = "") -> list[float]:
        """Return a figure of a contestant, round by round."""
        return [
            one.figures[figure]
            for one in self.measurements
            if one.contestant == contestant and one.variant == variant and figure in one.figures
        ]

    def median(self, contestant: str, figure: str, variant: str = "") -> float | None:
        """Return the median over the rounds; None where it was not measured."""
        values = self.figures(contestant, figure, variant)
        return statistics.median(values) if values else None

    def best_peer(self, figure: str = "seconds", variant: str = "") -> str | None:
        """Return the contestant other than ours with the lowest median; None where there is none."""
        peers = [name for name in self.contestants(variant) if not is_ours(name)]
        medians = {name: self.median(name, figure, variant) for name in peers}
        known = {name: median for name, median in medians.items() if median is not None}
        return min(known, key=lambda name: known[name]) if known else None

    def ratio(
        self, figure: str = "seconds", peer: str | None = None, variant: str = "", way: str = OURS
    ) -> float | None:
        """Return our median, gone which way, as a multiple of a peer's, by default the best one's.

        None where either is missing.
        """
        peer = peer or self.best_peer(figure, variant)
        ours = self.median(way, figure, variant)
        other = self.median(peer, figure, variant) if peer else None
        return ours / other if ours is not None and other else None


def is_ours(contestant: str) -> bool:
    """Tell whether this is the project, whichever way it was gone."""
    return contestant.split(",")[0] == OURS


def machine() -> dict[str, Any]:
    """Describe the machine: processor, cores this process may use, memory, system, and the load before the run.

    The load is how many cores are busy. The system's own load average would still count the case before this one.
    """
    load = psutil.cpu_percent(interval=LOAD_SECONDS) / 100 * (psutil.cpu_count() or 1)
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": round(load, 1),
    }


def versions() -> dict[str, str]:
    """Return the versions of what takes part, as far as it is installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def keep(session: Session, file: Path = FILE) -> None:
    """Keep a session in the file, in place of the one of the same case and size before it."""
    others = [one for one in read(file) if (one.case, one.users) != (session.case, session.users)]
    ordered = sorted([*others, session], key=lambda one: (one.case, one.users))
    aside = file.with_name(f".{file.name}.tmp")
    aside.write_text("".join(json.dumps(asdict(one)) + "\n" for one in ordered), encoding="utf-8")
    aside.replace(file)


def read(file: Path = FILE) -> list[Session]:
    """Return the sessions that the file keeps, in the order of cases and sizes."""
    contents = [json.loads(line) for line in _lines(file)]
    return [
        Session(**{**content, "measurements": [Measurement(**one) for one in content["measurements"]]})
        for content in contents
    ]


def _lines(file: str | Path) -> Iterable[str]:
    path = Path(file)
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else ()
