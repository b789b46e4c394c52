"""What Dagster loads: assets, checks, jobs, sensors, resources. Code that needs no Dagster belongs elsewhere."""
