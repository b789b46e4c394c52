"""Spark ML's word2vec on small data, on a real local session: it learns what gensim's does, is stopped, and refuses."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from music_assets.embedding.vectors import embed, unit
from music_assets.embedding.word2vec import Hyperparameters, Progress, TrainingError, train
from music_assets.embedding.word2vec_spark import SparkTrainer, refuse_exploded
from music_assets_tests.support.planted import CLUSTERS, listening_of, planted_listening

QUICK = Hyperparameters(passes=2)


@pytest.fixture(scope="session")
def trainer(spark_session: Any) -> SparkTrainer:
    return SparkTrainer(lambda: spark_session)


def test_neighbours_are_of_the_same_planted_cluster(trainer: SparkTrainer):
    """By chance one neighbour in six would be."""
    listening = planted_listening()
    embeddings = embed(listening, trainer(listening, Hyperparameters(passes=10)))
    artist_clusters = np.array([int(name.split("-")[0]) for name in embeddings.artist_names.to_pylist()])
    for vectors, clusters in (
        (embeddings.artists, artist_clusters),
        (embeddings.users, embeddings.user_ids % CLUSTERS),
    ):
        cosines = unit(vectors) @ unit(vectors).T
        np.fill_diagonal(cosines, -2)
        nearest = np.argsort(-cosines, axis=1)[:, :5]
        assert np.mean(clusters[nearest] == clusters[:, None]) > 0.8


def test_it_trains_on_what_gensim_trains_on(trainer: SparkTrainer):
    listening = planted_listening(users=60)
    ours, gensims = trainer(listening, QUICK), train(listening, QUICK)
    assert ours.artists.tolist() == gensims.artists.tolist()
    assert ours.vectors.shape == gensims.vectors.shape
    assert (ours.min_listeners, ours.words, ours.passes) == (gensims.min_listeners, gensims.words, gensims.passes)
    assert ours.min_listeners > 1
    assert 0 < len(ours.artists) < len(listening.artist_names)


def test_one_partition_and_the_same_seed_give_the_same_bytes(trainer: SparkTrainer):
    listening = planted_listening(users=60)
    settings = [QUICK.model_copy(update={"workers": 1, "seed": seed}) for seed in (5, 5, 6)]
    first, again, other = (trainer(listening, setting).vectors.tobytes() for setting in settings)
    assert first == again != other


@pytest.mark.parametrize(("asked", "done"), [(1, 1), (7, 8), (20, 20)])
def test_passes_are_whole_rounds(trainer: SparkTrainer, asked: int, done: int):
    """Up to five rounds over one copy of the corpus; seven passes are four rounds over two."""
    seen: list[Progress] = []
    trained = trainer(planted_listening(users=30), Hyperparameters(passes=asked), seen.append)
    assert trained.passes == done
    assert [progress.passes for progress in seen] == [done] * len(seen)
    told = [progress.passes_done for progress in seen]
    assert told == sorted(set(told))
    assert told[-1] == done
    assert seen[-1].seconds_left == 0
    assert all(progress.words_per_second > 0 and progress.loss is None for progress in seen)


def test_partitions_share_the_work(trainer: SparkTrainer):
    listening = planted_listening(users=60)
    trained = trainer(listening, QUICK.model_copy(update={"workers": 3}))
    assert trained.artists.tolist() == trainer(listening, QUICK).artists.tolist()


def test_the_folder_may_have_any_name_and_is_left_empty(trainer: SparkTrainer, tmp_path: Path):
    folder = tmp_path / "my [old] {data,x} 100% *?\\"
    folder.mkdir()
    assert len(trainer(planted_listening(users=30), QUICK, None, folder).artists) > 10
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("listeners", [1, 2])
def test_data_of_a_handful_of_users_can_be_trained_on(trainer: SparkTrainer, listeners: int):
    listening = listening_of(*((user, "a b", 1) for user in range(listeners)))
    assert trainer(listening, QUICK).artists.tolist() == [0]


def test_nothing_played_is_nothing_to_train_on(trainer: SparkTrainer):
    with pytest.raises(TrainingError, match="nothing to train on"):
        trainer(listening_of((1, "a", 0), (2, "a", 0)), QUICK)


@pytest.mark.parametrize("setting", [{"negative": 7}, {"ns_exponent": 0.75}, {"min_alpha": 0.01}, {"context_share": 0}])
def test_a_setting_that_spark_does_not_have_is_refused_by_name(setting: dict[str, float]):
    (name,) = setting
    trainer = SparkTrainer(lambda: pytest.fail("no session is needed to see that"))
    with pytest.raises(TrainingError, match=f"knows no {name}"):
        trainer(planted_listening(users=10), Hyperparameters(**setting))


def test_a_training_that_explodes_is_refused(trainer: SparkTrainer):
    """A learning rate of 5 gives components of thousands."""
    with pytest.raises(TrainingError, match=r"useless vectors: those of \d+ of \d+ artists .* fewer workers"):
        trainer(planted_listening(users=60), Hyperparameters(passes=5, alpha=5, sample=0))


@pytest.mark.parametrize("component", [np.inf, -np.inf, np.nan, 1e4, -1e30])
def test_a_single_useless_component_is_seen(component: float):
    vectors = np.full((3, 49), 2.5, np.float32)
    refuse_exploded(vectors)
    vectors[1, 17] = component
    with pytest.raises(TrainingError, match="those of 1 of 3 artists"):
        refuse_exploded(vectors)


def test_what_fails_in_spark_is_an_error_that_tells_why(trainer: SparkTrainer):
    with pytest.raises(TrainingError, match=r"Spark's word2vec failed: .*cannot be cast to"):
        trainer(planted_listening(users=10), QUICK.model_copy(update={"window": 0x7FFF_FFFF_FFFF}))


def send_at_job(number: int, sent: signal.Signals, spark_session: Any) -> None:
    """Send this process a signal once Spark's job of that number runs."""
    tracker = spark_session.sparkContext.statusTracker()

    def watch() -> None:
        while number not in tracker.getActiveJobsIds():
            pass
        os.kill(os.getpid(), sent)

    threading.Thread(target=watch, daemon=True).start()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGUSR1])
def test_an_interrupt_cancels_the_jobs(trainer: SparkTrainer, spark_session: Any, tmp_path: Path, sent: signal.Signals):
    """In the midst of a training of minutes. Its first job counts the words, the second is the first round.

    What SIGINT does is up to pyspark, which cancels every job by itself; SIGUSR1 does no more than raise here.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    tracker = spark_session.sparkContext.statusTracker()
    spark_session.sparkContext.parallelize([1]).count()
    send_at_job(max(tracker.getJobIdsForGroup(None)) + 2, sent, spark_session)
    before = signal.signal(signal.SIGUSR1, interrupt)
    minutes = Hyperparameters(passes=500, sample=0, window=100)
    with pytest.raises(KeyboardInterrupt):
        trainer(planted_listening(), minutes, None, tmp_path)
    signal.signal(signal.SIGUSR1, before)
    assert tracker.getActiveJobsIds() == []
    assert list(tmp_path.iterdir()) == []


def test_without_a_training_nothing_of_spark_is_imported():
    code = (
        "import sys; from music_assets.embedding.word2vec_spark import SparkTrainer; SparkTrainer(lambda: None); "
        "print({name.split('.')[0] for name in sys.modules} & {'pyspark', 'py4j', 'dagster_pyspark'})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"
