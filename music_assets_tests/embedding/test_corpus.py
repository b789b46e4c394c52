from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from music_assets.embedding import corpus
from music_assets.embedding.corpus import subsample, write_corpus
from music_assets.embedding.interactions import Interactions
from music_assets_tests.support.planted import interactions_of, planted_interactions


def lines_of(interactions: Interactions, folder: Path, seed: int = 1, trained: Any = None) -> list[list[str]]:
    every_artist = np.ones(len(interactions.artist_names), bool)
    parts = write_corpus(interactions, every_artist if trained is None else trained, seed, folder)
    lines = [[line.split() for line in part.path.read_text().splitlines()] for part in parts]
    assert [(sum(map(len, part)), len(part)) for part in lines] == [(part.words, part.sentences) for part in parts]
    return [line for part in lines for line in part]


def test_artist_is_repeated_by_its_weight(tmp_path):
    interactions = interactions_of((1, "a", 2), (1, "b", 0), (2, "a", 1), (2, "c", 3), (3, "b", 0))
    assert sorted(sorted(line) for line in lines_of(interactions, tmp_path)) == [["0", "0"], ["0", "1", "1", "1"]]


def test_only_trained_artists_are_written(tmp_path):
    interactions = interactions_of((1, "a", 2), (2, "a", 1), (2, "c", 3), (3, "c", 1), (4, "d", 1))
    written = lines_of(interactions, tmp_path, trained=np.array([False, True, False]))
    assert sorted(written) == [["1"], ["1", "1", "1"]]


def test_repeats_are_shuffled(tmp_path):
    line = lines_of(interactions_of(*((1, f"a{number}", 5) for number in range(50))), tmp_path)[0]
    pairs = sum(one == other for one, other in pairwise(line))
    assert pairs < 25


def test_same_seed_gives_same_bytes(tmp_path):
    interactions = planted_interactions()
    texts = [lines_of(interactions, tmp_path, seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert Counter(map(len, texts[0])) == Counter(map(len, texts[2]))


@pytest.mark.parametrize("words", [1, 300, 10**6])
def test_parts_together_contain_every_user_once(tmp_path, monkeypatch, words):
    monkeypatch.setattr(corpus, "WORDS_PER_PART", words)
    interactions = planted_interactions(users=30)
    lines = lines_of(interactions, tmp_path)
    expected = sorted(interactions.sum_by_user(interactions.weights).tolist())
    assert sorted(map(len, lines)) == expected


def test_frequent_words_are_subsampled_as_in_word2vec():
    """Artist a has 9,000 of 10,000 words, 90 times the sample: the share (sqrt(90) + 1) / 90 = 0.1165 is kept.

    Artist b has 1,000, 10 times the sample: (sqrt(10) + 1) / 10 = 0.4162. Four standard deviations are allowed.
    """
    interactions = interactions_of(*((user, "b" if user < 200 else "a", 5) for user in range(2000)))
    everything = np.ones(2, bool)
    subsampled = [subsample(interactions, everything, 0.01, seed) for seed in (1, 1, 2)]
    kept = [np.bincount(each.artists, each.weights) for each in subsampled]
    assert kept[0].tolist() == pytest.approx([1049, 416], abs=4 * 31)
    assert kept[0].tolist() == kept[1].tolist() != kept[2].tolist()


@pytest.mark.parametrize(("sample", "expected"), [(0.1, 125), (1e-9, 300)])
def test_rare_words_are_kept_and_no_artist_loses_all_words(sample: float, expected: int):
    """Artist a has 300 of 301 words. At 9.97 times the sample, 0.417 of them are kept; far above it, none would be.

    Artist c is not trained: its words are not counted.
    """
    interactions = interactions_of(*((user, "a", 1) for user in range(300)), (300, "b", 1), (300, "c", 200))
    names = interactions.artist_names.to_pylist()
    kept = subsample(interactions, np.array([name != "c" for name in names]), sample, 1)
    counts = dict(zip(names, np.bincount(kept.artists, kept.weights), strict=True))
    assert counts["a"] == pytest.approx(expected, abs=4 * 9)
    assert counts["b"] == 1


def test_sample_of_0_keeps_everything():
    interactions = planted_interactions(users=10)
    assert subsample(interactions, np.ones(len(interactions.artist_names), bool), 0, 1) is interactions
