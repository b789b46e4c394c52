"""The job train_embeddings on made-up data with planted taste clusters: what it publishes, shows, and leaves alone."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from music_assets.data_root import DataRoot
from music_assets.defs.assets.embeddings import TrainingConfig
from music_assets.defs.build import build_definitions
from music_assets.defs.jobs import REFRESH_RANKINGS, TRAIN_EMBEDDINGS
from music_assets.embedding.training_folder import TrainingFolder
from music_assets.embedding.word2vec import Hyperparameters
from music_assets.sample_data.generator import artist_cluster, user_clusters
from music_assets.settings import Settings
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import Publisher, connect, published
from music_assets.tables import ARTIST_EMBEDDING, EMBEDDING_TABLES, USER_EMBEDDING, USER_TOP_ARTISTS
from music_assets_tests.service.conftest import serving
from music_assets_tests.support.training import drop, refresh, run_job, train

USERS = 800
PASSES = 25
PAGE = Path(__file__).parents[3] / "docs" / "embeddings.md"
KEYS = {dg.AssetKey(table.asset_key) for table in EMBEDDING_TABLES}


@dataclass(frozen=True)
class Trained:
    """A data root after a refresh and a training, with the training's result."""

    root: Path
    instance: dg.DagsterInstance
    ended: dg.ExecuteInProcessResult

    def table(self, name: str) -> pd.DataFrame:
        with connect(DataRoot(self.root)) as connection:
            return connection.execute(f"FROM {name}").df()

    def metadata(self, table: Any) -> dict[str, Any]:
        events = {event.asset_key.to_user_string(): event for event in self.ended.get_asset_materialization_events()}
        found = events[table.name].step_materialization_data.materialization.metadata
        return {name: entry.value for name, entry in found.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    root = tmp_path_factory.mktemp("trained")
    with dg.DagsterInstance.ephemeral() as instance:
        drop(root, USERS)
        refresh(root, instance)
        yield Trained(root, instance, train(root, instance, passes=PASSES, workers=1))


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """A data root of a hundred users, trained in one pass. To be left as it is."""
    root = tmp_path_factory.mktemp("hasty")
    with dg.DagsterInstance.ephemeral() as instance:
        drop(root, 100)
        refresh(root, instance)
        yield Trained(root, instance, train(root, instance, passes=1))


@pytest.fixture
def copy(hasty: Trained, tmp_path: Path) -> Trained:
    """A copy of it, to be changed."""
    shutil.copytree(hasty.root, tmp_path, dirs_exist_ok=True)
    return replace(hasty, root=tmp_path)


def test_everyone_gets_a_finite_vector(trained: Trained) -> None:
    listed = trained.table("raw_parquet_user_top_artists")
    for table, key in ((ARTIST_EMBEDDING, "artist_name"), (USER_EMBEDDING, "user_id")):
        vectors = trained.table(table.full_name)
        assert list(vectors.columns) == [key, *(f"dim_{number}" for number in range(50))]
        assert sorted(vectors[key]) == sorted(listed[key].unique())
        assert vectors[key].is_monotonic_increasing
        assert np.isfinite(vectors.drop(columns=key).to_numpy()).all()


def same_cluster_share(vectors: pd.DataFrame, clusters: np.ndarray) -> tuple[float, float]:
    """Return how many of the five nearest rows are of the row's cluster, and how many would be by chance."""
    points = vectors.to_numpy()
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    cosines = points @ points.T
    np.fill_diagonal(cosines, -2)
    nearest = np.argsort(-cosines, axis=1)[:, :5]
    chance = float(np.mean(clusters[:, None] == clusters[None]))
    return float(np.mean(clusters[nearest] == clusters[:, None])), chance


def test_users_of_one_planted_taste_are_neighbours(trained: Trained) -> None:
    users = trained.table(USER_EMBEDDING.full_name).set_index("user_id")
    planted = user_clusters(USERS)
    found, chance = same_cluster_share(users, np.array([planted[user] for user in users.index]))
    assert found > 5 * chance


def test_artists_of_one_planted_cluster_are_neighbours(trained: Trained) -> None:
    """The artists with ten listeners and more; of a rarer one the vector tells little more than one listener's."""
    listeners = trained.table("raw_parquet_user_top_artists")["artist_name"].value_counts()
    artists = trained.table(ARTIST_EMBEDDING.full_name).set_index("artist_name")
    known = artists.loc[listeners[listeners >= 10].index]
    found, chance = same_cluster_share(known, np.array([artist_cluster(name) for name in known.index]))
    assert len(known) > 100
    assert found > 4 * chance


def test_a_materialization_tells_what_a_table_tells(trained: Trained) -> None:
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


def test_neighbours_of_the_largest_artists_and_a_map_are_shown(trained: Trained) -> None:
    listeners = trained.table("raw_parquet_user_top_artists").groupby("artist_name")["user_id"].nunique()
    largest = listeners.reset_index().sort_values(["user_id", "artist_name"], ascending=[False, True])
    shown = trained.metadata(ARTIST_EMBEDDING)
    lines = shown["nearest to the artists with most listeners"].splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == list(largest["artist_name"][:10])
    assert all(line.count("(0.") == 5 for line in lines)
    assert "](data:image/png;base64,iVBORw0KGgo" in shown["map"]


def test_the_vectors_are_measured_beside_popularity(trained: Trained) -> None:
    (check,) = [each for each in trained.ended.get_asset_check_evaluations() if each.check_name.startswith("foretells")]
    figures = {name: entry.value for name, entry in check.metadata.items()}
    assert check.passed
    assert figures["recall@20"] > 1.25 * figures["popularity's recall@20"] > 0
    assert {"HR@10", "NDCG@10", "popularity's HR@10", "popularity's NDCG@10"} <= set(figures)
    assert figures["users"] == 100


def test_a_training_that_learned_nothing_is_warned_of_but_published(hasty: Trained) -> None:
    """One pass over a hundred users is too little to be better than popularity."""
    ended = hasty.ended
    (check,) = [each for each in ended.get_asset_check_evaluations() if each.check_name.startswith("foretells")]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert dg.AssetKey("music_db") in {event.asset_key for event in ended.get_asset_materialization_events()}


def test_progress_goes_into_the_log_of_the_run(trained: Trained) -> None:
    logged = [entry.user_message for entry in trained.instance.all_logs(trained.ended.run_id)]
    last = [message for message in logged if " passes, " in message][-1]
    assert last.startswith(f"{PASSES}.0 of {PASSES} passes, ")
    assert all(word in last for word in ("words/s", "loss", "0 s left"))


def test_the_recipe_predicts_countries_better_than_the_majority_does(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe of docs/embeddings.md, as it stands there."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    found: dict[str, Any] = {}
    with serving(trained.root, query_workers=1, query_memory_mb=1024) as service:
        exec(compile(code.replace("http://127.0.0.1:8000", service.url), str(PAGE), "exec"), found)
    assert len(found["data"]) > 200
    assert found["accuracy"] > 1.1 * found["majority"]
    told = f"accuracy {found['accuracy']:.3f}, always the most frequent country {found['majority']:.3f}"
    assert told in capsys.readouterr().out


def test_nothing_starts_a_training_by_itself(tmp_path: Path) -> None:
    definitions = build_definitions(Settings(data=tmp_path))
    repository = definitions.get_repository_def()
    assert [sensor.name for sensor in repository.sensor_defs if TRAIN_EMBEDDINGS in _targets(sensor)] == []
    assert repository.schedule_defs == []
    graph = definitions.resolve_asset_graph()
    assert [key for key in KEYS if graph.get(key).automation_condition is not None] == []
    assert KEYS & definitions.resolve_job_def(REFRESH_RANKINGS).asset_layer.executable_asset_keys == set()


def _targets(sensor: dg.SensorDefinition) -> list[str]:
    return [target.job_name for target in sensor.targets]


def test_drops_and_refreshes_do_not_materialize_embeddings(copy: Trained) -> None:
    """The vectors stay as trained and published, while the rows beside them become newer."""
    records = [copy.instance.get_latest_materialization_event(key).run_id for key in KEYS]
    earlier = published(DataRoot(copy.root)).tables
    drop(copy.root, 150, seed=3)
    refresh(copy.root, copy.instance)
    assert [copy.instance.get_latest_materialization_event(key).run_id for key in KEYS] == records
    assert set(records) == {copy.ended.run_id}
    later = published(DataRoot(copy.root)).tables
    for table in EMBEDDING_TABLES:
        assert later[table.full_name] == earlier[table.full_name]
    for name in ("raw_parquet_user_top_artists", "processed_parquet_country_rank_per_artist"):
        assert later[name].version > earlier[name].version


def test_vectors_of_two_trainings_are_never_published_together(copy: Trained) -> None:
    """A training dies after the artists' vectors were committed, and a refresh publishes: users' would not fit."""
    store = DeltaStore(DataRoot(copy.root))
    content = store.snapshot(ARTIST_EMBEDDING)
    newer = store.new_folder(ARTIST_EMBEDDING) / "rows.parquet"
    newer.write_bytes(Path(content.files[0]).read_bytes())
    store.replace(ARTIST_EMBEDDING, [newer], {"inputs": {}})
    assert store.snapshot(ARTIST_EMBEDDING).version == 2
    shown = Publisher(store, "200MB").publish().tables
    assert [shown[table.full_name].version for table in EMBEDDING_TABLES] == [1, 1]


def test_without_rows_the_failure_says_so_and_nothing_is_written(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        ended = run_job(tmp_path, TRAIN_EMBEDDINGS, instance)
        (failure,) = ended.filter_events(lambda event: event.is_step_failure)
    assert "No user has an artist yet" in failure.step_failure_data.error_display_string
    assert "refresh_rankings" in failure.step_failure_data.error_display_string
    assert [DeltaStore(DataRoot(tmp_path)).snapshot(table).version for table in EMBEDDING_TABLES] == [-1, -1]
    assert not (tmp_path / "music_db").exists()


def test_a_second_training_beside_the_first_is_refused(hasty: Trained) -> None:
    with TrainingFolder(DataRoot(hasty.root)).occupied():
        ended = run_job(hasty.root, TRAIN_EMBEDDINGS, hasty.instance, passes=1)
    (failure,) = ended.filter_events(lambda event: event.is_step_failure)
    assert "Another training is running" in failure.step_failure_data.error_display_string


def test_a_training_leaves_no_files_behind(hasty: Trained) -> None:
    assert not (hasty.root / ".scratch" / "training").exists()


def test_every_setting_of_the_training_is_documented_and_has_its_default_in_the_launchpad() -> None:
    fields = TrainingConfig.to_config_schema().as_field().config_type.fields
    assert set(fields) == set(Hyperparameters.model_fields)
    for name, field in fields.items():
        assert field.description
        assert field.default_value == getattr(Hyperparameters(), name)
