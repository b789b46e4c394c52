"""Embeddings of artists and users from word vectors, on interactions small enough to reason about."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_assets.embedding.interactions import Interactions
from music_assets.embedding.vectors import Embeddings, embed
from music_assets.embedding.word2vec import Hyperparameters, WordVectors
from music_assets.tables import EMBEDDING_DIMENSIONS
from music_assets_tests.support.planted import interactions_of

DEFAULTS = Hyperparameters()


def embedded(interactions: Interactions, settings: Hyperparameters = DEFAULTS, **trained: int) -> Embeddings:
    """Embed with the named artists trained, each with a word vector along the given axis."""
    names = interactions.artist_names.to_pylist()
    vectors = np.zeros((len(trained), EMBEDDING_DIMENSIONS), np.float32)
    vectors[np.arange(len(trained)), list(trained.values())] = 3.0
    found = WordVectors(np.array([names.index(name) for name in trained]), vectors, 2, 1, 1)
    return embed(interactions, found, settings)


def artist(embeddings: Embeddings, name: str) -> np.ndarray:
    return embeddings.artists[embeddings.artist_names.to_pylist().index(name)]


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def two_tastes(*others: tuple[int, str, int]) -> Interactions:
    """Users 1 to 10 list a and b, users 11 to 20 c and d."""
    rows = [(user, name, 3) for user in range(1, 21) for name in ("ab" if user <= 10 else "cd")]
    return interactions_of(*sorted((*rows, *others)))


def test_artists_and_users_of_a_taste_are_close() -> None:
    embeddings = embedded(two_tastes(), a=0, c=1)
    assert cosine(artist(embeddings, "a"), artist(embeddings, "b")) > 0.99
    assert abs(cosine(artist(embeddings, "a"), artist(embeddings, "c"))) < 0.01
    assert cosine(embeddings.users[0], embeddings.users[9]) > 0.99
    assert abs(cosine(embeddings.users[0], embeddings.users[10])) < 0.01


def test_inner_product_is_high_for_listed_artists_and_low_for_others() -> None:
    embeddings = embedded(two_tastes(), a=0, c=1)
    scores = embeddings.users @ embeddings.artists.T
    names = embeddings.artist_names.to_pylist()
    listed = np.array([[name in ("ab" if user < 10 else "cd") for name in names] for user in range(20)])
    assert scores[listed].min() > 0.05
    assert abs(scores[~listed]).max() < 0.01


def test_rare_artist_has_the_taste_of_its_listener_and_is_recommended_later() -> None:
    embeddings = embedded(two_tastes((1, "rare", 3)), a=0, c=1)
    assert cosine(artist(embeddings, "rare"), artist(embeddings, "a")) > 0.99
    other = embeddings.users[1]
    assert 0 < other @ artist(embeddings, "rare") < 0.7 * other @ artist(embeddings, "a")


def test_a_larger_ridge_makes_rare_artists_shorter() -> None:
    interactions = two_tastes((1, "rare", 3))
    short, long = (
        np.linalg.norm(artist(embedded(interactions, Hyperparameters(ridge=ridge), a=0, c=1), "rare"))
        for ridge in (20, 1)
    )
    assert short < 0.5 * long


def test_listeners_and_trained_artists() -> None:
    embeddings = embedded(two_tastes((1, "rare", 0)), a=0, c=1)
    assert dict(zip(embeddings.artist_names.to_pylist(), embeddings.listeners.tolist(), strict=True)) == {
        "a": 10, "b": 10, "c": 10, "d": 10, "rare": 1,
    }  # fmt: skip
    trained = [name for name, seen in zip(embeddings.artist_names.to_pylist(), embeddings.trained, strict=True) if seen]
    assert trained == ["a", "c"]


def test_listener_of_rare_artists_only_is_placed_by_their_other_listeners() -> None:
    embeddings = embedded(two_tastes((1, "rare", 3), (21, "rare", 3)), a=0, c=1)
    assert cosine(embeddings.users[20], embeddings.users[0]) > 0.99


def test_disconnected_artist_gets_zeros_and_its_listener_the_vector_of_the_average_user() -> None:
    embeddings = embedded(two_tastes((21, "island", 3)), a=0, c=1)
    assert not artist(embeddings, "island").any()
    assert embeddings.users[20] == pytest.approx(embeddings.users[:20].sum(axis=0) / 21)


def test_user_without_interactions_gets_the_vector_of_the_average_user() -> None:
    interactions = two_tastes()
    embeddings = embedded(interactions.select(interactions.users > 0), a=0, c=1)
    assert embeddings.users[0] == pytest.approx(embeddings.users[1:].sum(axis=0) / 20)


def test_artists_without_plays_count_only_where_there_are_no_others() -> None:
    embeddings = embedded(two_tastes((1, "c", 0), (21, "a", 0), (22, "c", 0)), a=0, c=1)
    assert cosine(embeddings.users[0], embeddings.users[1]) > 0.95
    assert cosine(embeddings.users[20], embeddings.users[1]) > 0.95
    assert cosine(embeddings.users[21], embeddings.users[19]) > 0.95


def test_files_have_the_declared_columns(tmp_path: Path) -> None:
    embeddings = embedded(interactions_of((1, "a\nb", 1), (7, "c", 1), (8, "c", 1)), c=0)
    embeddings.write_artists(tmp_path / "artists.parquet")
    embeddings.write_users(tmp_path / "users.parquet")
    artists, users = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("artists", "users"))
    dimensions = [f"dim_{number}" for number in range(50)]
    assert users.column_names == ["user_id", *dimensions]
    assert artists.column_names == ["artist_name", *dimensions, "listeners", "trained"]
    assert artists.select(["artist_name", "listeners", "trained"]).to_pylist() == [
        {"artist_name": "c", "listeners": 2, "trained": True},
        {"artist_name": "a\nb", "listeners": 1, "trained": False},
    ]
    assert users["user_id"].to_pylist() == [1, 7, 8]
    for table in (artists, users):
        assert set(table.select(dimensions).schema.types) == {pa.float64()}
        assert np.isfinite(table.select(dimensions).to_pandas().to_numpy()).all()
