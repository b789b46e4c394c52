"""Figures worked out by hand, the split's promises, and the whole on real rows."""

import os
from math import log2
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest

from music_assets.embedding.evaluation import Figures, Split, by_cosine, by_popularity, evaluate, split
from music_assets.embedding.interactions import read_listening
from music_assets.embedding.vectors import Embeddings, embed
from music_assets.embedding.word2vec import Hyperparameters, train
from music_assets.transforms.interactions import sentences
from music_assets_tests.support.planted import listening_of, planted_listening

REAL_DATA = Path(os.environ.get("MUSIC_ASSETS_REAL_DATA", Path(__file__).parents[3] / "shared" / "realdata"))


def test_figures_of_a_ranking_worked_out_by_hand():
    """User 0 has artists 28 and 29 held out, which come 2nd and 12th: artist 0, known already, is passed over.

    User 1 has artist 29 held out, which comes last of the 29 unknown ones.
    """
    pairs = [(user, f"{number:02}", 1) for user in (0, 1) for number in range(30)]
    listening = listening_of(*pairs)
    marks = {(0, 28), (0, 29), (1, 29)}
    held = np.array([(user, int(name)) in marks for user, name, _ in pairs])
    known = np.array([name == "00" for _, name, _ in pairs])
    data = Split(listening.only(known), listening.only(held), np.array([0, 1]))
    first = np.arange(30, 0, -1, dtype=np.float32)
    first[28], first[29] = 28.5, 18.5
    last = np.arange(30, 0, -1, dtype=np.float32)
    scores = np.stack([first, last])
    figures = evaluate(data, lambda users: scores[users].copy())
    gain = (1 / log2(3)) / (1 + 1 / log2(3))
    assert figures == Figures(pytest.approx(0.5), 0.5, pytest.approx(gain / 2), 2)


def test_blocks_of_users_give_what_one_block_gives(monkeypatch):
    data = split(planted_listening(users=50), seed=3)
    whole = evaluate(data, by_popularity(data.kept))
    monkeypatch.setattr("music_assets.embedding.evaluation.SCORES_PER_BLOCK", 700)
    assert evaluate(data, by_popularity(data.kept)) == whole


def test_a_fifth_of_each_list_is_held_out_rounded_down():
    listening = listening_of(*((user, f"{n:02}", 1) for user, count in ((1, 4), (2, 9), (3, 11)) for n in range(count)))
    data = split(listening, seed=0)
    assert data.held_out.sum_by_user(data.held_out.weights).tolist() == [0, 1, 2]
    assert data.users.tolist() == [1, 2]
    together = data.kept.matrix() + data.held_out.matrix()
    assert (together != listening.matrix()).nnz == 0


def test_the_seed_decides_the_split():
    first, again, other = (split(planted_listening(), seed).held_out.artists.tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_a_sample_leaves_the_others_whole():
    listening = planted_listening(users=40)
    data = split(listening, seed=1, sample=10)
    assert len(data.users) == 10
    untouched = np.setdiff1d(np.arange(40), data.users)
    assert (data.kept.matrix()[untouched] != listening.matrix()[untouched]).nnz == 0


def test_pairs_without_plays_are_never_held_out():
    data = split(listening_of(*((1, f"{n:02}", int(n < 10)) for n in range(30))), seed=0)
    assert data.held_out.weights.tolist() == [1, 1]


def test_cosine_does_not_look_at_length():
    vectors = np.eye(3, 50, dtype=np.float32)
    embeddings = Embeddings(None, vectors * [[9], [1], [1]], np.arange(2), vectors[:2] * [[1], [5]])
    assert by_cosine(embeddings)(np.array([0, 1])).tolist() == [[1, 0, 0], [0, 1, 0]]


def test_on_real_rows_the_vectors_foretell_far_better_than_popularity():
    file = REAL_DATA / "kaggle399" / "user_top_artists.csv"
    if not file.exists():
        pytest.skip(f"real rows are not there: {file} (set MUSIC_ASSETS_REAL_DATA)")
    rows = pd.read_csv(file, keep_default_na=False, usecols=["user_id", "artist_name", "playcount"])
    listening = read_listening(sentences(ibis.memtable(rows)).to_pyarrow().to_batches())
    data = split(listening, seed=0)
    embeddings = embed(data.kept, train(data.kept, Hyperparameters(passes=50)))
    ours, popular = evaluate(data, by_cosine(embeddings)), evaluate(data, by_popularity(data.kept))
    assert len(embeddings.artists) == rows["artist_name"].nunique()
    assert ours.recall_at_20 > 1.4 * popular.recall_at_20
