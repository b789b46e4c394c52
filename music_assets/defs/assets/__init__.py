"""The assets. Each function connects resources; what it computes is in `ingest/`, `transforms/` and `embedding/`."""

OWNERS = ["team:music-data"]
RAW_CODE, RANKING_CODE, EMBEDDING_CODE, PUBLISHED_CODE = "0.2", "0.2", "0.2", "0.2"
"""The code version of the assets of each group: the release since which they have the same rows for the same files.

Raise it with a change of the rows: the web UI then shows the assets that were computed before as out of date.
"""
