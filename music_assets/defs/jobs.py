"""The jobs: which assets one run materializes together."""

import dagster as dg

from music_assets.tables import EMBEDDING_TABLES, RANKING_TABLES, RAW_TABLES, REFRESH_RANKINGS, TRAIN_EMBEDDINGS

JOB_TAG = "music_assets/job"
"""Tag of a run by which dagster.yaml lets one run of each job go at a time."""

refresh_rankings = dg.define_asset_job(
    REFRESH_RANKINGS,
    selection=dg.AssetSelection.assets(
        *(dg.AssetKey(table.asset_key) for table in (*RAW_TABLES, *RANKING_TABLES)), "music_db"
    ),
    description="Take every waiting CSV file, recompute both rankings, and publish music_db.",
    tags={JOB_TAG: REFRESH_RANKINGS},
    executor_def=dg.in_process_executor,
)

train_embeddings = dg.define_asset_job(
    TRAIN_EMBEDDINGS,
    selection=dg.AssetSelection.assets(*(dg.AssetKey(table.asset_key) for table in EMBEDDING_TABLES), "music_db"),
    description="Train word2vec on what the users listen to, and publish music_db. It runs only when a person asks.",
    tags={JOB_TAG: TRAIN_EMBEDDINGS},
    executor_def=dg.in_process_executor,
)
