"""What the word2vec trainers share: hyperparameters, progress, results, and the choice of artists to train.

The trainers are in `word2vec_gensim.py` and `word2vec_spark.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from music_assets.embedding.interactions import Bools, Interactions, Ints

WORDS_TO_TRAIN = 6_000_000
MIN_PASSES = 2
MAX_PASSES = 30


class TrainingError(Exception):
    """The training cannot start, or failed. The message says why and what to do."""


class Hyperparameters(BaseModel):
    """The settings of a training. The defaults suit data of 400 to 500,000 users."""

    model_config = ConfigDict(frozen=True)

    seed: int = Field(1, ge=1, lt=2**31, description="Seed of the corpus shuffle and of word2vec.")
    workers: int | None = Field(
        None,
        ge=1,
        description=(
            "Threads of word2vec; default: MUSIC_ASSETS_THREADS, or one per core. "
            "On Spark: partitions; default: one per core, at most 4. "
            "With 1, the same seed gives identical vectors."
        ),
    )
    passes: int | None = Field(
        None, ge=1, description="Passes over the corpus; default: by its size, from 30 on small data to 2 on large."
    )
    min_listeners: int | None = Field(
        None,
        ge=1,
        description="Distinct listeners an artist needs to be trained; default: by the number of users.",
    )
    window: int = Field(5, ge=1, description="Context words on each side of a word, in a shuffled sentence.")
    negative: int = Field(5, ge=1, description="Negative samples per context word. Not on Spark.")
    ns_exponent: float = Field(
        -0.5,
        description="Exponent of the negative sampling distribution; below 0 favours rare artists. Not on Spark.",
    )
    sample: float = Field(1e-4, ge=0, description="Share of all words above which an artist's words are subsampled.")
    alpha: float = Field(0.05, gt=0, description="Initial learning rate; it decreases linearly.")
    min_alpha: float = Field(1e-4, gt=0, description="Final learning rate. Not on Spark.")
    context_share: float = Field(
        0.5, ge=0, description="Weight of word2vec's context vectors, added to the word vectors. Not on Spark."
    )
    rounds: int = Field(8, ge=1, description="Rounds of ridge regression: artists from users, users from artists.")
    ridge: float | None = Field(
        None,
        gt=0,
        description="Ridge of the artists' vectors, in listeners: the larger, the later rare artists are recommended; "
        "default: as min_listeners.",
    )
    unobserved: float = Field(
        0.1, gt=0, description="Weight of a pair of user and artist that is in no list; the others weigh 1 on average."
    )

    def min_listeners_for(self, users: int) -> int:
        """Return `min_listeners`; by default 0.8 times the fourth root of the number of users, at least 2."""
        return self.min_listeners or max(2, round(0.8 * users**0.25))

    def passes_for(self, words: int) -> int:
        """Return `passes`; by default enough to train 6 million words, between 2 and 30."""
        return self.passes or min(max(-(-WORDS_TO_TRAIN // words), MIN_PASSES), MAX_PASSES)


@dataclass(frozen=True)
class Progress:
    """Passes completed (with a fraction) and in total, speed, loss per word if known, and the estimated time left."""

    passes_done: float
    passes: int
    words_per_second: float
    loss: float | None
    seconds_left: float


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class WordVectors:
    """The result of a training: the indices of the trained artists, their vectors, and the values derived from data."""

    artists: Ints
    vectors: npt.NDArray[np.float32]
    min_listeners: int
    passes: int
    words: int


Trainer = Callable[[Interactions, Hyperparameters, OnProgress | None, Path | None], WordVectors]
"""A training function. The path is the parent of its scratch folder; the system's temporary folder by default.

Any exception in the calling thread, such as an interrupt, stops the training. Raises TrainingError if there is nothing
to train on, or if the training failed.
"""


def select_artists(interactions: Interactions, hyperparameters: Hyperparameters) -> tuple[int, Bools]:
    """Return the number of distinct listeners an artist needs, and a mask of the artists that have as many.

    Raises TrainingError if no artist has been played.
    """
    listeners = interactions.listeners
    if not listeners.any():
        raise TrainingError("No artist has a playcount above 0, so there is nothing to train on.")
    # With a handful of users no artist may reach the threshold.
    threshold = min(hyperparameters.min_listeners_for(len(interactions.user_ids)), int(listeners.max()))
    return threshold, listeners >= threshold
