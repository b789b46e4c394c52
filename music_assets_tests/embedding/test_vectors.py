"""From trained vectors to a vector for everyone, on listening small enough to work out by hand."""

import numpy as np
import pyarrow as pa
import pytest

from music_assets.embedding.interactions import Listening
from music_assets.embedding.vectors import Embeddings, embed, unit
from music_assets.embedding.word2vec import DIMENSIONS, WordVectors
from music_assets_tests.support.planted import listening_of


def embedded(listening: Listening, **trained: int) -> Embeddings:
    """Embed with the named artists trained, each along the axis given."""
    names = listening.artist_names.to_pylist()
    vectors = np.zeros((len(trained), DIMENSIONS), np.float32)
    vectors[np.arange(len(trained)), list(trained.values())] = 3.0
    return embed(listening, WordVectors(np.array([names.index(name) for name in trained]), vectors, 2, 1, 1))


def taste_of(embeddings: Embeddings, artist: str) -> np.ndarray:
    return unit(embeddings.artists[embeddings.artist_names.to_pylist().index(artist), :DIMENSIONS][None])[0]


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_a_user_is_the_weighted_mean_of_the_trained_artists():
    embeddings = embedded(listening_of((1, "a", 3), (1, "b", 1), (1, "rare", 6)), a=0, b=1)
    assert embeddings.users[0, 0] == pytest.approx(3 * embeddings.users[0, 1])
    assert embeddings.users[0] == pytest.approx((3 * embeddings.artists[0] + embeddings.artists[1]) / 4)


def test_a_rare_artist_has_the_taste_of_its_listeners():
    """Users 1 and 2 listen to a and b alone; the rare artist weighs 1 with the one and 3 with the other."""
    embeddings = embedded(listening_of((1, "a", 4), (1, "rare", 1), (2, "b", 2), (2, "rare", 3)), a=0, b=1)
    assert taste_of(embeddings, "rare")[:2] == pytest.approx(np.array([1, 3]) / np.sqrt(10))


def test_a_rare_artist_is_further_from_its_listener_than_a_trained_one():
    """The mean of one user's artists is that user: by taste alone, what nobody else knows would always come first."""
    embeddings = embedded(listening_of((1, "a", 1), (1, "b", 1), (1, "rare", 1)), a=0, b=1)
    to_trained, _, to_rare = (cosine(embeddings.users[0], artist) for artist in embeddings.artists)
    assert cosine(embeddings.users[0, :DIMENSIONS], taste_of(embeddings, "rare")) == pytest.approx(1)
    assert to_rare < to_trained


def test_users_whose_artists_are_all_rare_are_reached_step_by_step():
    """User 1 knows a; r is reached from user 1, user 2 from r, s from user 2, user 3 from s."""
    listening = listening_of((1, "a", 1), (1, "r", 1), (2, "r", 1), (2, "s", 1), (3, "s", 1), (4, "b", 1))
    embeddings = embedded(listening, a=0, b=1)
    assert taste_of(embeddings, "s")[:2] == pytest.approx([1, 0])
    assert cosine(embeddings.users[2, :DIMENSIONS], embeddings.users[0, :DIMENSIONS]) == pytest.approx(1)


def test_who_is_linked_to_nothing_trained_gets_the_mean_of_the_trained():
    embeddings = embedded(listening_of((1, "a", 1), (2, "b", 1), (3, "island", 1)), a=0, b=1)
    assert taste_of(embeddings, "island")[:2] == pytest.approx(np.array([1, 1]) / np.sqrt(2))
    assert np.linalg.norm(embeddings.users[2]) > 0


def test_artists_of_unknown_plays_still_give_a_vector():
    embeddings = embedded(listening_of((1, "a", 2), (2, "a", 0), (2, "b", 0), (3, "b", 2), (3, "c", 0)), a=0, b=1)
    assert embeddings.users[1] == pytest.approx((embeddings.artists[0] + embeddings.artists[1]) / 2, abs=1e-6)
    assert taste_of(embeddings, "c")[:2] == pytest.approx([0, 1])


def test_a_user_without_any_pair_left_gets_the_mean_of_the_trained():
    listening = listening_of((1, "a", 1), (2, "b", 1)).only(np.array([True, False]))
    embeddings = embedded(listening, a=0, b=1)
    assert embeddings.users[1] == pytest.approx(embeddings.artists.mean(axis=0))


def test_the_tables_hold_every_key_with_fifty_finite_doubles():
    embeddings = embedded(listening_of((1, "a\nb", 1), (7, "c", 1)), c=0)
    artists, users = embeddings.artist_table().read_all(), embeddings.user_table().read_all()
    assert users.column_names == ["user_id", *(f"dim_{number}" for number in range(50))]
    assert artists.column_names[0] == "artist_name"
    assert sorted(artists["artist_name"].to_pylist()) == ["a\nb", "c"]
    assert users["user_id"].to_pylist() == [1, 7]
    for table in (artists, users):
        assert set(table.schema.types[1:]) == {pa.float64()}
        assert np.isfinite(table.drop_columns(table.column_names[0]).to_pandas().to_numpy()).all()
