"""The training itself, on small data: what it learns, that it repeats, how it is stopped."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from music_assets.embedding.vectors import Embeddings, embed, unit
from music_assets.embedding.word2vec import Hyperparameters, Progress, TrainingError, train
from music_assets_tests.support.planted import CLUSTERS, listening_of, planted_listening

ONE_WORKER = Hyperparameters(workers=1, passes=40)


def child_processes() -> list[str]:
    """Processes started by this one, of every thread, that are still there."""
    return [pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]


@pytest.fixture(scope="module")
def trained() -> tuple[Embeddings, list[Progress]]:
    """The vectors of the planted listening, and the progress told while they were trained."""
    listening, seen = planted_listening(), []
    return embed(listening, train(listening, ONE_WORKER, seen.append)), seen


def test_neighbours_are_of_the_same_planted_cluster(trained: tuple[Embeddings, list[Progress]]):
    """By chance one neighbour in six would be."""
    embeddings, _ = trained
    artist_clusters = np.array([int(name.split("-")[0]) for name in embeddings.artist_names.to_pylist()])
    for vectors, clusters in (
        (embeddings.artists, artist_clusters),
        (embeddings.users, embeddings.user_ids % CLUSTERS),
    ):
        cosines = unit(vectors) @ unit(vectors).T
        np.fill_diagonal(cosines, -2)
        nearest = np.argsort(-cosines, axis=1)[:, :5]
        assert np.mean(clusters[nearest] == clusters[:, None]) > 0.8


def test_the_same_seed_and_one_worker_give_the_same_bytes():
    listening = planted_listening(users=60)
    settings = [ONE_WORKER.model_copy(update={"passes": 2, "seed": seed}) for seed in (5, 5, 6)]
    first, again, other = (embed(listening, train(listening, setting)) for setting in settings)
    assert first.artists.tobytes() == again.artists.tobytes()
    assert first.users.tobytes() == again.users.tobytes()
    assert first.artists.tobytes() != other.artists.tobytes()


def test_progress_reaches_the_last_pass_and_the_loss_falls(trained: tuple[Embeddings, list[Progress]]):
    _, seen = trained
    assert [progress.passes_done for progress in seen] == list(range(1, 41))
    assert seen[-1].seconds_left == 0
    assert all(progress.words_per_second > 0 for progress in seen)
    assert 0 < seen[-1].loss < seen[0].loss


def test_an_interrupt_ends_the_training_process():
    before = child_processes()

    def interrupt(progress: Progress) -> None:
        assert len(child_processes()) == len(before) + 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(planted_listening(users=60), ONE_WORKER.model_copy(update={"passes": 1_000_000}), interrupt)
    assert child_processes() == before


def test_the_training_process_ends_with_the_one_that_started_it():
    """A parent that is killed runs no clean-up: the training must notice by itself, or it goes on for hours."""
    endless = "\n".join(
        (
            "from music_assets.embedding.word2vec import Hyperparameters, train",
            "from music_assets_tests.support.planted import planted_listening",
            "from pathlib import Path",
            "def tell(_):",
            "    print(*(f.read_text() for f in Path('/proc/self/task').glob('*/children')), flush=True)",
            "train(planted_listening(users=60), Hyperparameters(workers=1, passes=1_000_000), tell)",
        )
    )
    with subprocess.Popen([sys.executable, "-c", endless], stdout=subprocess.PIPE, text=True) as parent:
        training = Path("/proc") / parent.stdout.readline().split()[0]
        parent.kill()
    for _ in range(100):
        if not training.exists() or (training / "stat").read_text().split()[2] == "Z":
            return
        subprocess.run(["sleep", "0.1"], check=True)
    pytest.fail("the training process is still running")


def test_nothing_played_is_nothing_to_train_on():
    with pytest.raises(TrainingError, match="nothing to train on"):
        train(listening_of((1, "a", 0), (2, "a", 0)), ONE_WORKER)


def test_a_failing_training_process_is_an_error_that_tells_why():
    huge = Hyperparameters(workers=1, passes=1, window=0x7FFF_FFFF_FFFF)
    with pytest.raises(TrainingError, match="exit code 1: "):
        train(planted_listening(users=20), huge)


@pytest.mark.parametrize("listeners", [1, 2])
def test_data_of_a_handful_of_users_can_be_trained_on(listeners):
    listening = listening_of(*((user, "a b", 1) for user in range(listeners)))
    assert train(listening, ONE_WORKER).artists.tolist() == [0]


@pytest.mark.parametrize(
    ("users", "words", "min_listeners", "passes"),
    [(400, 30_000, 4, 60), (1_892, 240_000, 5, 50), (50_000, 8_000_000, 12, 5), (500_000, 80_000_000, 21, 5)],
)
def test_what_is_derived_from_the_size_of_the_data(users, words, min_listeners, passes):
    assert (Hyperparameters().min_listeners_for(users), Hyperparameters().passes_for(words)) == (min_listeners, passes)


def test_what_is_set_wins_over_what_is_derived():
    given = Hyperparameters(passes=7, min_listeners=3)
    assert (given.min_listeners_for(10**6), given.passes_for(1)) == (3, 7)
