"""The job train_embeddings on generated data with planted taste clusters: published tables, metadata, refusals."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient

from music_assets.data_root import DataRoot, exclusive_lock
from music_assets.defs.assets.embeddings import BEATS_BASELINES, REQUIRED_RATIOS, TrainingConfig
from music_assets.defs.build import build_definitions
from music_assets.embedding import word2vec_gensim, word2vec_spark
from music_assets.embedding.evaluation import COMPARISONS, USER_TO_USER
from music_assets.embedding.word2vec import Hyperparameters
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.ingest.landing import Landing
from music_assets.maintenance.drops import list_drops
from music_assets.maintenance.retract import retract
from music_assets.settings import Settings
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import connect
from music_assets.storage.publisher import Publisher
from music_assets.tables import (
    ARTIST_EMBEDDING,
    COUNTRY_RANK_PER_ARTIST,
    EMBEDDING_TABLES,
    REFRESH_RANKINGS,
    TRAIN_EMBEDDINGS,
    USER_EMBEDDING,
    USER_TOP_ARTISTS,
    Table,
)
from music_assets_tests.service.conftest import serving
from music_assets_tests.support.planted import same_cluster_share
from music_assets_tests.support.sample_genres import artist_genre, user_genres
from music_assets_tests.support.training import drop, refresh, run_job, train
from music_assets_tests.support.user_oracle import user_of

USERS = 400
PASSES = 8
NOTEBOOK = Path(__file__).parents[3] / "docs" / "notebooks" / "tour.ipynb"
KEYS = {dg.AssetKey(table.asset_key) for table in EMBEDDING_TABLES}


@dataclass(frozen=True)
class Trained:
    """A data root after a refresh and a training, with the result of the training."""

    root: Path
    instance: dg.DagsterInstance
    result: dg.ExecuteInProcessResult

    def table(self, name: str) -> pd.DataFrame:
        with connect(DataRoot(self.root)) as connection:
            return connection.execute(f"FROM {name}").df()

    def metadata(self, table: Table) -> dict[str, Any]:
        events = {event.asset_key.to_user_string(): event for event in self.result.get_asset_materialization_events()}
        found = events[table.name].step_materialization_data.materialization.metadata
        return {name: entry.value for name, entry in found.items()}

    def baselines_check(self) -> dg.AssetCheckEvaluation:
        evaluations = {each.check_name: each for each in self.result.get_asset_check_evaluations()}
        return evaluations[BEATS_BASELINES.name]

    def log(self) -> list[str]:
        """Return the lines of the run's log."""
        return [entry.user_message for entry in self.instance.all_logs(self.result.run_id)]

    def progress(self) -> str:
        """Return the last line of progress of word2vec."""
        return [line for line in self.log() if " passes, " in line][-1]

    def check_vectors(self) -> None:
        """Every artist and user of the raw table has exactly one vector of 50 finite numbers."""
        listed = self.table("raw_parquet_user_top_artists")
        for table, key in ((ARTIST_EMBEDDING, "artist_name"), (USER_EMBEDDING, "user_id")):
            vectors = self.table(table.full_name)
            assert list(vectors.columns) == list(table.schema.names)
            assert sorted(vectors[key]) == sorted(listed[key].unique())
            assert vectors[key].is_monotonic_increasing
            assert np.isfinite(vectors.filter(like="dim_").to_numpy()).all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """A trained data root. Do not change it."""
    root = tmp_path_factory.mktemp("trained")
    with dg.DagsterInstance.ephemeral() as instance:
        drop(root, USERS)
        refresh(root, instance)
        yield Trained(root, instance, train(root, instance, passes=PASSES, workers=1))


@pytest.fixture
def copy(trained: Trained, tmp_path: Path) -> Trained:
    """A copy of the trained data root, to be changed."""
    shutil.copytree(trained.root, tmp_path, dirs_exist_ok=True)
    return replace(trained, root=tmp_path)


def test_every_artist_and_user_has_a_vector_and_scratch_files_are_removed(trained: Trained) -> None:
    trained.check_vectors()
    assert not DataRoot(trained.root).training.exists()


def test_every_artist_and_user_has_a_vector_when_spark_trains(tmp_path: Path, spark_engine: Any) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        drop(tmp_path, 100)
        refresh(tmp_path, instance)
        trainer = partial(word2vec_spark.train, lambda: spark_engine.session)
        definitions = build_definitions(Settings(data=tmp_path), resources={"trainer": trainer})
        config = {"ops": {"embeddings": {"config": {"passes": 5}}}}
        job = definitions.resolve_job_def(TRAIN_EMBEDDINGS)
        trained = Trained(tmp_path, instance, job.execute_in_process(config, instance=instance))
        trained.check_vectors()
        assert trained.progress().startswith("5.0 of 5 passes, ")
        assert "loss" not in trained.progress()


def chance(clusters: np.ndarray) -> float:
    """Return the expected share of neighbours of the same cluster if neighbours were drawn at random."""
    return float(np.mean(clusters[:, None] == clusters[None]))


def test_users_of_a_planted_cluster_are_neighbours(trained: Trained) -> None:
    users = trained.table(USER_EMBEDDING.full_name).set_index("user_id")
    genres = user_genres(USERS)
    clusters = np.array([genres[user] for user in users.index])
    assert same_cluster_share(users.to_numpy(), clusters) > 5 * chance(clusters)


def test_artists_of_a_planted_cluster_are_neighbours(trained: Trained) -> None:
    """Only artists with at least ten listeners: the vector of a rarer one depends on too few of them."""
    listeners = trained.table("raw_parquet_user_top_artists")["artist_name"].value_counts()
    artists = trained.table(ARTIST_EMBEDDING.full_name).set_index("artist_name")
    frequent = artists.loc[listeners[listeners >= 10].index]
    clusters = np.array([artist_genre(name) for name in frequent.index])
    assert len(frequent) > 100
    assert same_cluster_share(frequent.filter(like="dim_").to_numpy(), clusters) > 4 * chance(clusters)


def test_materializations_have_the_metadata_of_every_table(trained: Trained) -> None:
    for table in EMBEDDING_TABLES:
        shown = trained.metadata(table)
        assert shown["dagster/row_count"] == len(trained.table(table.full_name))
        assert [column.name for column in shown["dagster/column_schema"].columns] == list(table.schema.names)
        (dep,) = shown["dagster/column_lineage"].deps_by_column[table.key[0]]
        assert (dep.asset_key, dep.column_name) == (dg.AssetKey(USER_TOP_ARTISTS.asset_key), table.key[0])
        assert shown["table version"] == 1
        assert shown["size (bytes)"] > 0
        assert shown["duration (s)"] > 0
        assert shown["passes"] == PASSES


def test_metadata_shows_neighbours_of_the_largest_artists_and_a_map(trained: Trained) -> None:
    listeners = trained.table("raw_parquet_user_top_artists").groupby("artist_name")["user_id"].nunique()
    largest = listeners.reset_index().sort_values(["user_id", "artist_name"], ascending=[False, True])
    shown = trained.metadata(ARTIST_EMBEDDING)
    lines = shown["neighbours of the largest artists"].splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == list(largest["artist_name"][:10])
    assert all(line.count("(0.") == 5 for line in lines)
    assert "](data:image/png;base64,iVBORw0KGgo" in shown["map"]


def test_vectors_beat_the_baselines(trained: Trained) -> None:
    check = trained.baselines_check()
    metrics = {name: entry.value for name, entry in check.metadata.items()}
    assert check.passed
    recall = {name: (metrics[f"{name} recall@20"], metrics[f"{name}, baseline recall@20"]) for name in COMPARISONS}
    assert all(ours > REQUIRED_RATIOS[name] * baseline > 0 for name, (ours, baseline) in recall.items())
    assert {"user to user HR@10", "user to user, baseline NDCG@10"} <= set(metrics)
    assert metrics["users"] == 100


def test_training_below_a_baseline_is_published_with_a_warning(copy: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REQUIRED_RATIOS, USER_TO_USER, 50)
    result = train(copy.root, copy.instance, passes=1)
    check = replace(copy, result=result).baselines_check()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert dg.AssetKey("music_db") in {event.asset_key for event in result.get_asset_materialization_events()}


def test_progress_is_logged(trained: Trained) -> None:
    last = trained.progress()
    assert last.startswith(f"{PASSES}.0 of {PASSES} passes, ")
    assert all(word in last for word in ("words/s", "loss", "0 s left"))
    assert [line.partition(": ")[2] for line in trained.log() if line.startswith("ridge regression")] == [
        *(f"round {number} of 8" for number in range(1, 9)),
        "round 1 of 1",
    ]


def test_notebook_answers_its_questions(trained: Trained) -> None:
    """The outputs in the file are of other data; the code is the same."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with serving(trained.root, query_workers=1, query_memory_mb=1024) as service:
        for cell in notebook.cells:
            cell.source = cell.source.replace("http://127.0.0.1:8000", service.url)
        NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert "Did you mean" in printed
    accuracy, majority = (float(number) for number in re.findall(r"0\.\d{3}", printed))
    assert accuracy > 1.1 * majority


def test_training_never_starts_automatically(tmp_path: Path) -> None:
    definitions = build_definitions(Settings(data=tmp_path))
    repository = definitions.get_repository_def()
    targets = {target.job_name for sensor in repository.sensor_defs for target in sensor.targets}
    assert TRAIN_EMBEDDINGS not in targets
    assert repository.schedule_defs == []
    graph = definitions.resolve_asset_graph()
    assert [key for key in KEYS if graph.get(key).automation_condition is not None] == []
    assert KEYS & definitions.resolve_job_def(REFRESH_RANKINGS).asset_layer.executable_asset_keys == set()


def current_plays(trained: Trained) -> pd.DataFrame:
    """Return the plays of each user and artist, as they are now."""
    return trained.table("current_user_top_artists").groupby(["user_id", "artist_name"])["playcount"].sum()


def test_refresh_places_users_whose_lists_changed_and_trains_nothing(copy: Trained) -> None:
    before, artists = (copy.table(table.full_name) for table in (USER_EMBEDDING, ARTIST_EMBEDDING))
    drop(copy.root, 150, seed=3)
    refresh(copy.root, copy.instance)
    assert copy.table(ARTIST_EMBEDDING.full_name).equals(artists)
    after, plays = copy.table(USER_EMBEDDING.full_name).set_index("user_id"), current_plays(copy)
    known = artists.set_index("artist_name")
    delivered = sorted(user_genres(150, seed=3))
    for user in delivered[::10]:
        counts = {name: count for name, count in plays[user].items() if name in known.index and count > 0}
        assert after.loc[user].to_numpy() == pytest.approx(user_of(known, counts), abs=2e-4)
    others = before[~before["user_id"].isin(delivered)].set_index("user_id")
    assert len(others) > 200
    assert after.loc[others.index].equals(others)
    assert sorted(after.index) == sorted({*before["user_id"], *delivered})
    (event,) = copy.instance.fetch_materializations(dg.AssetKey(USER_EMBEDDING.asset_key), limit=1).records
    shown = event.asset_materialization.metadata
    assert shown["users with a new vector"].value == len(delivered)
    assert shown["artists trained"].value > 0


def test_retraction_of_lists_is_followed(copy: Trained) -> None:
    before = copy.table(USER_EMBEDDING.full_name)
    drop(copy.root, 150, seed=3)
    refresh(copy.root, copy.instance)
    store, reader = DeltaStore(DataRoot(copy.root)), DuckDBEngine(DataRoot(copy.root).scratch)
    newest = max(list_drops(store, reader), key=lambda each: each.ingested_at)
    retract(
        store,
        reader,
        [each.content_hash for each in list_drops(store, reader) if each.ingested_at == newest.ingested_at],
    )
    refresh(copy.root, copy.instance)
    after = copy.table(USER_EMBEDDING.full_name)
    assert after["user_id"].tolist() == before["user_id"].tolist()
    assert after.to_numpy() == pytest.approx(before.to_numpy(), abs=2e-4)


def test_lists_are_not_followed_during_a_training(copy: Trained) -> None:
    before = copy.table(USER_EMBEDDING.full_name)
    drop(copy.root, 20, seed=3)
    with exclusive_lock(DataRoot(copy.root).training_lock):
        refresh(copy.root, copy.instance)
    assert copy.table(USER_EMBEDDING.full_name).equals(before)
    refresh(copy.root, copy.instance)
    assert not copy.table(USER_EMBEDDING.full_name).equals(before)


def test_user_of_unknown_artists_has_no_vector_until_the_next_training(copy: Trained, tmp_path: Path) -> None:
    lists = tmp_path / "new_lists.csv"
    lists.write_text("user_id,rank,artist_name,playcount,mbid\n999999,1,Nobody Knows Them,7,\n")
    Landing(DataRoot(copy.root)).place(lists)
    refresh(copy.root, copy.instance)
    assert 999999 not in set(copy.table(USER_EMBEDDING.full_name)["user_id"])
    train(copy.root, copy.instance, passes=1)
    assert 999999 in set(copy.table(USER_EMBEDDING.full_name)["user_id"])


def test_training_succeeds_though_refreshes_delete_the_rankings_it_started_with(copy: Trained) -> None:
    store = DeltaStore(DataRoot(copy.root))
    old = store.table_version(COUNTRY_RANK_PER_ARTIST)

    def trainer(*arguments: Any) -> Any:
        for _ in range(4):
            newer = store.new_folder(COUNTRY_RANK_PER_ARTIST) / "rows.parquet"
            newer.write_bytes(Path(store.table_version(COUNTRY_RANK_PER_ARTIST).files[0]).read_bytes())
            store.replace(COUNTRY_RANK_PER_ARTIST, [newer], {"inputs": {}})
            Publisher(store, "200MB").publish()
        return word2vec_gensim.train(*arguments)

    definitions = build_definitions(Settings(data=copy.root), resources={"trainer": trainer})
    job = definitions.resolve_job_def(TRAIN_EMBEDDINGS)
    config = {"ops": {"embeddings": {"config": {"passes": 1, "workers": 1}}}}
    assert job.execute_in_process(config, instance=copy.instance).success
    assert not Path(old.files[0]).exists()


def test_vectors_of_two_trainings_are_never_published_together(copy: Trained) -> None:
    """A training is killed after it has committed the artists, and a refresh publishes: the users do not match."""
    store = DeltaStore(DataRoot(copy.root))
    content = store.table_version(ARTIST_EMBEDDING)
    newer = store.new_folder(ARTIST_EMBEDDING) / "rows.parquet"
    newer.write_bytes(Path(content.files[0]).read_bytes())
    store.replace(ARTIST_EMBEDDING, [newer], {"inputs": {}})
    assert store.table_version(ARTIST_EMBEDDING).version == 2
    shown = Publisher(store, "200MB").publish().tables
    assert [shown[table.full_name].version for table in EMBEDDING_TABLES] == [1, 1]


def failure_message(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    return failure.step_failure_data.error_display_string


def test_training_without_rows_fails_and_writes_nothing(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        message = failure_message(run_job(tmp_path, TRAIN_EMBEDDINGS, instance))
    assert "No user has an artist yet" in message
    assert "refresh_rankings" in message
    assert [DeltaStore(DataRoot(tmp_path)).table_version(table).version for table in EMBEDDING_TABLES] == [-1, -1]
    assert not (tmp_path / "music_db").exists()


def test_second_training_is_refused_while_one_runs(trained: Trained) -> None:
    with exclusive_lock(DataRoot(trained.root).training_lock):
        result = run_job(trained.root, TRAIN_EMBEDDINGS, trained.instance, passes=1)
    assert "Another training is running" in failure_message(result)


def test_every_hyperparameter_has_a_description_and_its_default_in_the_launchpad() -> None:
    fields = TrainingConfig.to_config_schema().as_field().config_type.fields
    assert set(fields) == set(Hyperparameters.model_fields)
    for name, field in fields.items():
        assert field.description
        assert field.default_value == getattr(Hyperparameters(), name)
