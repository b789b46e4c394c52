"""The word2vec corpus: one shuffled sentence of artist indices per user, in files that gensim and Spark read.

An artist is repeated in a user's sentence as often as its weight. The repeats are shuffled: next to each other they
would fill each other's context windows, and word2vec would mostly learn that an artist co-occurs with itself. The order
of users is shuffled too. All passes share one shuffle; a new one for each pass gained nothing in measurements.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from music_assets.embedding.interactions import Bools, Interactions, Ints

WORDS_PER_PART = 1_000_000
"""Words per file. Progress is reported after each file; gensim's float32 sum of losses is exact enough up to here."""


@dataclass(frozen=True)
class Part:
    """A file of the corpus, and the number of its words and sentences."""

    path: Path
    words: int
    sentences: int


def write_corpus(interactions: Interactions, trained: Bools, seed: int, folder: Path) -> list[Part]:
    """Write the sentences of the trained artists, one line for each user that has any.

    The same seed gives the same bytes.
    """
    generator = np.random.default_rng(seed)
    repeats = np.where(trained[interactions.artists], interactions.weights, 0)
    words = interactions.sum_by_user(repeats)
    order = generator.permutation(np.flatnonzero(words))
    ends = np.cumsum(words[order])
    cuts = np.searchsorted(ends, np.arange(WORDS_PER_PART, words.sum(), WORDS_PER_PART))
    tokens = np.array([str(index) for index in range(len(trained))], dtype=object)
    return [
        _write_part(folder / f"{number:05}.txt", interactions, repeats, users, tokens, generator)
        for number, users in enumerate(np.split(order, cuts))
        if len(users)
    ]


def subsample(interactions: Interactions, trained: Bools, sample: float, seed: int) -> Interactions:
    """Drop words of the trained artists at random, more of the frequent artists; a `sample` of 0 drops none.

    A word of an artist with the share s of all words is kept with probability (sqrt(s / sample) + 1) * sample / s, as
    in the original word2vec (https://code.google.com/archive/p/word2vec). An artist that would lose all its words
    keeps all of them.
    """
    if not sample:
        return interactions
    artists, weights = interactions.artists, interactions.weights
    counts = np.where(trained, np.bincount(artists, weights, len(trained)), 0)
    ratio = np.maximum(counts, 1) / (sample * counts.sum())
    probability = np.minimum((np.sqrt(ratio) + 1) / ratio, 1)
    kept = np.random.default_rng(seed).binomial(weights, probability[artists])
    lost = np.bincount(artists, kept, len(trained)) == 0
    return replace(interactions, weights=np.where(lost[artists], weights, kept).astype(np.uint8))


def _write_part(
    path: Path,
    interactions: Interactions,
    repeats: npt.NDArray[np.uint8],
    users: Ints,
    tokens: npt.NDArray[np.object_],
    generator: np.random.Generator,
) -> Part:
    starts = interactions.starts
    lengths = starts[users + 1] - starts[users]
    pairs = np.repeat(starts[users] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    artists = np.repeat(interactions.artists[pairs], repeats[pairs])
    lines = np.repeat(np.repeat(np.arange(len(users)), lengths), repeats[pairs])
    shuffled = np.lexsort((generator.random(len(lines)), lines))
    ends = np.flatnonzero(np.diff(lines, append=len(users)))
    words = tokens[artists[shuffled]]
    with path.open("w", encoding="ascii") as file:
        file.writelines(" ".join(line) + "\n" for line in np.split(words, ends[:-1] + 1))
    return Part(path, len(words), len(users))
