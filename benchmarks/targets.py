"""What the suite is to show, and how it is told from the measurements."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.cases.queries import FLOOR
from benchmarks.contestants import PUBLISHER
from benchmarks.daemons import OursByDaemon
from benchmarks.derived import STEPS, grown_sizes, growth_variant, unevenness
from benchmarks.results import OURS, Session

NAIVE = "FastAPI + DuckDB"


@dataclass(frozen=True)
class Target:
    """A ratio to reach in a case: at most `limit`, or at least where `at_least`."""

    case: str
    text: str
    limit: float
    reached: Callable[[Session], float | None]
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Tell whether a value reaches the target."""
        return value >= self.limit if self.at_least else value <= self.limit


def _time(peer: str | None = None, way: str = OURS) -> Callable[[Session], float | None]:
    """Compare with a peer, by default the fastest, our time when gone this way."""
    return lambda session: session.ratio("seconds", peer, way=way)


def _memory(session: Session) -> float | None:
    """Compare with the peer that is fastest, not with the one that takes least memory."""
    return session.ratio("sum_mb", session.best_peer())


def _median_over_floor(question: str) -> Callable[[Session], float | None]:
    return lambda session: session.ratio("median_ms", FLOOR, f"{question}, 1 client")


def _p99_over_median(question: str) -> Callable[[Session], float | None]:
    def reached(session: Session) -> float | None:
        variant = f"{question}, 1 client"
        median, p99 = (session.median(OURS, figure, variant) for figure in ("median_ms", "p99_ms"))
        return p99 / median if median and p99 else None

    return reached


def _throughput_over_naive(question: str) -> Callable[[Session], float | None]:
    return lambda session: session.ratio("answers_per_second", NAIVE, f"{question}, 16 clients")


def _unevenness(step: str) -> Callable[[Session], float | None]:
    return lambda session: unevenness(session, step)


def _memory_over_limit(session: Session) -> float | None:
    """Return the memory at the largest size over what is allowed: DuckDB's limit beside what next to no rows take."""
    least, *_, largest = grown_sizes(session)
    limit = session.facts.get("memory_limit_mb")
    if limit is None:
        return None
    peaks = [
        (
            session.median(OURS, "sum_mb", growth_variant(step, largest)),
            session.median(OURS, "sum_mb", growth_variant(step, least)),
        )
        for step in STEPS
    ]
    return max((top / (limit + low) for top, low in peaks if top and low), default=None)


TARGETS: Sequence[Target] = (
    Target("csv_to_rankings", "CSV to published rankings: time, against the fastest script", 0.9, _time()),
    Target("csv_to_rankings", "the same, run by the daemon", 0.9, _time(way=OursByDaemon.name)),
    Target("csv_to_rankings", "CSV to published rankings: memory, against the fastest script", 1.0, _memory),
    Target("csv_to_rankings", "the same: time, against a script of the same outputs", 1.5, _time(PUBLISHER.name)),
    Target("csv_to_rankings", "the same, run by the daemon", 1.5, _time(PUBLISHER.name, OursByDaemon.name)),
    Target("refresh_from_parquet", "refresh from parquet, against the fastest script", 0.6, _time()),
    Target("small_drop", "refresh after a 1 % drop, against the fastest script", 0.25, _time()),
    Target("small_drop", "the same, run by the daemon", 0.25, _time(way=OursByDaemon.name)),
    Target("queries", "the Drake query: median, against DuckDB in process", 2.0, _median_over_floor("Drake")),
    Target("queries", "the same for any artist", 2.0, _median_over_floor("any artist")),
    Target("queries", "the Drake query: p99, against its own median", 5.0, _p99_over_median("Drake")),
    Target("queries", "the same for any artist", 5.0, _p99_over_median("any artist")),
    Target(
        "queries",
        "16 clients, Drake: answers a second, against FastAPI + DuckDB",
        20,
        _throughput_over_naive("Drake"),
        True,
    ),
    Target("queries", "the same for any artist", 20, _throughput_over_naive("any artist"), True),
    Target("drop_latency", "a drop of 1,000 users, rename to answer, against an empty asset", 2.0, _time()),
    Target("growth", "ingest: cost of a row at the dearest size, against the cheapest", 1.15, _unevenness("ingest")),
    Target("growth", "refresh: cost of a row at the dearest size, against the cheapest", 1.15, _unevenness("refresh")),
    Target(
        "growth", "memory at the largest size, against the limit beside a run of 1,000 users", 1.1, _memory_over_limit
    ),
)
