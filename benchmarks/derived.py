"""What follows from the measurements of growth: the cost of a row, without the start of the processes."""

from benchmarks.results import OURS, Session

ROWS_PER_USER = 50
STEPS = ("ingest", "refresh")


def grown_sizes(session: Session) -> list[int]:
    """Return the numbers of users, the smallest first: that one stands for the start alone."""
    return sorted({int(variant.split()[1]) for variant in session.variants})


def growth_variant(step: str, users: int) -> str:
    """Name the variant of a step at a size."""
    return f"{step}, {users} users"


def seconds_per_million_rows(session: Session, step: str) -> dict[int, float]:
    """Return for each number of users but the smallest the seconds that a million rows cost beyond the start."""
    start, *others = grown_sizes(session)
    begun = session.median(OURS, "seconds", growth_variant(step, start)) or 0.0
    medians = {users: session.median(OURS, "seconds", growth_variant(step, users)) for users in others}
    return {
        users: (seconds - begun) / (users * ROWS_PER_USER / 1e6)
        for users, seconds in medians.items()
        if seconds is not None
    }


def unevenness(session: Session, step: str) -> float | None:
    """Return how much dearer a row is at the dearest size than at the cheapest, as a ratio."""
    costs = seconds_per_million_rows(session, step).values()
    return max(costs) / min(costs) if costs and min(costs) > 0 else None
