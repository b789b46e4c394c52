"""One training from start to end: hold out, train, evaluate, and embed everybody.

What is held out for the evaluation stays out of the training, and of the vectors that are evaluated. The published ones
are means over all that a user listens to. So one training gives both the figures and the vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from music_assets.embedding.evaluation import Figures, by_cosine, by_popularity, evaluate, split
from music_assets.embedding.interactions import Listening
from music_assets.embedding.vectors import Embeddings, embed
from music_assets.embedding.word2vec import Hyperparameters, Progress, Trainer, WordVectors, train

EVALUATED_SHARE = 0.1
FEWEST_EVALUATED = 100
MOST_EVALUATED = 1_000


@dataclass(frozen=True)
class Training:
    """What came out: the vectors, and what they foretell beside popularity, on the same held-out artists.

    No figures where nobody has five artists, of which one could be held out.
    """

    embeddings: Embeddings
    word_vectors: WordVectors
    figures: Figures | None
    popularity: Figures | None


def evaluated_users(users: int) -> int:
    """Return of how many users artists are held out: a tenth, but 100 at least and 1,000 at most."""
    return min(max(int(users * EVALUATED_SHARE), FEWEST_EVALUATED), MOST_EVALUATED)


def train_and_evaluate(
    listening: Listening,
    hyperparameters: Hyperparameters,
    on_progress: Callable[[Progress], None] | None = None,
    folder: Path | None = None,
    trainer: Trainer = train,
) -> Training:
    """Train on all but what is held out of some users' lists; see `train` for the arguments and errors."""
    data = split(listening, hyperparameters.seed, evaluated_users(len(listening.user_ids)))
    word_vectors = trainer(data.kept, hyperparameters, on_progress, folder)
    figures = popularity = None
    if len(data.users):
        figures = evaluate(data, by_cosine(embed(data.kept, word_vectors)))
        popularity = evaluate(data, by_popularity(data.kept))
    return Training(embed(listening, word_vectors), word_vectors, figures, popularity)
