import numpy as np
import pyarrow as pa
import pytest

from music_assets.embedding.interactions import read_listening
from music_assets_tests.support.planted import listening_of


def test_artists_are_numbered_by_listeners_then_name():
    listening = listening_of((1, "rare", 5), (1, "Z", 1), (1, "loved", 1), (2, "loved", 1), (2, "silent", 0))
    assert listening.artist_names.to_pylist() == ["loved", "Z", "rare", "silent"]
    assert listening.listeners.tolist() == [2, 1, 1, 0]


def test_repeats_do_not_make_listeners():
    assert listening_of((1, "a", 7), (2, "b", 1), (3, "b", 1)).listeners.tolist() == [2, 1]


def test_names_with_spaces_and_line_breaks_stay_whole():
    names = ["a b", "a\nb", 'a "b"', ""]
    assert sorted(listening_of(*((1, name, 1) for name in names)).artist_names.to_pylist()) == sorted(names)


def test_pairs_are_the_same_however_they_are_cut_into_batches():
    rows = pa.table({"user_id": [1, 1, 2, 4], "artist_name": ["a", "b", "b", "c"], "weight": [1, 2, 3, 4]})
    whole, cut = read_listening(rows.to_batches()), read_listening(rows.to_batches(max_chunksize=1))
    assert np.array_equal(whole.matrix().todense(), cut.matrix().todense())
    assert cut.user_ids.tolist() == [1, 2, 4]
    assert cut.matrix().todense().tolist() == [[2, 1, 0], [3, 0, 0], [0, 0, 4]]


def test_users_keep_their_number_when_they_lose_all_their_pairs():
    listening = listening_of((1, "a", 1), (2, "b", 2), (2, "c", 3), (3, "d", 4))
    left = listening.only(np.array([True, False, False, True]))
    assert left.user_ids.tolist() == [1, 2, 3]
    assert left.sum_by_user(left.weights).tolist() == [1, 0, 4]
    assert left.users.tolist() == [0, 2]


def test_users_out_of_order_are_refused():
    with pytest.raises(ValueError, match="ordered by user_id"):
        listening_of((2, "a", 1), (1, "a", 1))


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="refresh_rankings"):
        read_listening([])
