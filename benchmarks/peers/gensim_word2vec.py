"""gensim's word2vec as it comes, but for the 50 dimensions: `python -m benchmarks.peers.gensim_word2vec FOLDER`.

A user's artists form a sentence, the most loved first, each as often as it weighs; a user's vector is the mean over the
sentence.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from gensim.models import Word2Vec

from benchmarks import embedding_files


def main(folder: Path) -> None:
    """Train, and write the vectors."""
    pairs = pq.read_table(folder / embedding_files.PAIRS).to_pandas()
    pairs = pairs.sort_values(["user_id", "weight"], ascending=[True, False], kind="stable")
    words = pairs["artist_name"].to_numpy().repeat(pairs["weight"])
    users = pairs["user_id"].to_numpy().repeat(pairs["weight"])
    ids, starts = np.unique(users, return_index=True)
    sentences = [sentence.tolist() for sentence in np.split(words, starts[1:])]

    vectors = Word2Vec(sentences, vector_size=embedding_files.DIMENSIONS, workers=2).wv

    means = np.zeros((len(ids), embedding_files.DIMENSIONS), np.float32)
    for number, sentence in enumerate(sentences):
        if known := [word for word in sentence if word in vectors]:
            means[number] = vectors[known].mean(axis=0)
    embedding_files.write(folder, "artists", vectors.index_to_key, embedding_files.unit(vectors.vectors))
    embedding_files.write(folder, "users", ids, embedding_files.unit(means))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
