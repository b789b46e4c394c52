from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from music_assets.embedding import corpus
from music_assets.embedding.corpus import write_corpus
from music_assets.embedding.listening import Listening
from music_assets_tests.embedding.planted import listening_of, planted_listening


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
