"""The job train_embeddings with Spark ML's word2vec in the place of gensim's, through Dagster."""

from pathlib import Path
from typing import Any

import numpy as np

from music_assets.data_root import DataRoot
from music_assets.defs.build import build_definitions
from music_assets.defs.jobs import TRAIN_EMBEDDINGS
from music_assets.embedding.word2vec_spark import SparkTrainer
from music_assets.storage.published_snapshot import connect
from music_assets.tables import ARTIST_EMBEDDING, USER_EMBEDDING
from music_assets_tests.support.project import Project
from music_assets_tests.support.training import drop


def test_everyone_gets_a_finite_vector(tmp_path: Path, spark_session: Any) -> None:
    project = Project(tmp_path)
    drop(tmp_path, users=100)
    assert project.refresh().success
    definitions = build_definitions(project.settings, resources={"trainer": SparkTrainer(lambda: spark_session)})
    ended = definitions.resolve_job_def(TRAIN_EMBEDDINGS).execute_in_process(
        {"ops": {"embeddings": {"config": {"passes": 5}}}}, instance=project.instance
    )
    logged = [entry.user_message for entry in project.instance.all_logs(ended.run_id)]
    assert any(message.startswith("5.0 of 5 passes, ") and "loss" not in message for message in logged)
    with connect(DataRoot(tmp_path)) as connection:
        for table, key in ((ARTIST_EMBEDDING, "artist_name"), (USER_EMBEDDING, "user_id")):
            vectors = connection.execute(f"FROM {table.full_name}").df().set_index(key)
            listed = connection.execute(f"SELECT DISTINCT {key} FROM raw_parquet_user_top_artists").fetchall()
            assert sorted(vectors.index) == sorted(value for (value,) in listed)
            assert vectors.shape[1] == 50
            assert np.isfinite(vectors.to_numpy()).all()
