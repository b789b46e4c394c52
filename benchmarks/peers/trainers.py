"""Trainers of embeddings, this project's and the peers': `python -m benchmarks.peers.trainers NAME FOLDER`.

A trainer reads `pairs.parquet` (user_id, artist_name and weight, ordered by user), and returns artists, their vectors,
users, and their vectors: the inner product scores an artist for a user. For word2vec, a user's artists form a sentence,
by falling weight, each repeated by its weight, and a user's vector is the mean over the sentence.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

DIMENSIONS = 50
SENTENCES = """
SELECT user_id, flatten(transform(
    sort_array(collect_list(struct(weight, artist_name)), false),
    pair -> array_repeat(pair.artist_name, cast(pair.weight AS INT)))) AS artists
FROM pairs WHERE weight > 0 GROUP BY user_id
"""

Vectors = tuple[Any, Any, Any, Any]


def music_assets(pairs: Path) -> Vectors:
    """Train with this project's defaults; the job `train_embeddings` would leave no interactions to hold out."""
    from music_assets.embedding.interactions import read_interactions
    from music_assets.embedding.vectors import embed
    from music_assets.embedding.word2vec import Hyperparameters
    from music_assets.embedding.word2vec_gensim import train

    interactions = read_interactions(pq.ParquetFile(pairs).iter_batches())
    defaults = Hyperparameters.model_validate({})
    found = embed(interactions, train(interactions, defaults), defaults, threads=2)
    return found.artist_names, found.artists, found.user_ids, found.users


def ease(pairs: Path) -> Vectors:
    """Solve EASE (Steck, 2019) for the 4,000 most listed artists: a user is a list, an artist a column of weights."""
    rows = pq.read_table(pairs).to_pandas()
    most = rows["artist_name"].value_counts().index[:4_000]
    users, ids = pd.factorize(rows["user_id"])
    lists = np.zeros((len(ids), len(most) + 1), np.float32)
    lists[users, most.get_indexer(rows["artist_name"])] = 1  # all others in the last column
    lists = lists[:, :-1]
    inverse = np.linalg.inv(lists.T @ lists + 100 * np.eye(len(most), dtype=np.float32))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return most, weights.T, ids, lists


def spark_word2vec(pairs: Path) -> Vectors:
    """Train Spark ML's word2vec with the settings of the old Glue job."""
    from pyspark.ml.feature import Word2Vec
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import SparkSession

    conf = {"driver.memory": "8g", "driver.maxResultSize": "4g", "sql.execution.arrow.pyspark.enabled": "true"}
    builder = SparkSession.builder.config(map={f"spark.{name}": value for name, value in conf.items()})
    spark = builder.master("local[*]").config("spark.ui.enabled", "false").getOrCreate()
    spark.read.parquet(str(pairs)).createOrReplaceTempView("pairs")
    sentences = spark.sql(SENTENCES).coalesce(1).cache()
    settings = {"windowSize": 5, "minCount": 1, "numPartitions": 1, "maxIter": 1, "seed": 1}
    model = Word2Vec(vectorSize=DIMENSIONS, inputCol="artists", outputCol="vector", **settings).fit(sentences)
    artists = model.getVectors().select("word", vector_to_array("vector").alias("vector")).toPandas()
    users = model.transform(sentences).select("user_id", vector_to_array("vector").alias("vector")).toPandas()
    spark.stop()
    artist_vectors, user_vectors = (np.array(found["vector"].tolist()) for found in (artists, users))
    return artists["word"], artist_vectors, users["user_id"], user_vectors


def implicit_als(pairs: Path) -> Vectors:
    """Factorize by implicit: alternating least squares, tuned on validation splits of the HetRec data."""
    from implicit.als import AlternatingLeastSquares
    from implicit.nearest_neighbours import bm25_weight
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    rows = pq.read_table(pairs)
    ids, users = np.unique(rows["user_id"].to_numpy(), return_inverse=True)
    names = rows["artist_name"].combine_chunks().dictionary_encode()
    plays = csr_matrix((rows["weight"].to_numpy().astype(np.float32), (users, names.indices.to_numpy())))
    weights = bm25_weight(plays, K1=1, B=0.2).tocsr()
    settings = {"regularization": 30, "alpha": 10 / weights.data.mean(), "iterations": 15, "random_state": 0}
    with threadpool_limits(1, "blas"):  # the solver has threads of its own: https://benfred.github.io/implicit/
        model = AlternatingLeastSquares(factors=DIMENSIONS, **settings)
        model.fit(weights, show_progress=False)
    return names.dictionary, model.item_factors, ids, model.user_factors


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    artists, artist_vectors, users, user_vectors = globals()[name](folder / "pairs.parquet")
    for kind, keys, vectors in (("artists", artists, artist_vectors), ("users", users, user_vectors)):
        # The score of Spark's vectors is the cosine, that of all others the inner product.
        lengths = 1 if name != "spark_word2vec" else np.linalg.norm(vectors, axis=1, keepdims=True)
        scaled = np.asarray(vectors / np.where(lengths == 0, 1, lengths), np.float32)
        pd.DataFrame(scaled, np.asarray(keys)).to_pickle(folder / f"{kind}.pkl")
