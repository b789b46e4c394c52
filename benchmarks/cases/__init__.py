"""The cases: each module measures one thing, and names its `CASES`."""

from benchmarks.cases import drop_latency, embeddings, queries, rankings, scaling
from benchmarks.running import Case

MODULES = (rankings, queries, drop_latency, scaling, embeddings)

CASES: dict[str, Case] = {case.name: case for module in MODULES for case in module.CASES}
