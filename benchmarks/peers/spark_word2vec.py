"""Spark ML's word2vec as the old job set it: `python -m benchmarks.peers.spark_word2vec FOLDER`.

50 dimensions, window 5, minCount 1, one partition, one pass; a user's artists form a sentence, the most loved first,
each as often as it weighs; a user's vector is what the model makes of the sentence, its mean.
"""

import sys
from pathlib import Path

import numpy as np
from pyspark.ml.feature import Word2Vec
from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from benchmarks import embedding_files

SENTENCES = """
SELECT user_id, flatten(transform(
    sort_array(collect_list(struct(weight, artist_name)), false),
    pair -> array_repeat(pair.artist_name, cast(pair.weight AS INT)))) AS artists
FROM pairs WHERE weight > 0 GROUP BY user_id
"""


def write(folder: Path, kind: str, rows: DataFrame) -> None:
    """Write rows of key and vector."""
    found = rows.toPandas()
    vectors = np.array(found.iloc[:, 1].tolist(), np.float32)
    keys = found.iloc[:, 0].to_numpy()
    names = keys.astype(str) if kind == "artists" else keys
    embedding_files.write(folder, kind, names, embedding_files.unit(vectors))


def main(folder: Path) -> None:
    """Train, and write the vectors."""
    spark = (
        SparkSession.builder.master("local[*]")
        .config("spark.driver.memory", "8g")
        .config("spark.driver.maxResultSize", "4g")
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    spark.read.parquet(str(folder / embedding_files.PAIRS)).createOrReplaceTempView("pairs")
    sentences = spark.sql(SENTENCES).coalesce(1).cache()
    model = Word2Vec(
        vectorSize=embedding_files.DIMENSIONS,
        windowSize=5,
        minCount=1,
        numPartitions=1,
        maxIter=1,
        seed=1,
        inputCol="artists",
        outputCol="vector",
    ).fit(sentences)
    write(folder, "artists", model.getVectors().select("word", vector_to_array("vector")))
    write(folder, "users", model.transform(sentences).select(sf.col("user_id"), vector_to_array("vector")))
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
