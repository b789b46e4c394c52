"""gensim's training process: its progress, and how it is stopped."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from music_assets.embedding.word2vec import Hyperparameters, Progress
from music_assets.embedding.word2vec_gensim import train
from music_assets_tests.support.planted import planted_interactions
from music_assets_tests.support.processes import wait_until

ENDLESS = Hyperparameters(workers=1, passes=1_000_000)


def child_processes() -> list[str]:
    """Return the ids of the children of this process, of all its threads."""
    return [pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]


def test_progress_ends_with_the_last_pass_and_the_loss_decreases():
    reported: list[Progress] = []
    train(planted_interactions(), Hyperparameters(workers=1, passes=10), reported.append)
    assert [progress.passes_done for progress in reported] == list(range(1, 11))
    assert reported[-1].seconds_left == 0
    assert all(progress.words_per_second > 0 for progress in reported)
    assert 0 < reported[-1].loss < reported[0].loss


def test_interrupt_ends_the_training_process():
    before = child_processes()

    def interrupt(progress: Progress) -> None:
        assert len(child_processes()) == len(before) + 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(planted_interactions(users=60), ENDLESS, interrupt)
    assert child_processes() == before


def test_training_process_ends_when_its_parent_is_killed():
    """A killed parent runs no clean-up, so the training process must detect it; otherwise it runs for hours."""
    parent_code = "\n".join(
        (
            "from music_assets_tests.embedding.test_word2vec_gensim import *",
            "train(planted_interactions(users=60), ENDLESS, lambda _: print(*child_processes(), flush=True))",
        )
    )
    with subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True) as parent:
        training = psutil.Process(int(parent.stdout.readline().split()[0]))
        parent.kill()

    def has_ended() -> bool:
        try:
            return training.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    wait_until(has_ended, "the end of the training process")
