"""Embeddings: training time, and how well the vectors predict held-out artists."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import ibis
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.context import Context, Entrant, empty_folder
from benchmarks.data import full_drop
from benchmarks.measure import python, run
from benchmarks.results import OURS, Measurement
from music_assets.embedding.evaluation import Split, evaluate_all, split
from music_assets.embedding.interactions import Interactions, read_interactions
from music_assets.embedding.vectors import Embeddings
from music_assets.embedding.word2vec import Hyperparameters, select_artists
from music_assets.transforms.interactions import weighted_interactions

TRAINERS = {
    Entrant(OURS): "music_assets",
    Entrant("Spark ML Word2Vec", ("pyspark", "java")): "spark_word2vec",
    Entrant("implicit ALS", ("implicit",)): "implicit_als",
    Entrant("EASE"): "ease",
}
"""Functions in `peers/trainers.py`, each run in a process of its own."""


def embeddings(context: Context) -> Iterator[Measurement]:
    """Train on the same interactions; each round holds out other ones."""
    interactions = _interactions(context)
    splits = [split(interactions, number, 1_000) for number in range(1, context.rounds + 1)]
    for number, one in context.turns(list(TRAINERS)):
        data, folder = splits[number - 1], empty_folder(context.work, "embeddings", one.name)
        train = data.train
        columns = [train.user_ids[train.users], train.artist_names.take(pa.array(train.artists)), train.weights]
        pq.write_table(pa.table(columns, ["user_id", "artist_name", "weight"]), folder / "pairs.parquet")
        usage = run(python("-m", "benchmarks.peers.trainers", TRAINERS[one], folder), folder)
        found = evaluate_all(data, _embeddings(data, folder), number)
        recalls = {name: each.ours.recall_at_20 for name, each in found.items()}
        yield Measurement(one.name, number, asdict(usage) | recalls)
        if one.name == OURS:
            yield Measurement("baselines", number, {name: each.baseline.recall_at_20 for name, each in found.items()})


def _interactions(context: Context) -> Interactions:
    backend = ibis.duckdb.connect()
    types = {"user_id": "INTEGER", "artist_name": "VARCHAR", "playcount": "BIGINT"}
    rows = backend.read_csv(full_drop(context.work, context.users).top_artists, types=types)
    target = empty_folder(context.work, "embeddings", "interactions") / "interactions.parquet"
    backend.to_parquet(weighted_interactions(rows.select(*types)), target)
    return read_interactions(pq.ParquetFile(target).iter_batches())


def _embeddings(data: Split, folder: Path) -> Embeddings:
    """Return the vectors of a contestant; zeros for artists without one, which EASE has by design."""
    artists = pd.read_pickle(folder / "artists.pkl").reindex(data.train.artist_names.to_pylist()).fillna(0).to_numpy()
    users = pd.read_pickle(folder / "users.pkl").reindex(data.train.user_ids).fillna(0).to_numpy()
    _, trained = select_artists(data.train, Hyperparameters.model_validate({}))
    return Embeddings(data.train.artist_names, artists, data.train.listeners, trained, data.train.user_ids, users)
