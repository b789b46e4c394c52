"""The corpus: sentences shuffled and written to files as gensim reads them, an artist being its number.

An artist stands in a user's sentence as often as it weighs. The repeats are shuffled: side by side they would fill each
other's windows, and word2vec would learn little more than that an artist goes with itself. The order of the users is
shuffled too. One shuffle serves all passes: a fresh one for each pass was measured to gain nothing.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from music_assets.embedding.interactions import Bools, Ints, Listening

WORDS_PER_PART = 1_000_000
"""Words in a file. Progress is told after each; gensim sums the loss in single precision, which holds for so many."""


@dataclass(frozen=True)
class Part:
    """A file of the corpus, and the words and sentences in it."""

    path: Path
    words: int
    sentences: int


def write_corpus(listening: Listening, trained: Bools, seed: int, folder: Path) -> list[Part]:
    """Write the sentences of the marked artists, a line for each user that has any.

    The same seed gives the same bytes.
    """
    generator = np.random.default_rng(seed)
    repeats = np.where(trained[listening.artists], listening.weights, 0)
    words = listening.sum_by_user(repeats)
    order = generator.permutation(np.flatnonzero(words))
    ends = np.cumsum(words[order])
    cuts = np.searchsorted(ends, np.arange(WORDS_PER_PART, words.sum(), WORDS_PER_PART))
    tokens = np.array([str(number) for number in range(len(trained))], dtype=object)
    return [
        _write_part(folder / f"{number:05}.txt", listening, repeats, users, tokens, generator)
        for number, users in enumerate(np.split(order, cuts))
        if len(users)
    ]


def thin(listening: Listening, trained: Bools, sample: float, seed: int) -> Listening:
    """Return the listening with the marked artists' words left out at random, the more often the more frequent.

    A word of an artist with the share s of all words stays with probability (sqrt(s / sample) + 1) * sample / s, as in
    word2vec's first implementation (https://code.google.com/archive/p/word2vec). An artist that would lose its last
    word keeps them all. A sample of 0 leaves out nothing.
    """
    if not sample:
        return listening
    artists, weights = listening.artists, listening.weights
    counts = np.where(trained, np.bincount(artists, weights, len(trained)), 0)
    ratio = np.maximum(counts, 1) / (sample * counts.sum())
    stays = np.minimum((np.sqrt(ratio) + 1) / ratio, 1)
    kept = np.random.default_rng(seed).binomial(weights, stays[artists])
    gone = np.bincount(artists, kept, len(trained)) == 0
    return replace(listening, weights=np.where(gone[artists], weights, kept).astype(np.uint8))


def _write_part(
    path: Path,
    listening: Listening,
    repeats: npt.NDArray[np.uint8],
    users: Ints,
    tokens: npt.NDArray[np.object_],
    generator: np.random.Generator,
) -> Part:
    lengths = listening.starts[users + 1] - listening.starts[users]
    pairs = np.repeat(listening.starts[users] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    artists = np.repeat(listening.artists[pairs], repeats[pairs])
    lines = np.repeat(np.repeat(np.arange(len(users)), lengths), repeats[pairs])
    shuffled = np.lexsort((generator.random(len(lines)), lines))
    ends = np.flatnonzero(np.diff(lines, append=len(users)))
    words = tokens[artists[shuffled]]
    with path.open("w", encoding="ascii") as file:
        file.writelines(" ".join(line) + "\n" for line in np.split(words, ends[:-1] + 1))
    return Part(path, len(words), len(users))
