"""Recorded measurements: `results.jsonl` holds the newest session of each case and size, one JSON object per line."""

import json
import os
import platform
import re
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil

FOLDER = Path(__file__).parent
FILE = FOLDER / "results.jsonl"
PACKAGES = ("duckdb", "polars", "pyspark", "dagster", "ibis-framework", "deltalake", "gensim", "implicit", "datasette")
OURS = "music-assets"


@dataclass(frozen=True)
class Measurement:
    """Metrics of one contestant in one round; `variant` names what varies within the case, if anything does."""

    contestant: str
    round: int
    metrics: Mapping[str, float]
    variant: str = ""


@dataclass
class Session:
    """One run of a case: where and how it ran, its measurements, skipped contestants, and values other than metrics."""

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

    @property
    def variants(self) -> list[str]:
        """The variants in the order of measurement."""
        return list(dict.fromkeys(one.variant for one in self.measurements))

    def contestants(self, variant: str = "") -> list[str]:
        """Return the contestants of a variant in the order of measurement."""
        return list(dict.fromkeys(one.contestant for one in self.measurements if one.variant == variant))

    def values(self, contestant: str, metric: str, variant: str = "") -> list[float]:
        """Return the values of a metric, in the order of measurement."""
        chosen = [one for one in self.measurements if (one.contestant, one.variant) == (contestant, variant)]
        return [one.metrics[metric] for one in chosen if metric in one.metrics]

    def median(self, contestant: str, metric: str, variant: str = "") -> float | None:
        """Return the median over the rounds; None without measurements."""
        values = self.values(contestant, metric, variant)
        return statistics.median(values) if values else None

    def fastest_peer(self) -> str:
        """Return the peer with the lowest median of seconds; an empty name without peers."""
        medians = {name: self.median(name, "seconds") for name in self.contestants() if not is_ours(name)}
        return min((seconds, name) for name, seconds in medians.items() if seconds)[1] if any(medians.values()) else ""

    def ratio(
        self, metric: str, peer: str = "", variant: str = "", ours: str = OURS, peer_metric: str = ""
    ) -> float | None:
        """Return our median divided by that of a peer, by default the fastest one. None if either is missing."""
        our_median = self.median(ours, metric, variant)
        peer_median = self.median(peer or self.fastest_peer(), peer_metric or metric, variant)
        return our_median / peer_median if our_median is not None and peer_median else None


def is_ours(contestant: str) -> bool:
    """Return whether a contestant is this project; a comma separates its name from what distinguishes variants."""
    return contestant.split(",")[0] == OURS


def machine() -> dict[str, Any]:
    """Describe the machine; `load_before`: the busy cores, since the load average would include the previous case."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    busy = psutil.cpu_percent(interval=1) / 100 * (psutil.cpu_count() or 1)
    return {
        "processor": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": round(busy, 1),
    }


def versions() -> dict[str, str]:
    """Return the versions of the installed packages that take part."""
    installed = {one.name: one.version for one in distributions()}
    return {package: installed[package] for package in PACKAGES if package in installed}


def record(session: Session, file: Path = FILE) -> None:
    """Write a session to the file, replacing the one of the same case and size."""
    others = [one for one in read(file) if (one.case, one.users) != (session.case, session.users)]
    ordered = sorted([*others, session], key=lambda one: (one.case, one.users))
    file.write_text("".join(json.dumps(asdict(one)) + "\n" for one in ordered), encoding="utf-8")


def read(file: Path = FILE) -> list[Session]:
    """Return the recorded sessions, ordered by case and size; none if the file does not exist."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    sessions = [Session(**json.loads(line)) for line in lines]
    for session in sessions:
        session.measurements = [Measurement(**one) for one in session.measurements]  # type: ignore[arg-type]
    return sessions
