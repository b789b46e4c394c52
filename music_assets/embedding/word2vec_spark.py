"""Training with Spark ML's word2vec, for clusters.

Spark's word2vec is skip-gram with hierarchical softmax: no negative samples and no context vectors. It trains each
partition separately and averages them after every iteration over the corpus. It does not subsample frequent words,
which the quality of the vectors depends on. The corpus therefore consists of several copies, each subsampled and
shuffled differently, and an iteration covers all of them. pyspark is imported only when a training starts.
"""

import re
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from music_assets.embedding.corpus import subsample, write_corpus
from music_assets.embedding.interactions import Bools, Interactions
from music_assets.embedding.word2vec import (
    Hyperparameters,
    OnProgress,
    Progress,
    TrainingError,
    WordVectors,
    select_artists,
)
from music_assets.tables import EMBEDDING_DIMENSIONS

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

GENSIM_ONLY = ("negative", "ns_exponent", "min_alpha", "context_share")
MAX_DEFAULT_PARTITIONS = 4
"""More partitions, each trained separately on fewer users, would be averaged."""
MAX_ITERATIONS = 5
"""Further passes are further copies in the corpus."""
MAX_COMPONENT = 100.0
"""Components of usable vectors stay below 10."""
MAX_SENTENCE_LENGTH = 2**31 - 1
"""Spark's default would cut sentences after 1,000 words."""
POLL_SECONDS = 0.5


def train(
    session: Callable[[], "SparkSession"],
    interactions: Interactions,
    hyperparameters: Hyperparameters,
    on_progress: OnProgress | None = None,
    folder: Path | None = None,
) -> WordVectors:
    """Train word2vec on the artists with enough distinct listeners; with `session` bound, this is a `word2vec.Trainer`.

    All Spark executors must see `folder` under the same path. `workers` is the number of partitions; passes are
    rounded up to whole iterations. `on_progress` is called after each iteration, without a loss.

    Also raises TrainingError for settings that Spark does not support, and if the training diverged.
    """
    _refuse_gensim_settings(hyperparameters)
    min_listeners, trained = select_artists(interactions, hyperparameters)
    words = int(interactions.weights[trained[interactions.artists]].sum())
    passes = hyperparameters.passes_for(words)
    copies = -(-passes // MAX_ITERATIONS)
    iterations = -(-passes // copies)
    report = _reporter(copies, iterations, words, on_progress)
    with tempfile.TemporaryDirectory(prefix="word2vec-", dir=folder) as name:
        _write_copies(copies, interactions, trained, hyperparameters, Path(name))
        fit = partial(_fit, corpus=Path(name), hyperparameters=hyperparameters, iterations=iterations)
        found = _run(session, fit, report).sort_by("word")
    report(iterations)
    vectors = found["vector"].combine_chunks().flatten().to_numpy().reshape(-1, EMBEDDING_DIMENSIONS)
    refuse_diverged(vectors)
    return WordVectors(found["word"].to_numpy(), vectors, min_listeners, copies * iterations, words)


def _refuse_gensim_settings(hyperparameters: Hyperparameters) -> None:
    fields = Hyperparameters.model_fields
    given = [name for name in GENSIM_ONLY if getattr(hyperparameters, name) != fields[name].default]
    if given:
        raise TrainingError(f"Spark's word2vec does not support {', '.join(given)}. Remove it from the run config.")


def _write_copies(
    copies: int, interactions: Interactions, trained: Bools, hyperparameters: Hyperparameters, folder: Path
) -> None:
    for copy in range(copies):
        seed = hyperparameters.seed + copy
        subsampled = subsample(interactions, trained, hyperparameters.sample, seed)
        for part in write_corpus(subsampled, trained, seed, folder):
            part.path.rename(folder / f"{copy}-{part.path.name}")


def _spark_path(folder: Path) -> str:
    """Return the URL of a local folder, escaped because Spark reads a path as a glob pattern."""
    return "file://" + re.sub(r"([][{}*?\\])", r"\\\1", str(folder.absolute()))


def _reporter(copies: int, iterations: int, words: int, on_progress: OnProgress | None) -> Callable[[int], None]:
    """Return a function that takes the number of completed iterations and reports it if it has increased."""
    start, reported = time.monotonic(), 0

    def report(done: int) -> None:
        nonlocal reported
        if on_progress and reported < done <= iterations:
            reported = done
            speed = done * copies * words / (time.monotonic() - start)
            seconds_left = (iterations - done) * copies * words / speed
            on_progress(Progress(done * copies, iterations * copies, speed, None, seconds_left))

    return report


def _fit(
    session: "SparkSession", group: str, corpus: Path, hyperparameters: Hyperparameters, iterations: int
) -> "pa.Table":
    """Train in a job group; return `word` and `vector`, one row per artist index."""
    from pyspark.ml.feature import Word2Vec
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql.functions import col, split

    context = session.sparkContext
    word2vec = Word2Vec(
        vectorSize=EMBEDDING_DIMENSIONS,
        minCount=1,
        numPartitions=hyperparameters.workers or min(context.defaultParallelism, MAX_DEFAULT_PARTITIONS),
        maxIter=iterations,
        windowSize=hyperparameters.window,
        stepSize=hyperparameters.alpha,
        seed=hyperparameters.seed,
        maxSentenceLength=MAX_SENTENCE_LENGTH,
        inputCol="words",
        outputCol="vector",
    )
    context.setJobGroup(group, "word2vec")
    lines = session.read.text(_spark_path(corpus))
    vectors = word2vec.fit(lines.select(split("value", " ").alias("words"))).getVectors()
    return vectors.select(col("word").cast("long"), vector_to_array("vector", "float32").alias("vector")).toArrow()


def _run(
    session: Callable[[], "SparkSession"], fit: Callable[..., "pa.Table"], report: Callable[[int], None]
) -> "pa.Table":
    """Fit and report completed iterations; cancel the Spark jobs if an exception ends the wait.

    Only other threads call Spark: pyspark handles an interrupt by cancelling jobs from this thread, which fails in the
    middle of a call.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    group = f"word2vec-{uuid.uuid4()}"
    with ThreadPoolExecutor(2) as threads:
        try:
            spark = threads.submit(session).result()
            training = threads.submit(fit, spark, group)
            try:
                while wait([training], POLL_SECONDS).not_done:
                    report(threads.submit(_iterations_done, spark.sparkContext, group).result())
                return training.result()
            finally:
                # Repeated, because between two iterations there is no job to cancel, and the next one would start.
                while not training.done():
                    threads.submit(spark.sparkContext.cancelJobGroup, group).result()
                    wait([training], POLL_SECONDS)
        except (Py4JError, PySparkException) as error:
            raise TrainingError(f"Spark's word2vec failed: {_reason(error)}") from error


def _iterations_done(context: "SparkContext", group: str) -> int:
    """Return the number of completed jobs after the first, which counts the words: one job is one iteration."""
    tracker = context.statusTracker()
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
    return sum(job is not None and job.status == "SUCCEEDED" for job in jobs) - 1


def _reason(error: Exception) -> str:
    """Return the line with the cause; the first line of a Java error only names the method that was called."""
    lines = [line.removeprefix(": ") for line in str(error).splitlines() if line.strip(": ")]
    return lines[1] if lines[0].startswith("An error occurred while calling") and lines[1:] else lines[0]


def refuse_diverged(vectors: npt.NDArray[np.float32]) -> None:
    """Raise TrainingError if a vector is not finite or has a component beyond 100."""
    usable = np.all(np.abs(vectors) <= MAX_COMPONENT, axis=1)
    if not usable.all():
        raise TrainingError(
            f"The training diverged: the vectors of {np.count_nonzero(~usable):,} of {len(vectors):,} artists are not "
            f"finite or have components beyond {MAX_COMPONENT:.0f}. "
            "Train again with fewer workers (partitions), fewer passes, or a smaller alpha."
        )
