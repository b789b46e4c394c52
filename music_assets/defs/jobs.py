"""The jobs: which assets one run materializes together."""

import dagster as dg

from music_assets.tables import EMBEDDING_TABLES, RANKING_TABLES, RAW_TABLES, REFRESH_RANKINGS, TRAIN_EMBEDDINGS, Table

JOB_TAG = "music_assets/job"
"""Run tag by which dagster.yaml limits each job to one run at a time."""


def _published(*tables: Table) -> dg.AssetSelection:
    return dg.AssetSelection.assets(*(dg.AssetKey(table.asset_key) for table in tables), "music_db")


refresh_rankings = dg.define_asset_job(
    REFRESH_RANKINGS,
    selection=_published(*RAW_TABLES, *RANKING_TABLES),
    description="Load all waiting CSV files, compute both rankings, and publish music_db.",
    tags={JOB_TAG: REFRESH_RANKINGS},
    executor_def=dg.in_process_executor,
)
train_embeddings = dg.define_asset_job(
    TRAIN_EMBEDDINGS,
    selection=_published(*EMBEDDING_TABLES),
    description="Train word2vec on the users' top artists, and publish music_db. Never starts automatically.",
    tags={JOB_TAG: TRAIN_EMBEDDINGS},
    executor_def=dg.in_process_executor,
)
