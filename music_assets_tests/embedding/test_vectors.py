"""Embeddings of artists and users from word vectors, on interactions small enough to compute by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_assets.embedding.interactions import Interactions
from music_assets.embedding.vectors import Embeddings, embed, normalize
from music_assets.embedding.word2vec import DIMENSIONS, WordVectors
from music_assets_tests.support.planted import interactions_of


def embedded(interactions: Interactions, **trained: int) -> Embeddings:
    """Embed with the named artists trained, each with a word vector along the given axis."""
    names = interactions.artist_names.to_pylist()
    vectors = np.zeros((len(trained), DIMENSIONS), np.float32)
    vectors[np.arange(len(trained)), list(trained.values())] = 3.0
    return embed(interactions, WordVectors(np.array([names.index(name) for name in trained]), vectors, 2, 1, 1))


def taste_of(embeddings: Embeddings, artist: str) -> np.ndarray:
    return normalize(embeddings.artists[embeddings.artist_names.to_pylist().index(artist), :DIMENSIONS][None])[0]


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_user_is_the_weighted_mean_of_trained_artists():
    embeddings = embedded(interactions_of((1, "a", 3), (1, "b", 1), (1, "rare", 6)), a=0, b=1)
    assert embeddings.users[0, 0] == pytest.approx(3 * embeddings.users[0, 1])
    assert embeddings.users[0] == pytest.approx((3 * embeddings.artists[0] + embeddings.artists[1]) / 4)


def test_rare_artist_has_the_taste_of_its_listeners():
    """Users 1 and 2 listen to a and b alone; the rare artist weighs 1 for user 1 and 3 for user 2."""
    embeddings = embedded(interactions_of((1, "a", 4), (1, "rare", 1), (2, "b", 2), (2, "rare", 3)), a=0, b=1)
    assert taste_of(embeddings, "rare")[:2] == pytest.approx(np.array([1, 3]) / np.sqrt(10))


def test_rare_artist_is_further_from_its_listener_than_a_trained_one():
    """By taste alone, an artist with a single listener would always be that user's nearest."""
    embeddings = embedded(interactions_of((1, "a", 1), (1, "b", 1), (1, "rare", 1)), a=0, b=1)
    to_trained, _, to_rare = (cosine(embeddings.users[0], artist) for artist in embeddings.artists)
    assert cosine(embeddings.users[0, :DIMENSIONS], taste_of(embeddings, "rare")) == pytest.approx(1)
    assert to_rare < to_trained


def test_users_of_rare_artists_are_reached_step_by_step():
    """User 1 listens to a; r is estimated from user 1, user 2 from r, s from user 2, user 3 from s."""
    interactions = interactions_of((1, "a", 1), (1, "r", 1), (2, "r", 1), (2, "s", 1), (3, "s", 1), (4, "b", 1))
    embeddings = embedded(interactions, a=0, b=1)
    assert taste_of(embeddings, "s")[:2] == pytest.approx([1, 0])
    assert cosine(embeddings.users[2, :DIMENSIONS], embeddings.users[0, :DIMENSIONS]) == pytest.approx(1)


def test_disconnected_artists_and_users_get_the_mean_of_the_trained():
    embeddings = embedded(interactions_of((1, "a", 1), (2, "b", 1), (3, "island", 1)), a=0, b=1)
    assert taste_of(embeddings, "island")[:2] == pytest.approx(np.array([1, 1]) / np.sqrt(2))
    assert np.linalg.norm(embeddings.users[2]) > 0


def test_artists_without_plays_count_alike():
    embeddings = embedded(interactions_of((1, "a", 2), (2, "a", 0), (2, "b", 0), (3, "b", 2), (3, "c", 0)), a=0, b=1)
    assert embeddings.users[1] == pytest.approx((embeddings.artists[0] + embeddings.artists[1]) / 2, abs=1e-6)
    assert taste_of(embeddings, "c")[:2] == pytest.approx([0, 1])


def test_user_without_interactions_gets_the_mean_of_the_trained():
    interactions = interactions_of((1, "a", 1), (2, "b", 1)).select(np.array([True, False]))
    embeddings = embedded(interactions, a=0, b=1)
    assert embeddings.users[1] == pytest.approx(embeddings.artists.mean(axis=0))


def test_files_have_a_row_of_fifty_finite_doubles_per_key(tmp_path: Path):
    embeddings = embedded(interactions_of((1, "a\nb", 1), (7, "c", 1)), c=0)
    embeddings.write_artists(tmp_path / "artists.parquet")
    embeddings.write_users(tmp_path / "users.parquet")
    artists, users = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("artists", "users"))
    assert users.column_names == ["user_id", *(f"dim_{number}" for number in range(50))]
    assert artists.column_names[0] == "artist_name"
    assert sorted(artists["artist_name"].to_pylist()) == ["a\nb", "c"]
    assert users["user_id"].to_pylist() == [1, 7]
    for table in (artists, users):
        assert set(table.schema.types[1:]) == {pa.float64()}
        assert np.isfinite(table.drop_columns(table.column_names[0]).to_pandas().to_numpy()).all()
