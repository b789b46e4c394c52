"""Everything that lasts: Delta tables, their integrity and compaction, and the published snapshot.

Nothing here parses CSV, knows an engine, or imports Dagster.
"""
