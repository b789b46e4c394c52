"""Embeddings: how long training takes, and how well the vectors foretell what was held out of it."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import embedding_files
from benchmarks.bases import folder_of
from benchmarks.data import full_drop
from benchmarks.processes import Command, run
from benchmarks.results import OURS, Measurement
from benchmarks.running import Case, Setting
from music_assets.embedding.evaluation import Scorer, Split, evaluate, popularity_scorer, split
from music_assets.embedding.interactions import Interactions, read_interactions
from music_assets.transforms.interactions import weighted_interactions

POPULARITY = "popularity"
EVALUATED = 1_000
NEVER = np.float32(-1e30)


@dataclass(frozen=True)
class Trainer:
    """A module that trains in a process of its own."""

    name: str
    module: str
    needs: Sequence[str]

    def command(self, folder: Path) -> Command:
        """Return the command that reads and writes the files in the folder."""
        return Command([sys.executable, "-m", self.module, str(folder)], {})


TRAINERS = (
    Trainer(OURS, "benchmarks.our_embeddings", ()),
    Trainer("Spark ML Word2Vec", "benchmarks.peers.spark_word2vec", ("pyspark", "java")),
    Trainer("gensim, defaults", "benchmarks.peers.gensim_word2vec", ("gensim",)),
    Trainer("implicit ALS", "benchmarks.peers.implicit_als", ("implicit",)),
)


def embeddings(setting: Setting) -> Iterator[Measurement]:
    """Train everybody on the same pairs; each round holds out others."""
    interactions = _interactions(setting)
    trainers = setting.present(TRAINERS)
    for number in range(1, setting.rounds + 1):
        data = split(interactions, number, EVALUATED)
        popular = evaluate(data, popularity_scorer(data.train))
        yield Measurement(POPULARITY, number, asdict(popular))
        for trainer in trainers:
            folder = folder_of(setting, "embeddings", trainer.module)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _write_pairs(data.train, folder / embedding_files.PAIRS)
            usage = run(trainer.command(folder), folder.with_suffix(".log"))
            quality = evaluate(data, _scores(data, folder))
            yield Measurement(trainer.name, number, {**asdict(usage), **asdict(quality)})


def _interactions(setting: Setting) -> Interactions:
    drop = full_drop(setting.work, setting.users)
    backend = ibis.duckdb.connect()
    types = {"user_id": "INTEGER", "artist_name": "VARCHAR", "playcount": "BIGINT"}
    rows = backend.read_csv(drop.top_artists, types=types).select("user_id", "artist_name", "playcount")
    target = folder_of(setting, "embeddings", "interactions.parquet")
    target.parent.mkdir(parents=True, exist_ok=True)
    backend.to_parquet(weighted_interactions(rows), target)
    return read_interactions(pq.ParquetFile(target).iter_batches())


def _write_pairs(train: Interactions, target: Path) -> None:
    columns = {
        "user_id": pa.array(train.user_ids[train.users]),
        "artist_name": train.artist_names.take(pa.array(train.artists)),
        "weight": pa.array(train.weights.astype(np.int32)),
    }
    pq.write_table(pa.table(columns), target)


def _scores(data: Split, folder: Path) -> Scorer:
    """Score by the product of the vectors; an artist without one comes last."""
    names, artist_vectors = embedding_files.read(folder, "artists")
    ids, user_vectors = embedding_files.read(folder, "users")
    numbers = {name: number for number, name in enumerate(data.train.artist_names.to_pylist())}
    places = np.array([numbers[name] for name in names.tolist()])
    artists = np.zeros((len(numbers), embedding_files.DIMENSIONS), np.float32)
    artists[places] = artist_vectors
    unknown = np.ones(len(numbers), bool)
    unknown[places] = False
    users = np.zeros((len(data.train.user_ids), embedding_files.DIMENSIONS), np.float32)
    users[np.searchsorted(data.train.user_ids, ids)] = user_vectors

    return lambda chosen: np.where(unknown, NEVER, users[chosen] @ artists.T)


CASES = (
    Case(
        "embeddings",
        "Embeddings",
        "Everybody trains on the same pairs of user and artist, in a process of its own, from a parquet file to "
        f"vectors on disk. A fifth of the artists of {EVALUATED:,} users is held out, others in each round; recall@20 "
        "is the share of them found among the first 20 of all artists the user is not known to listen to.",
        embeddings,
        most_users=50_000,
    ),
)
