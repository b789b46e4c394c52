"""Embeddings: training time, and how well the vectors predict held-out artists."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.context import Context, Entrant, empty_folder
from benchmarks.data import full_drop
from benchmarks.measure import python, run
from benchmarks.results import OURS, Measurement
from music_assets.embedding.evaluation import Scorer, Split, evaluate, popularity_scorer, split
from music_assets.embedding.interactions import Interactions, read_interactions
from music_assets.transforms.interactions import weighted_interactions

TRAINERS = {
    Entrant(OURS): "music_assets",
    Entrant("Spark ML Word2Vec", ("pyspark", "java")): "spark_word2vec",
    Entrant("gensim, defaults", ("gensim",)): "gensim_word2vec",
    Entrant("implicit ALS", ("implicit",)): "implicit_als",
}
"""Functions in `peers/trainers.py`, each run in a process of its own."""


def embeddings(context: Context) -> Iterator[Measurement]:
    """Train on the same interactions; each round holds out other ones."""
    interactions = _interactions(context)
    splits = [split(interactions, number, 1_000) for number in range(1, context.rounds + 1)]
    for number, data in enumerate(splits, start=1):
        yield Measurement("popularity", number, asdict(evaluate(data, popularity_scorer(data.train))))
    for number, one in context.turns(list(TRAINERS)):
        data, folder = splits[number - 1], empty_folder(context.work, "embeddings", one.name)
        columns = {
            "user_id": data.train.user_ids[data.train.users],
            "artist_name": data.train.artist_names.take(pa.array(data.train.artists)),
            "weight": data.train.weights.astype(np.int32),
        }
        pq.write_table(pa.table(columns), folder / "pairs.parquet")
        usage = run(python("-m", "benchmarks.peers.trainers", TRAINERS[one], folder), folder)
        yield Measurement(one.name, number, {**asdict(usage), **asdict(evaluate(data, _scorer(data, folder)))})


def _interactions(context: Context) -> Interactions:
    backend = ibis.duckdb.connect()
    types = {"user_id": "INTEGER", "artist_name": "VARCHAR", "playcount": "BIGINT"}
    rows = backend.read_csv(full_drop(context.work, context.users).top_artists, types=types)
    target = empty_folder(context.work, "embeddings", "interactions") / "interactions.parquet"
    backend.to_parquet(weighted_interactions(rows.select(*types)), target)
    return read_interactions(pq.ParquetFile(target).iter_batches())


def _scorer(data: Split, folder: Path) -> Scorer:
    """Score by the inner product of the vectors; artists without one come last."""
    artists = pd.read_pickle(folder / "artists.pkl").reindex(data.train.artist_names.to_pylist()).to_numpy()
    users = pd.read_pickle(folder / "users.pkl").reindex(data.train.user_ids).fillna(0).to_numpy()
    return lambda chosen: np.nan_to_num(users[chosen] @ artists.T, nan=-1e30)
