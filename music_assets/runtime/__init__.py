"""Processes around Dagster: `music-assets up`, the DAGSTER_HOME, and the run launcher with its worker process.

What runs compute belongs to `defs/`, the query service to `service/`.
"""
