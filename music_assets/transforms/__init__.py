"""Pure functions from Ibis tables to Ibis tables. Nothing here imports Dagster or knows an engine."""
