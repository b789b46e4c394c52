"""Training with gensim's word2vec: the settings, what is derived from the data, and the run itself.

What a trainer takes and returns stands here too; `word2vec_spark.py` is another.

gensim trains in C, where neither a signal nor an exception reaches it. It therefore runs in a process of its own
(`training_process.py`), which tells its progress line by line and is killed when the waiting one is interrupted. That
also gives its memory back to the system.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from music_assets.embedding.corpus import Part, write_corpus
from music_assets.embedding.interactions import Bools, Ints, Listening

DIMENSIONS = 49
"""Dimensions that word2vec trains. The tables have one more, see `vectors.py`."""

WORDS_TO_TRAIN = 12_000_000
MOST_PASSES = 60
FEWEST_PASSES = 5


class TrainingError(Exception):
    """The training cannot start, or ended without vectors. The message tells why, and what to do."""


class Hyperparameters(BaseModel):
    """The settings of the training. The defaults suit data from 400 to 500,000 users."""

    model_config = ConfigDict(frozen=True)

    seed: int = Field(1, ge=1, lt=2**31, description="Seed of the shuffle and of word2vec.")
    workers: int | None = Field(
        None,
        ge=1,
        description=(
            "Threads that train; empty: one per core. With Spark: partitions; empty: one per core, but 4 at most. "
            "The same seed gives the same bytes with one."
        ),
    )
    passes: int | None = Field(
        None, ge=1, description="Passes over the corpus; empty: from its size, 60 on small data, 5 on large."
    )
    min_listeners: int | None = Field(
        None,
        ge=1,
        description="Distinct listeners an artist needs to take part in the training; empty: from the number of users.",
    )
    window: int = Field(5, ge=1, description="Words on each side that count as neighbours, in a shuffled sentence.")
    negative: int = Field(5, ge=1, description="Noise words drawn for each neighbour. Not with Spark.")
    ns_exponent: float = Field(
        -0.5,
        description="Exponent of the frequency in the noise: below 0 rare ones are drawn more often. Not with Spark.",
    )
    sample: float = Field(1e-4, ge=0, description="Share of all words from which on an artist's words are thinned out.")
    alpha: float = Field(0.05, gt=0, description="Learning rate of the first pass; it falls linearly.")
    min_alpha: float = Field(1e-4, gt=0, description="Learning rate at the end. Not with Spark.")
    context_share: float = Field(
        0.5,
        ge=0,
        description="Weight of word2vec's second matrix, the context vectors, in an artist's vector. Not with Spark.",
    )

    def min_listeners_for(self, users: int) -> int:
        """Return the threshold: as set, or 0.8 times the fourth root of the number of users, but 2 at least."""
        return self.min_listeners or max(2, round(0.8 * users**0.25))

    def passes_for(self, words: int) -> int:
        """Return the passes: as set, or as many as train 12 million words, between 5 and 60."""
        return self.passes or min(max(-(-WORDS_TO_TRAIN // words), FEWEST_PASSES), MOST_PASSES)


@dataclass(frozen=True)
class Progress:
    """How far a training is: passes done (with a fraction) of all, speed, loss per word in the last part, time left.

    No loss where the trainer tells none.
    """

    passes_done: float
    passes: int
    words_per_second: float
    loss: float | None
    seconds_left: float


@dataclass(frozen=True)
class WordVectors:
    """What word2vec learned: a vector for each trained artist, and what was derived from the data for it."""

    artists: Ints
    vectors: npt.NDArray[np.float32]
    min_listeners: int
    passes: int
    words: int


Trainer = Callable[[Listening, Hyperparameters, Callable[[Progress], None] | None, Path | None], WordVectors]
"""What trains: `train`, or another that takes, returns and raises the same."""


def train(
    listening: Listening,
    hyperparameters: Hyperparameters,
    on_progress: Callable[[Progress], None] | None = None,
    folder: Path | None = None,
) -> WordVectors:
    """Train word2vec on the artists with enough distinct listeners.

    `on_progress` is called after each part of a pass. The corpus, some 6 bytes a word, is written into a folder of its
    own in `folder`, or among the system's temporary files, and removed at the end. Any exception in this thread, such
    as an interrupt, ends the training within a second. Raises TrainingError where there is nothing to train on, or
    where the training failed.
    """
    min_listeners, trained = trained_artists(listening, hyperparameters)
    with tempfile.TemporaryDirectory(prefix="word2vec-", dir=folder) as name:
        folder = Path(name)
        parts = write_corpus(listening, trained, hyperparameters.seed, folder)
        words = sum(part.words for part in parts)
        passes = hyperparameters.passes_for(words)
        counts = np.bincount(listening.artists, weights=listening.weights, minlength=len(trained))
        np.save(folder / "artists.npy", np.flatnonzero(trained))
        np.save(folder / "counts.npy", counts[trained].astype(np.int64))
        _write_task(folder, hyperparameters, passes, parts)
        with _process(folder) as process:
            for line in process.stdout or ():
                if on_progress:
                    on_progress(Progress(**json.loads(line)))
            if process.wait() != 0:
                raise TrainingError(f"word2vec ended with exit code {process.returncode}: {_errors(folder)}")
        vectors = np.load(folder / "input.npy") + hyperparameters.context_share * np.load(folder / "context.npy")
    return WordVectors(np.flatnonzero(trained), vectors.astype(np.float32), min_listeners, passes, words)


def trained_artists(listening: Listening, hyperparameters: Hyperparameters) -> tuple[int, Bools]:
    """Return how many distinct listeners an artist needs, and which artists have them.

    Raises TrainingError where nobody has played anything.
    """
    listeners = listening.listeners
    if not listeners.any():
        raise TrainingError("No artist has a playcount above 0, so there is nothing to train on.")
    # Data of a handful of users may hold no artist that reaches the threshold.
    threshold = min(hyperparameters.min_listeners_for(len(listening.user_ids)), int(listeners.max()))
    return threshold, listeners >= threshold


def _write_task(folder: Path, hyperparameters: Hyperparameters, passes: int, parts: list[Part]) -> None:
    task = {
        "word2vec": {
            "vector_size": DIMENSIONS,
            "sg": 1,
            "min_count": 1,
            "workers": hyperparameters.workers or os.cpu_count() or 1,
            **hyperparameters.model_dump(include={"seed", "window", "negative", "ns_exponent", "sample"}),
        },
        "alpha": hyperparameters.alpha,
        "min_alpha": hyperparameters.min_alpha,
        "passes": passes,
        "parts": [{**asdict(part), "path": str(part.path)} for part in parts],
    }
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")


@contextmanager
def _process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the training process; it never outlives the block. It ends by itself when this end of its stdin closes."""
    with (folder / "errors.txt").open("w") as errors:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "music_assets.embedding.gensim_process", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()


def _errors(folder: Path) -> str:
    lines = (folder / "errors.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "killed from outside, perhaps for lack of memory"
