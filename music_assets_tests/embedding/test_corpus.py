from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from music_assets.embedding import corpus
from music_assets.embedding.corpus import thin, write_corpus
from music_assets.embedding.interactions import Listening
from music_assets_tests.support.planted import listening_of, planted_listening


def lines_of(listening: Listening, folder: Path, seed: int = 1, trained: np.ndarray | None = None) -> list[list[str]]:
    everything = np.ones(len(listening.artist_names), bool)
    parts = write_corpus(listening, everything if trained is None else trained, seed, folder)
    lines = [[line.split() for line in part.path.read_text().splitlines()] for part in parts]
    assert [(sum(map(len, part)), len(part)) for part in lines] == [(part.words, part.sentences) for part in parts]
    return [line for part in lines for line in part]


def test_an_artist_stands_in_the_sentence_as_often_as_it_weighs(tmp_path):
    listening = listening_of((1, "a", 2), (1, "b", 0), (2, "a", 1), (2, "c", 3), (3, "b", 0))
    assert sorted(sorted(line) for line in lines_of(listening, tmp_path)) == [["0", "0"], ["0", "1", "1", "1"]]


def test_only_marked_artists_are_written(tmp_path):
    listening = listening_of((1, "a", 2), (2, "a", 1), (2, "c", 3), (3, "c", 1), (4, "d", 1))
    written = lines_of(listening, tmp_path, trained=np.array([False, True, False]))
    assert sorted(written) == [["1"], ["1", "1", "1"]]


def test_repeats_do_not_stay_side_by_side(tmp_path):
    line = lines_of(listening_of(*((1, f"a{number}", 5) for number in range(50))), tmp_path)[0]
    pairs = sum(one == other for one, other in pairwise(line))
    assert pairs < 25


def test_the_seed_decides_the_bytes(tmp_path):
    listening = planted_listening()
    texts = [lines_of(listening, tmp_path, seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert Counter(map(len, texts[0])) == Counter(map(len, texts[2]))


@pytest.mark.parametrize("words", [1, 300, 10**6])
def test_parts_together_hold_every_user_once(tmp_path, monkeypatch, words):
    monkeypatch.setattr(corpus, "WORDS_PER_PART", words)
    listening = planted_listening(users=30)
    lines = lines_of(listening, tmp_path)
    expected = sorted(listening.sum_by_user(listening.weights).tolist())
    assert sorted(map(len, lines)) == expected


def test_frequent_words_are_thinned_out_as_word2vec_does():
    """Artist 0 has 9,000 of 10,000 words, 90 times the sample: a word stays with (sqrt(90) + 1) / 90 = 0.1165.

    Artist 1 has 1,000, 10 times the sample: (sqrt(10) + 1) / 10 = 0.4162. Four standard deviations are allowed.
    """
    listening = listening_of(*((user, name, 5) for user in range(1800) for name in ("a", "b")[: 1 + (user < 200)]))
    everything = np.ones(2, bool)
    thinned = [thin(listening, everything, 0.01, seed) for seed in (1, 1, 2)]
    kept = [np.bincount(each.artists, each.weights) for each in thinned]
    assert kept[0].tolist() == pytest.approx([1049, 416], abs=4 * 31)
    assert kept[0].tolist() == kept[1].tolist() != kept[2].tolist()


@pytest.mark.parametrize(("sample", "expected"), [(0.1, 125), (1e-9, 300)])
def test_rare_words_stay_and_nobody_loses_the_last(sample: float, expected: int):
    """Artist a has 300 of 301 words. At 9.97 times the sample 0.417 of them stay; far beyond it none would.

    Artist c is not marked: its words count for nothing.
    """
    listening = listening_of(*((user, "a", 1) for user in range(300)), (300, "b", 1), (300, "c", 200))
    names = listening.artist_names.to_pylist()
    kept = thin(listening, np.array([name != "c" for name in names]), sample, 1)
    counts = dict(zip(names, np.bincount(kept.artists, kept.weights), strict=True))
    assert counts["a"] == pytest.approx(expected, abs=4 * 9)
    assert counts["b"] == 1


def test_a_sample_of_0_thins_out_nothing():
    listening = planted_listening(users=10)
    assert thin(listening, np.ones(len(listening.artist_names), bool), 0, 1) is listening
