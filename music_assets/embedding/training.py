"""One training from start to end: interactions, holdout, word2vec, evaluation, embeddings.

Held-out interactions are used neither by word2vec nor in the vectors that are evaluated. One more round of ridge
regression includes them in the published vectors, so one training gives both.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ibis.expr.types as ir
import pyarrow.parquet as pq

from music_assets.data_root import DataRoot, LockHeldError, acquire_lock
from music_assets.embedding.evaluation import Comparison, evaluate_all, split
from music_assets.embedding.interactions import Interactions, read_interactions
from music_assets.embedding.vectors import Embeddings, Log, embed, no_log
from music_assets.embedding.word2vec import Hyperparameters, OnProgress, Trainer, TrainingError, WordVectors
from music_assets.engines.base import Engine
from music_assets.transforms.interactions import INTERACTIONS

EVALUATED_SHARE = 0.1
MIN_EVALUATED = 100
MAX_EVALUATED = 1_000


@dataclass(frozen=True)
class TrainingResult:
    """Embeddings, word vectors, and the metrics of the embeddings and of baselines on the same held-out artists.

    There are no comparisons if no user has the five artists that it takes to hold one out.
    """

    embeddings: Embeddings
    word_vectors: WordVectors
    comparisons: Mapping[str, Comparison]


@contextmanager
def training_folder(root: DataRoot) -> Iterator[Path]:
    """Lock the scratch folder of trainings and yield it, empty. It is removed at the end.

    Raises TrainingError while another training runs on the data root.
    """
    try:
        lock = acquire_lock(root.training_lock)
    except LockHeldError:
        raise TrainingError(
            "Another training is running on this data root. Wait for it to finish, or cancel it."
        ) from None
    try:
        shutil.rmtree(root.training, ignore_errors=True)
        root.training.mkdir()
        yield root.training
    finally:
        shutil.rmtree(root.training, ignore_errors=True)
        lock.release()


def load_interactions(rows: ir.Table, engine: Engine, folder: Path) -> Interactions:
    """Compute weighted interactions, through parquet files so that the rows are never in memory all at the same time.

    Raises TrainingError if there are none.
    """
    target = folder / INTERACTIONS.name
    target.mkdir()
    files = engine.write(rows, INTERACTIONS, target)
    try:
        return read_interactions(batch for file in files for batch in pq.ParquetFile(file).iter_batches())
    except ValueError as error:
        raise TrainingError(str(error)) from None


def evaluated_users(users: int) -> int:
    """Return the number of users to hold artists out of: a tenth, at least 100 and at most 1,000."""
    return min(max(int(users * EVALUATED_SHARE), MIN_EVALUATED), MAX_EVALUATED)


def train_and_evaluate(
    interactions: Interactions,
    hyperparameters: Hyperparameters,
    trainer: Trainer,
    on_progress: OnProgress | None = None,
    folder: Path | None = None,
    threads: int = 1,
    log: Log = no_log,
) -> TrainingResult:
    """Train on all interactions but the held-out ones; see `word2vec.Trainer` for arguments and errors.

    `threads` bounds the threads of the ridge regression, whose rounds are logged.
    """
    data = split(interactions, hyperparameters.seed, evaluated_users(len(interactions.user_ids)))
    word_vectors = trainer(data.train, hyperparameters, on_progress, folder)
    if not len(data.users):
        return TrainingResult(embed(interactions, word_vectors, hyperparameters, threads, log=log), word_vectors, {})
    evaluated = embed(data.train, word_vectors, hyperparameters, threads, log=log)
    comparisons = evaluate_all(data, evaluated, hyperparameters.seed)
    published = embed(interactions, word_vectors, hyperparameters, threads, evaluated, log)
    return TrainingResult(published, word_vectors, comparisons)
