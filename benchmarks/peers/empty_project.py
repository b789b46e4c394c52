"""A Dagster project with a sensor that detects a file, and an asset that only removes it.

EMPTY_DROPS=FOLDER SENSOR_INTERVAL=5 dagster dev -f empty_project.py
"""

import os
from pathlib import Path

import dagster as dg

DROPS = Path(os.environ["EMPTY_DROPS"])


@dg.asset
def empty() -> None:
    """Compute nothing."""
    for file in DROPS.glob("*.csv"):
        file.unlink()


job = dg.define_asset_job("empty_job", selection=[empty], executor_def=dg.in_process_executor)


@dg.sensor(
    job=job,
    minimum_interval_seconds=int(os.environ["SENSOR_INTERVAL"]),
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def file_sensor() -> dg.RunRequest | dg.SkipReason:
    """Request one run for each file."""
    files = sorted(DROPS.glob("*.csv"))
    return dg.RunRequest(run_key=f"{files[0].name} {files[0].stat().st_mtime_ns}") if files else dg.SkipReason("none")


defs = dg.Definitions(assets=[empty], jobs=[job], sensors=[file_sensor], executor=dg.in_process_executor)
