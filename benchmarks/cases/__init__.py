"""The cases. A case is a function that yields measurements; its title and prose are in `notes/`, under its name."""

from collections.abc import Callable, Iterator

from benchmarks.cases.drops import drop_latency
from benchmarks.cases.embeddings import embeddings
from benchmarks.cases.growth import growth
from benchmarks.cases.pages import pages
from benchmarks.cases.queries import bombs, lookups, queries
from benchmarks.cases.rankings import csv_to_rankings, refresh_from_parquet, small_drop
from benchmarks.cases.s3 import s3
from benchmarks.context import Context
from benchmarks.results import Measurement

RANKINGS = (csv_to_rankings, refresh_from_parquet, small_drop)
OTHERS = (queries, lookups, bombs, pages, drop_latency, growth, s3, embeddings)
CASES: dict[str, Callable[[Context], Iterator[Measurement]]] = {case.__name__: case for case in (*RANKINGS, *OTHERS)}
MOST_USERS = {"embeddings": 50_000, "s3": 50_000}
"""Largest numbers of users of cases that are not chosen by name."""
