"""Pure functions from Ibis tables to Ibis tables, equal on every engine.

Nothing here reads or writes files, imports Dagster, or names an engine.
"""
