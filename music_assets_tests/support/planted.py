"""Made-up listening with planted tastes: each user draws from one cluster of artists, and sometimes from any."""

import numpy as np
import pyarrow as pa

from music_assets.embedding.interactions import Listening, read_listening

CLUSTERS = 6
ARTISTS_PER_CLUSTER = 40


def listening_of(*pairs: tuple[int, str, int]) -> Listening:
    columns = {"user_id": pa.int32(), "artist_name": pa.string(), "weight": pa.int32()}
    arrays = [pa.array([pair[place] for pair in pairs], kind) for place, kind in enumerate(columns.values())]
    return read_listening([pa.record_batch(arrays, names=list(columns))])


def planted_listening(users: int = 300, artists_per_user: int = 20, seed: int = 7) -> Listening:
    """Artist `3-17` is number 17 of cluster 3; the lower the number the more popular. User u prefers u % CLUSTERS."""
    generator = np.random.default_rng(seed)
    popularity = 1 / np.arange(4, ARTISTS_PER_CLUSTER + 4)
    pairs = set()
    for user in range(users):
        numbers = generator.choice(ARTISTS_PER_CLUSTER, artists_per_user, False, popularity / popularity.sum())
        stray = generator.random(artists_per_user) < 0.15
        clusters = np.where(stray, generator.integers(CLUSTERS, size=artists_per_user), user % CLUSTERS)
        pairs |= {(user, f"{cluster}-{number}") for cluster, number in zip(clusters, numbers, strict=True)}
    return listening_of(*((user, name, int(generator.integers(1, 6))) for user, name in sorted(pairs)))
