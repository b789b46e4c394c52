"""Training with Spark ML's word2vec, for clusters: the contract of `word2vec.train`.

Spark's is skip-gram with hierarchical softmax: no noise words and no second matrix. It trains each partition of the
sentences apart, and after every round over them takes the means of what the partitions learned. It cannot thin out
frequent words, which decides whether the vectors are any good; so the corpus is written thinned, several times over,
each time anew, and a round goes over all these copies. pyspark is imported only when a training begins.
"""

import re
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from music_assets.embedding.corpus import thin, write_corpus
from music_assets.embedding.interactions import Bools, Listening
from music_assets.embedding.word2vec import (
    DIMENSIONS,
    Hyperparameters,
    Progress,
    TrainingError,
    WordVectors,
    trained_artists,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

OF_GENSIM_ALONE = ("negative", "ns_exponent", "min_alpha", "context_share")
MOST_PARTITIONS = 4
"""Partitions where nothing else is asked for: so many, each trained apart, were measured to cost 1 % of the recall."""
ROUNDS = 5
"""Rounds over the corpus at most; further passes are further copies in it."""
LARGEST_COMPONENT = 100.0
"""What no component of a sound vector exceeds; good trainings stay below 10."""
NEVER_CUT = 2**31 - 1
"""Words in a sentence at most. Spark's default would cut sentences after 1,000."""
SECONDS_BETWEEN_LOOKS = 0.5


class SparkTrainer:
    """Trains on a session that it asks for when a training begins."""

    def __init__(self, session: Callable[[], "SparkSession"]) -> None:
        self._session = session

    def __call__(
        self,
        listening: Listening,
        hyperparameters: Hyperparameters,
        on_progress: Callable[[Progress], None] | None = None,
        folder: Path | None = None,
    ) -> WordVectors:
        """Train word2vec on the artists with enough distinct listeners; see `word2vec.train`.

        `folder` must be there under the same path for all of Spark's executors. Of the hyperparameters, `workers` is
        the number of partitions, where it is empty as many as Spark has cores, but 4 at most; passes are rounded up to
        full rounds. `on_progress` is called after each round, without a loss, of which Spark tells nothing. Any
        exception in this thread, such as an interrupt, cancels Spark's jobs.

        Raises TrainingError where there is nothing to train on, where a setting is set that Spark's word2vec does not
        have, where Spark failed, and where it returned vectors that are not finite or far too large.
        """
        _refuse_settings_of_gensim(hyperparameters)
        min_listeners, trained = trained_artists(listening, hyperparameters)
        words = int(listening.weights[trained[listening.artists]].sum())
        passes = hyperparameters.passes_for(words)
        copies = -(-passes // ROUNDS)
        rounds = -(-passes // copies)
        tell = _teller(copies, rounds, words, on_progress)
        with tempfile.TemporaryDirectory(prefix="word2vec-", dir=folder) as name:
            _write_copies(copies, listening, trained, hyperparameters, Path(name))
            found = _watched(self._session, _Fit(Path(name), hyperparameters, rounds), tell).sort_by("word")
        tell(rounds)
        vectors = found["vector"].combine_chunks().flatten().to_numpy().reshape(-1, DIMENSIONS)
        refuse_exploded(vectors)
        return WordVectors(found["word"].to_numpy(), vectors, min_listeners, copies * rounds, words)


def _refuse_settings_of_gensim(hyperparameters: Hyperparameters) -> None:
    fields = Hyperparameters.model_fields
    given = [name for name in OF_GENSIM_ALONE if getattr(hyperparameters, name) != fields[name].default]
    if given:
        raise TrainingError(f"Spark's word2vec knows no {', '.join(given)}. Leave that out of the run's settings.")


def _write_copies(
    copies: int, listening: Listening, trained: Bools, hyperparameters: Hyperparameters, folder: Path
) -> None:
    for copy in range(copies):
        seed = hyperparameters.seed + copy
        for part in write_corpus(thin(listening, trained, hyperparameters.sample, seed), trained, seed, folder):
            part.path.rename(folder / f"{copy}-{part.path.name}")


def _as_spark_reads(path: Path) -> str:
    """Return the address of a local folder; unmarked, some characters would stand for patterns."""
    return "file://" + re.sub(r"([][{}*?\\])", r"\\\1", str(path.absolute()))


def _teller(
    copies: int, rounds: int, words: int, on_progress: Callable[[Progress], None] | None
) -> Callable[[int], None]:
    """Return what is told the rounds done, and passes that on where it is news."""
    start, told = time.monotonic(), 0

    def tell(done: int) -> None:
        nonlocal told
        if on_progress and told < done <= rounds:
            told = done
            pace = done * copies * words / (time.monotonic() - start)
            left = (rounds - done) * copies * words / pace
            on_progress(Progress(done * copies, rounds * copies, pace, None, left))

    return tell


@dataclass(frozen=True)
class _Fit:
    """The work of Spark: read the corpus, train, return `word` and `vector`, a row for each artist's number."""

    corpus: Path
    hyperparameters: Hyperparameters
    rounds: int

    def __call__(self, session: "SparkSession", group: str) -> "pa.Table":
        from pyspark.ml.feature import Word2Vec
        from pyspark.ml.functions import vector_to_array
        from pyspark.sql.functions import col, split

        context = session.sparkContext
        word2vec = Word2Vec(
            vectorSize=DIMENSIONS,
            minCount=1,
            numPartitions=self.hyperparameters.workers or min(context.defaultParallelism, MOST_PARTITIONS),
            maxIter=self.rounds,
            windowSize=self.hyperparameters.window,
            stepSize=self.hyperparameters.alpha,
            seed=self.hyperparameters.seed,
            maxSentenceLength=NEVER_CUT,
            inputCol="words",
            outputCol="vector",
        )
        context.setJobGroup(group, "word2vec")
        lines = session.read.text(_as_spark_reads(self.corpus))
        vectors = word2vec.fit(lines.select(split("value", " ").alias("words"))).getVectors()
        return vectors.select(col("word").cast("long"), vector_to_array("vector", "float32").alias("vector")).toArrow()


def _watched(session: Callable[[], "SparkSession"], fit: _Fit, tell: Callable[[int], None]) -> "pa.Table":
    """Train, and tell the rounds done; Spark's jobs are cancelled when an exception ends the waiting here.

    All talk with Spark is in other threads. pyspark's answer to an interrupt is to cancel jobs from this one, which
    fails where that is in the midst of a call.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    group = f"word2vec-{uuid.uuid4()}"
    with ThreadPoolExecutor(2) as threads:
        try:
            spark = threads.submit(session).result()
            training = threads.submit(fit, spark, group)
            try:
                while wait([training], SECONDS_BETWEEN_LOOKS).not_done:
                    tell(threads.submit(_rounds_done, spark.sparkContext, group).result())
                return training.result()
            finally:
                # Between two rounds there is no job to cancel, and the next one begins all the same.
                while not training.done():
                    threads.submit(spark.sparkContext.cancelJobGroup, group).result()
                    wait([training], SECONDS_BETWEEN_LOOKS)
        except (Py4JError, PySparkException) as error:
            raise TrainingError(f"Spark's word2vec failed: {_reason(error)}") from error


def _rounds_done(context: "SparkContext", group: str) -> int:
    """Return how many of Spark's jobs have ended, without the first, which counts the words: each round is one."""
    tracker = context.statusTracker()
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
    return sum(job is not None and job.status == "SUCCEEDED" for job in jobs) - 1


def _reason(error: Exception) -> str:
    """Return the line that tells what happened: a Java error's text begins with what was called."""
    lines = [line.removeprefix(": ") for line in str(error).splitlines() if line.strip(": ")]
    return lines[1] if lines[0].startswith("An error occurred while calling") and lines[1:] else lines[0]


def refuse_exploded(vectors: npt.NDArray[np.float32]) -> None:
    """Raise TrainingError where a vector, one a row, is not finite or has a component beyond 100."""
    sound = np.all(np.abs(vectors) <= LARGEST_COMPONENT, axis=1)
    if not sound.all():
        raise TrainingError(
            f"Spark's word2vec ended with useless vectors: those of {np.count_nonzero(~sound):,} of {len(vectors):,} "
            f"artists are not finite, or have components beyond {LARGEST_COMPONENT:.0f}. "
            "Train again with fewer workers (partitions), fewer passes, or a smaller alpha."
        )
