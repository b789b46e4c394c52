"""Synthetic interactions with planted taste clusters: a user draws most artists from one cluster, some from any."""

import numpy as np
import pyarrow as pa

from music_assets.embedding.interactions import Interactions, read_interactions
from music_assets.embedding.vectors import Embeddings, Floats, normalize

CLUSTERS = 6
ARTISTS_PER_CLUSTER = 40


def interactions_of(*rows: tuple[int, str, int]) -> Interactions:
    """Return the interactions of rows of user, artist and weight."""
    columns = {"user_id": pa.int32(), "artist_name": pa.string(), "weight": pa.int32()}
    arrays = [pa.array([row[place] for row in rows], kind) for place, kind in enumerate(columns.values())]
    return read_interactions([pa.record_batch(arrays, names=list(columns))])


def planted_interactions(users: int = 300, artists_per_user: int = 20, seed: int = 7) -> Interactions:
    """Artist `3-17` is number 17 of cluster 3; the lower the number, the more popular. User u prefers u % CLUSTERS."""
    generator = np.random.default_rng(seed)
    popularity = 1 / np.arange(4, ARTISTS_PER_CLUSTER + 4)
    pairs = set()
    for user in range(users):
        numbers = generator.choice(ARTISTS_PER_CLUSTER, artists_per_user, False, popularity / popularity.sum())
        stray = generator.random(artists_per_user) < 0.15
        clusters = np.where(stray, generator.integers(CLUSTERS, size=artists_per_user), user % CLUSTERS)
        pairs |= {(user, f"{cluster}-{number}") for cluster, number in zip(clusters, numbers, strict=True)}
    return interactions_of(*((user, name, int(generator.integers(1, 6))) for user, name in sorted(pairs)))


def same_cluster_share(vectors: Floats, clusters: np.ndarray) -> float:
    """Return the share of rows of the same cluster among the five nearest rows of each row."""
    cosines = normalize(vectors) @ normalize(vectors).T
    np.fill_diagonal(cosines, -2)
    nearest = np.argsort(-cosines, axis=1)[:, :5]
    return float(np.mean(clusters[nearest] == clusters[:, None]))


def assert_clusters_found(embeddings: Embeddings) -> None:
    """Neighbours among artists, and among users, are of the same planted cluster; at random, one in six would be."""
    artist_clusters = np.array([int(name.split("-")[0]) for name in embeddings.artist_names.to_pylist()])
    assert same_cluster_share(embeddings.artists, artist_clusters) > 0.8
    assert same_cluster_share(embeddings.users, embeddings.user_ids % CLUSTERS) > 0.8
