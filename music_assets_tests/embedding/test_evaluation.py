"""Metrics computed by hand, the holdout split, and the evaluation of vectors trained on real rows."""

import os
from math import log2
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest

from music_assets.embedding.evaluation import Metrics, Split, cosine_scorer, evaluate, popularity_scorer, split
from music_assets.embedding.interactions import read_interactions
from music_assets.embedding.vectors import Embeddings, embed
from music_assets.embedding.word2vec import Hyperparameters
from music_assets.embedding.word2vec_gensim import train
from music_assets.transforms.interactions import weighted_interactions
from music_assets_tests.support.planted import interactions_of, planted_interactions

REAL_DATA = Path(os.environ.get("MUSIC_ASSETS_REAL_DATA", Path(__file__).parents[3] / "shared" / "realdata"))


def test_metrics_by_hand():
    """User 0 has artists 28 and 29 held out, which rank 2nd and 12th: artist 0 is known and is not ranked.

    User 1 has artist 29 held out, which ranks last of the 29 unknown ones.
    """
    pairs = [(user, f"{number:02}", 1) for user in (0, 1) for number in range(30)]
    interactions = interactions_of(*pairs)
    marks = {(0, 28), (0, 29), (1, 29)}
    held = np.array([(user, int(name)) in marks for user, name, _ in pairs])
    known = np.array([name == "00" for _, name, _ in pairs])
    data = Split(interactions.select(known), interactions.select(held), np.array([0, 1]))
    first = np.arange(30, 0, -1, dtype=np.float32)
    first[28], first[29] = 28.5, 18.5
    last = np.arange(30, 0, -1, dtype=np.float32)
    scores = np.stack([first, last])
    metrics = evaluate(data, lambda users: scores[users].copy())
    gain = (1 / log2(3)) / (1 + 1 / log2(3))
    assert metrics == Metrics(pytest.approx(0.5), 0.5, pytest.approx(gain / 2), 2)


def test_block_size_does_not_change_metrics(monkeypatch):
    data = split(planted_interactions(users=50), seed=3)
    whole = evaluate(data, popularity_scorer(data.train))
    monkeypatch.setattr("music_assets.embedding.evaluation.SCORES_PER_BLOCK", 700)
    assert evaluate(data, popularity_scorer(data.train)) == whole


def test_a_fifth_of_each_list_is_held_out_rounded_down():
    counts = {1: 4, 2: 9, 3: 11}
    interactions = interactions_of(*((user, f"{n:02}", 1) for user, count in counts.items() for n in range(count)))
    data = split(interactions, seed=0)
    assert data.held_out.sum_by_user(data.held_out.weights).tolist() == [0, 1, 2]
    assert data.users.tolist() == [1, 2]
    together = data.train.matrix() + data.held_out.matrix()
    assert (together != interactions.matrix()).nnz == 0


def test_same_seed_gives_same_split():
    first, again, other = (split(planted_interactions(), seed).held_out.artists.tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_users_outside_the_sample_lose_nothing():
    interactions = planted_interactions(users=40)
    data = split(interactions, seed=1, sample=10)
    assert len(data.users) == 10
    untouched = np.setdiff1d(np.arange(40), data.users)
    assert (data.train.matrix()[untouched] != interactions.matrix()[untouched]).nnz == 0


def test_artists_without_plays_are_never_held_out():
    data = split(interactions_of(*((1, f"{n:02}", int(n < 10)) for n in range(30))), seed=0)
    assert data.held_out.weights.tolist() == [1, 1]


def test_cosine_ignores_length():
    vectors = np.eye(3, 50, dtype=np.float32)
    embeddings = Embeddings(None, vectors * [[9], [1], [1]], np.arange(2), vectors[:2] * [[1], [5]])
    assert cosine_scorer(embeddings)(np.array([0, 1])).tolist() == [[1, 0, 0], [0, 1, 0]]


def test_vectors_of_real_rows_beat_popularity():
    file = REAL_DATA / "kaggle399" / "user_top_artists.csv"
    if not file.exists():
        pytest.skip(f"{file} not found; set MUSIC_ASSETS_REAL_DATA")
    rows = pd.read_csv(file, keep_default_na=False, usecols=["user_id", "artist_name", "playcount"])
    interactions = read_interactions(weighted_interactions(ibis.memtable(rows)).to_pyarrow().to_batches())
    data = split(interactions, seed=0)
    embeddings = embed(data.train, train(data.train, Hyperparameters(passes=50)))
    ours, popular = evaluate(data, cosine_scorer(embeddings)), evaluate(data, popularity_scorer(data.train))
    assert len(embeddings.artists) == rows["artist_name"].nunique()
    assert ours.recall_at_20 > 1.4 * popular.recall_at_20
