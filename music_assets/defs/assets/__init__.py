"""The assets. Each function connects resources; what it computes is in `ingest/`, `transforms/` and `embedding/`."""

OWNERS = ["team:music-data"]
