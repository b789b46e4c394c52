"""Spark ML's word2vec on a local session: passes, partitions, paths, refused settings, interrupts."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from music_assets.embedding import word2vec_gensim, word2vec_spark
from music_assets.embedding.word2vec import Hyperparameters, Progress, Trainer, TrainingError
from music_assets_tests.support.planted import planted_interactions

QUICK = Hyperparameters(passes=2)


def no_session() -> Any:
    pytest.fail("refused only after the session was started")


def test_same_artists_and_passes_as_gensim_with_any_number_of_partitions(spark_trainer: Trainer):
    interactions = planted_interactions(users=60)
    ours, gensims = spark_trainer(interactions, QUICK, None, None), word2vec_gensim.train(interactions, QUICK)
    three = spark_trainer(interactions, QUICK.model_copy(update={"workers": 3}), None, None)
    assert ours.artists.tolist() == three.artists.tolist() == gensims.artists.tolist()
    assert ours.vectors.shape == three.vectors.shape == gensims.vectors.shape
    assert (ours.min_listeners, ours.words, ours.passes) == (gensims.min_listeners, gensims.words, gensims.passes)
    assert ours.min_listeners > 1
    assert 0 < len(ours.artists) < len(interactions.artist_names)


@pytest.mark.parametrize(("passes", "rounded"), [(1, 1), (7, 8), (20, 20)])
def test_passes_are_whole_iterations(spark_trainer: Trainer, passes: int, rounded: int):
    """Up to five passes are iterations over one copy of the corpus; seven are four iterations over two copies."""
    reported: list[Progress] = []
    word_vectors = spark_trainer(planted_interactions(users=30), Hyperparameters(passes=passes), reported.append, None)
    assert word_vectors.passes == rounded
    assert [progress.passes for progress in reported] == [rounded] * len(reported)
    done = [progress.passes_done for progress in reported]
    assert done == sorted(set(done))
    assert done[-1] == rounded
    assert reported[-1].seconds_left == 0
    assert all(progress.words_per_second > 0 and progress.loss is None for progress in reported)


def test_folder_name_with_special_characters_and_clean_up(spark_trainer: Trainer, tmp_path: Path):
    folder = tmp_path / "my [old] {data,x} 100% *?\\"
    folder.mkdir()
    assert len(spark_trainer(planted_interactions(users=30), QUICK, None, folder).artists) > 10
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("setting", [{"negative": 7}, {"ns_exponent": 0.75}, {"min_alpha": 0.01}, {"context_share": 0}])
def test_setting_that_spark_does_not_support_is_refused_by_name(setting: dict[str, float]):
    (name,) = setting
    with pytest.raises(TrainingError, match=f"does not support {name}"):
        word2vec_spark.train(no_session, planted_interactions(users=10), Hyperparameters(**setting))


def test_diverged_training_is_refused(spark_trainer: Trainer):
    """A learning rate of 5 gives components of thousands."""
    with pytest.raises(TrainingError, match=r"diverged: the vectors of \d+ of \d+ artists .* fewer workers"):
        spark_trainer(planted_interactions(users=60), Hyperparameters(passes=5, alpha=5, sample=0), None, None)


@pytest.mark.parametrize("component", [np.inf, -np.inf, np.nan, 1e4, -1e30])
def test_single_diverged_component_is_detected(component: float):
    vectors = np.full((3, 50), 2.5, np.float32)
    word2vec_spark.refuse_diverged(vectors)
    vectors[1, 17] = component
    with pytest.raises(TrainingError, match="of 1 of 3 artists"):
        word2vec_spark.refuse_diverged(vectors)


def send_during_job(number: int, sent: signal.Signals, session: Any) -> None:
    """Send this process a signal as soon as the Spark job of that number, or a later one, runs."""
    tracker = session.sparkContext.statusTracker()

    def watch() -> None:
        while max(tracker.getActiveJobsIds(), default=0) < number:
            pass
        os.kill(os.getpid(), sent)

    threading.Thread(target=watch, daemon=True).start()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGUSR1])
def test_interrupt_cancels_the_jobs(spark_trainer: Trainer, spark_engine: Any, tmp_path: Path, sent: signal.Signals):
    """During a training of minutes. Its first job counts the words; the second is the first iteration.

    pyspark handles SIGINT by cancelling every job; SIGUSR1 only raises here.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    context = spark_engine.session.sparkContext
    tracker = context.statusTracker()
    context.parallelize([1]).count()
    send_during_job(max(tracker.getJobIdsForGroup(None)) + 2, sent, spark_engine.session)
    before = signal.signal(signal.SIGUSR1, interrupt)
    minutes = Hyperparameters(passes=500, sample=0, window=100)
    with pytest.raises(KeyboardInterrupt):
        spark_trainer(planted_interactions(), minutes, None, tmp_path)
    signal.signal(signal.SIGUSR1, before)
    assert tracker.getActiveJobsIds() == []
    assert list(tmp_path.iterdir()) == []


def test_pyspark_is_not_imported_before_a_training():
    code = (
        "import sys; import music_assets.embedding.word2vec_spark; "
        "print({name.split('.')[0] for name in sys.modules} & {'pyspark', 'py4j', 'dagster_pyspark'})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"
