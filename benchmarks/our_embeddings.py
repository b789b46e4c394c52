"""Trains our embeddings on a split, with their defaults: `python -m benchmarks.our_embeddings FOLDER`.

The job `train_embeddings` trains on all there is, so nothing would be left to foretell; this does the same work on what
is left after holding out.
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks import embedding_files
from music_assets.embedding.interactions import read_interactions
from music_assets.embedding.vectors import embed
from music_assets.embedding.word2vec import Hyperparameters
from music_assets.embedding.word2vec_gensim import train


def main(folder: Path) -> None:
    """Train, and write the vectors."""
    interactions = read_interactions(pq.ParquetFile(folder / embedding_files.PAIRS).iter_batches())
    embeddings = embed(interactions, train(interactions, Hyperparameters.model_validate({})))
    artists = embeddings.artist_names.to_numpy(zero_copy_only=False).astype(str)
    embedding_files.write(folder, "artists", artists, embedding_files.unit(embeddings.artists))
    embedding_files.write(folder, "users", embeddings.user_ids, embedding_files.unit(embeddings.users))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
