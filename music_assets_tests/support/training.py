"""Run the real jobs on a data root of generated rows: drop, refresh, train."""

from pathlib import Path
from typing import Any

import dagster as dg

from music_assets.data_root import DataRoot
from music_assets.defs.build import build_definitions
from music_assets.ingest.landing import Landing
from music_assets.sample_data.generator import generate
from music_assets.settings import Settings
from music_assets.tables import REFRESH_RANKINGS, TRAIN_EMBEDDINGS


def run_job(root: Path, job: str, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    """Run a job, which may fail; `config` is the run config of the training."""
    definitions = build_definitions(Settings(data=root, settle_seconds=0))
    ops = {"ops": {"embeddings": {"config": config}}} if config else None
    return definitions.resolve_job_def(job).execute_in_process(ops, instance=instance, raise_on_error=False)


def drop(root: Path, users: int, seed: int = 0) -> None:
    """Drop generated files."""
    landing = Landing(DataRoot(root))
    landing.root.prepare()
    made = generate(root / "made", users, seed)
    for path in (made.users_csv, made.user_top_artists_csv):
        landing.place(path)


def refresh(root: Path, instance: dg.DagsterInstance) -> None:
    """Run refresh_rankings, which must succeed."""
    assert run_job(root, REFRESH_RANKINGS, instance).success


def train(root: Path, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    """Run train_embeddings, which must succeed."""
    result = run_job(root, TRAIN_EMBEDDINGS, instance, **config)
    assert result.success
    return result
