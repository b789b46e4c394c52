"""The cases: each module measures one thing, and names its `CASES`."""

from benchmarks.cases import rankings
from benchmarks.running import Case

CASES: dict[str, Case] = {case.name: case for module in (rankings,) for case in module.CASES}
