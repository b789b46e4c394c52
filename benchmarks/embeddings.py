"""Recall, time and memory of the embeddings, beside others trained on the same split.

    python benchmarks/embeddings.py FOLDER_OR_CSV [--users N] [--seeds 0 1 2] [--sample 2000] [--only ours spark ...]

Needs a `user_top_artists.csv`; `--users` takes the first so many users, the same for all. Every method trains in
a process of its own and ranks by the same evaluation (see `music_assets/embedding/evaluation.py`):

- ours: the shipped defaults.
- spark: Spark ML's Word2Vec as the old job had it: 50 dimensions, window 5, minCount 1, one partition, one pass,
  repeats side by side.
- gensim: gensim's defaults on the same sentences, 50 dimensions.
- popularity: the same ranking for everyone.
- als: matrix factorisation with implicit, 50 factors, where that package is installed.

Seconds are those of training up to all vectors, without reading the CSV. Memory is the peak of the resident memory of
the method's whole process tree, a JVM included, looked at four times a second.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path

import duckdb
import ibis
import numpy as np

from music_assets.embedding.evaluation import Scores, Split, by_cosine, by_popularity, evaluate, split
from music_assets.embedding.listening import Listening, read_listening
from music_assets.embedding.vectors import Embeddings, embed
from music_assets.embedding.word2vec import Hyperparameters, train
from music_assets.transforms.sentences import sentences

METHODS = ("popularity", "ours", "spark", "gensim", "als")


def read(csv: Path, users: int | None) -> Listening:
    """Read the first users of the file, by user_id."""
    backend = ibis.duckdb.connect()
    types = {"user_id": "INTEGER", "artist_name": "VARCHAR", "playcount": "BIGINT"}
    rows = backend.read_csv(csv, types=types).select("user_id", "artist_name", "playcount")
    if users:
        rows = rows.semi_join(rows.select("user_id").distinct().order_by("user_id").limit(users), "user_id")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "sentences.parquet"
        backend.to_parquet(sentences(rows), target)
        return read_listening(duckdb.sql(f"FROM '{target}'").to_arrow_reader(1_000_000))


def ours(data: Split) -> Scores:
    """Train with the shipped defaults."""
    return by_cosine(embed(data.kept, train(data.kept, Hyperparameters())))


def popularity(data: Split) -> Scores:
    """Count listeners."""
    return by_popularity(data.kept)


def side_by_side(listening: Listening) -> list[list[str]]:
    """Return the sentences with repeats next to each other, the most loved artists first."""
    order = np.lexsort((-listening.weights.astype(int), listening.users))
    tokens = np.repeat(listening.artists[order], listening.weights[order]).astype(str)
    ends = np.cumsum(listening.sum_by_user(listening.weights))[:-1]
    return [sentence.tolist() for sentence in np.split(tokens, ends)]


def means(listening: Listening, vectors: dict[str, np.ndarray]) -> Scores:
    """Score by cosine with users as weighted means; artists without a vector come last."""
    artists = np.zeros((len(listening.artist_names), 50), np.float32)
    for token, vector in vectors.items():
        artists[int(token)] = vector
    users = np.asarray(listening.matrix() @ artists, np.float32)
    known = np.zeros(len(artists), bool)
    known[[int(token) for token in vectors]] = True
    cosine = by_cosine(Embeddings(listening.artist_names, artists, listening.user_ids, users))
    return lambda numbers: np.where(known, cosine(numbers), np.float32(-2))


def gensim(data: Split) -> Scores:
    """Train gensim as it comes."""
    from gensim.models import Word2Vec

    model = Word2Vec(side_by_side(data.kept), vector_size=50, workers=2)
    return means(data.kept, {token: model.wv[token] for token in model.wv.index_to_key})


def spark(data: Split) -> Scores:
    """Train Spark's word2vec as the old job did."""
    from pyspark.ml.feature import Word2Vec
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.memory", "8g")
        .config("spark.driver.maxResultSize", "4g")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "sentences.txt"
        with text.open("w") as file:
            file.writelines(" ".join(sentence) + "\n" for sentence in side_by_side(data.kept))
        rows = session.read.text(str(text)).selectExpr("split(value, ' ') AS words").coalesce(1)
        word2vec = Word2Vec(
            vectorSize=50, windowSize=5, minCount=1, numPartitions=1, seed=1, inputCol="words", outputCol="vector"
        )
        table = Path(folder) / "vectors"
        vectors = word2vec.fit(rows).getVectors()
        vectors.select("word", vector_to_array("vector").alias("v")).write.parquet(str(table))
        session.stop()
        found = duckdb.sql(f"SELECT word, v FROM '{table}/*.parquet' WHERE word <> ''").fetchnumpy()
    return means(data.kept, dict(zip(found["word"], found["v"], strict=True)))


def als(data: Split) -> Scores:
    """Factorise the matrix of weights."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(factors=50, regularization=30, alpha=10, iterations=15, random_state=0)
    model.fit(data.kept.matrix(), show_progress=False)
    return lambda users: model.user_factors[users] @ model.item_factors.T


def run(arguments: argparse.Namespace, method: str, seed: int) -> None:
    """Train and evaluate once, in this process; print the result as JSON."""
    data = split(read(arguments.csv, arguments.users), seed, arguments.sample)
    start = time.monotonic()
    scores = globals()[method](data)
    seconds = time.monotonic() - start
    print(json.dumps({"method": method, "seed": seed, "seconds": round(seconds, 1), **asdict(evaluate(data, scores))}))


def resident(root: int) -> int:
    """Return the resident bytes of a process and all below it."""
    total, waiting = 0, [root]
    while waiting:
        process = Path("/proc") / str(waiting.pop())
        try:
            total += int((process / "statm").read_text().split()[1]) * 4096
            for children in process.glob("task/*/children"):
                waiting += [int(child) for child in children.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def watched(command: list[str]) -> tuple[str, int]:
    """Run a command; return its output and its peak memory in bytes."""
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        lines: list[str] = []
        errors = threading.Thread(target=lambda: lines.extend(process.stderr or ()))
        errors.start()
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.25)
        errors.join()
        output = process.stdout.read() if process.stdout else ""
    return output if process.returncode == 0 else json.dumps({"failed": lines[-1:]}), peak


def main() -> None:
    """Run every method for every seed in a process of its own, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--users", type=int)
    parser.add_argument("--sample", type=int, help="evaluate on so many users at most")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=METHODS, nargs="+", default=METHODS[:-1])
    parser.add_argument("--here", nargs=2, metavar=("METHOD", "SEED"), help="run one method in this process")
    arguments = parser.parse_args()
    if arguments.csv.is_dir():
        arguments.csv = arguments.csv / "user_top_artists.csv"
    if arguments.here:
        run(arguments, arguments.here[0], int(arguments.here[1]))
        return
    for method in arguments.only:
        for seed in arguments.seeds:
            output, peak = watched([sys.executable, *sys.argv, "--here", method, str(seed)])
            print(json.dumps({**json.loads(output.splitlines()[-1]), "peak_MB": peak // 2**20}), flush=True)


if __name__ == "__main__":
    main()
