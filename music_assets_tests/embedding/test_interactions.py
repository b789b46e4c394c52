import numpy as np
import pyarrow as pa
import pytest

from music_assets.embedding.interactions import read_interactions
from music_assets_tests.support.planted import interactions_of


def test_artists_are_ordered_by_listeners_then_name():
    interactions = interactions_of((1, "rare", 5), (1, "Z", 1), (1, "popular", 1), (2, "popular", 1), (2, "silent", 0))
    assert interactions.artist_names.to_pylist() == ["popular", "Z", "rare", "silent"]
    assert interactions.listeners.tolist() == [2, 1, 1, 0]


def test_weight_does_not_change_number_of_listeners():
    assert interactions_of((1, "a", 7), (2, "b", 1), (3, "b", 1)).listeners.tolist() == [2, 1]


def test_names_with_spaces_and_line_breaks():
    names = ["a b", "a\nb", 'a "b"', ""]
    assert sorted(interactions_of(*((1, name, 1) for name in names)).artist_names.to_pylist()) == sorted(names)


def test_batch_size_does_not_change_interactions():
    rows = pa.table({"user_id": [1, 1, 2, 4], "artist_name": ["a", "b", "b", "c"], "weight": [1, 2, 3, 4]})
    whole, split = read_interactions(rows.to_batches()), read_interactions(rows.to_batches(max_chunksize=1))
    assert np.array_equal(whole.matrix().todense(), split.matrix().todense())
    assert split.user_ids.tolist() == [1, 2, 4]
    assert split.matrix().todense().tolist() == [[2, 1, 0], [3, 0, 0], [0, 0, 4]]


def test_user_without_selected_interactions_keeps_its_index():
    interactions = interactions_of((1, "a", 1), (2, "b", 2), (2, "c", 3), (3, "d", 4))
    selected = interactions.select(np.array([True, False, False, True]))
    assert selected.user_ids.tolist() == [1, 2, 3]
    assert selected.sum_by_user(selected.weights).tolist() == [1, 0, 4]
    assert selected.users.tolist() == [0, 2]


def test_unordered_users_are_refused():
    with pytest.raises(ValueError, match="ordered by user_id"):
        interactions_of((2, "a", 1), (1, "a", 1))


def test_empty_input_is_refused():
    with pytest.raises(ValueError, match="refresh_rankings"):
        read_interactions([])
