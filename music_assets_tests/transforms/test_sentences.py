"""Weights of a user's artists, against values worked out by hand."""

import ibis

from music_assets.transforms.sentences import sentences


def weights(*rows: tuple[int, str, int | None]) -> list[tuple[int, str, int]]:
    table = ibis.memtable(
        {
            "user_id": [row[0] for row in rows],
            "artist_name": [row[1] for row in rows],
            "playcount": [r[2] for r in rows],
        },
        schema={"user_id": "int32", "artist_name": "string", "playcount": "int64"},
    )
    return list(sentences(table).to_pyarrow().to_pandas().itertuples(index=False, name=None))


def test_the_weight_is_the_rounded_logarithm_plus_one():
    plays = {"a": 1, "b": 3, "c": 4, "d": 10, "e": 31, "f": 32, "g": 91_424}
    expected = {"a": 1, "b": 1, "c": 2, "d": 2, "e": 2, "f": 3, "g": 6}
    assert weights(*((1, name, count) for name, count in plays.items())) == [(1, n, w) for n, w in expected.items()]


def test_no_plays_and_unknown_plays_weigh_nothing_but_the_pair_stays():
    assert weights((1, "a", 0), (1, "b", None)) == [(1, "a", 0), (1, "b", 0)]


def test_an_artist_listed_twice_counts_once_with_the_sum():
    assert weights((1, "a", 20), (1, "a", 20), (1, "a", None)) == [(1, "a", 3)]


def test_rows_come_ordered_by_user_then_artist():
    assert weights((2, "b", 1), (1, "z", 1), (2, "a", 1)) == [(1, "z", 1), (2, "a", 1), (2, "b", 1)]
