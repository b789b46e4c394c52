"""Vectors of users whose lists changed since the training, by the ridge step of a training and without one.

The vectors of artists stay those of the training. What the lists were when the vectors were computed is recorded in the
commits of `user_embedding`: INPUTS names the versions that the training read, COVERED the lists that are followed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy

from music_assets.data_root import one_look
from music_assets.embedding.interactions import Interactions, Ints
from music_assets.embedding.ridge import Floats, artist_weights, pair_weights, user_vectors
from music_assets.embedding.training import load_interactions, training_folder
from music_assets.embedding.vectors import write_vectors
from music_assets.embedding.word2vec import TrainingError
from music_assets.engines.base import Engine
from music_assets.storage.compaction import compact
from music_assets.storage.deletion import replace_rows
from music_assets.storage.delta import ConcurrentCommitError, DeltaStore, TableVersion
from music_assets.storage.lineage import COVERED, INPUTS, inputs_of
from music_assets.tables import ARTIST_EMBEDDING, EMBEDDING_DIMENSIONS, USER_EMBEDDING, USER_TOP_ARTISTS
from music_assets.transforms.current_rows import current_rows
from music_assets.transforms.interactions import weighted_interactions


@dataclass(frozen=True)
class FollowedLists:
    """The number of users that got a new vector, and of those that have none, since no artist of theirs has one."""

    placed: int
    unknown: int


@one_look()
def follow_lists(store: DeltaStore, reader: Engine, threads: int) -> FollowedLists | None:
    """Commit a vector for each user whose list was delivered since the vectors of users were computed.

    After rows were removed, all users get one. Returns None if there is nothing to do: no training, or one of release
    0.1, or one that runs, or no new rows.
    """
    state = _state(store)
    if state is None:
        return None
    try:
        with training_folder(store.root) as folder:
            return _follow(store, reader, threads, state, folder)
    except (TrainingError, ConcurrentCommitError):
        return None  # a training runs, or has just committed; its own publication follows the lists


@dataclass(frozen=True)
class _State:
    users: TableVersion
    artists: TableVersion
    lists: TableVersion
    inputs: dict[str, int]
    covered: dict[str, Any]


def _state(store: DeltaStore) -> _State | None:
    inputs, covered = (store.latest_commit_metadata(USER_EMBEDDING, key) for key in (INPUTS, COVERED))
    lists = store.table_version(USER_TOP_ARTISTS)
    covered = (covered or {}).get(USER_TOP_ARTISTS.name)
    if inputs is None or covered is None or covered["version"] == lists.version or lists.latest_ingest is None:
        return None
    artists = store.table_version(ARTIST_EMBEDDING, inputs[ARTIST_EMBEDDING.name])
    if "listeners" not in pq.read_schema(artists.files[0]).names:
        return None
    return _State(store.table_version(USER_EMBEDDING), artists, lists, inputs, covered)


def _follow(store: DeltaStore, reader: Engine, threads: int, state: _State, folder: Path) -> FollowedLists | None:
    history = reader.read(USER_TOP_ARTISTS, state.lists.files)
    until = ibis.literal(datetime.fromisoformat(state.covered["until"]), "timestamp(6)")
    later = history["ingested_at"] > until
    is_complete = history.filter(~later).count().to_pyarrow().as_py() == state.covered["rows"]
    changed = reader.cache(history.filter(later).select("user_id").distinct()) if is_complete else None
    if changed is not None and not changed.count().to_pyarrow().as_py():
        return None  # the files were merged
    rows = history if changed is None else history.semi_join(changed, "user_id")
    metadata = {**inputs_of({USER_TOP_ARTISTS.name: state.lists}), INPUTS: state.inputs}
    interactions = load_interactions(weighted_interactions(current_rows(rows, USER_TOP_ARTISTS)), reader, folder)
    users, vectors = _place(interactions, state.artists.files, threads)
    file = store.new_folder(USER_EMBEDDING) / "users.parquet"
    write_vectors(file, USER_EMBEDDING, users, vectors)
    if changed is None:
        store.replace(USER_EMBEDDING, [file], metadata, state.users.version)
    else:
        replaced = pc.field("user_id").isin(pa.array(interactions.user_ids))
        replace_rows(store, USER_EMBEDDING, replaced, [file], metadata)
        compact(store, USER_EMBEDDING)
    return FollowedLists(len(users), len(interactions.user_ids) - len(users))


def _place(interactions: Interactions, artist_files: Iterable[str], threads: int) -> tuple[pa.Array, Floats]:
    """Return the ids of the users with an artist that has a vector, and the users' vectors."""
    names, artists, listeners = _artists(artist_files)
    columns = pc.index_in(interactions.artist_names, names).fill_null(-1).to_numpy()[interactions.artists]
    known = columns >= 0
    columns = columns[known]
    data = pair_weights(interactions.weights[known], artist_weights(listeners)[columns])
    shape = (len(interactions.user_ids), len(names))
    pairs = scipy.sparse.csr_matrix((data, (interactions.users[known], columns)), shape)
    placed = np.diff(pairs.indptr) > 0
    return pa.array(interactions.user_ids[placed]), user_vectors(pairs[placed], artists, threads)


def _artists(files: Iterable[str]) -> tuple[pa.Array, Floats, Ints]:
    """Load the names of the artists, their vectors and listeners, a batch at a time."""
    columns = ["artist_name", "listeners", *(f"dim_{number}" for number in range(EMBEDDING_DIMENSIONS))]
    names, listeners, vectors = [], [], []
    for batch in (batch for file in files for batch in pq.ParquetFile(file).iter_batches(columns=columns)):
        rows = batch.select(columns)
        names.append(rows.column(0))
        listeners.append(rows.column(1).to_numpy())
        vectors.append(np.column_stack(rows.columns[2:]).astype(np.float32))
    return pa.concat_arrays(names), np.concatenate(vectors), np.concatenate(listeners)
