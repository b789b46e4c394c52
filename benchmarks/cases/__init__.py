"""The cases: each module measures one thing, and names its `CASES`."""

from benchmarks.cases import queries, rankings
from benchmarks.running import Case

CASES: dict[str, Case] = {case.name: case for module in (rankings, queries) for case in module.CASES}
