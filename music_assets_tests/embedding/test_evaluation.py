"""Metrics computed by hand, the holdout split, and the evaluation of vectors trained on real rows."""

from math import log2

import ibis
import numpy as np
import pandas as pd
import pytest

from music_assets.embedding.evaluation import (
    COMPARISONS,
    Metrics,
    Split,
    co_listening_scorer,
    draw_queries,
    evaluate,
    evaluate_all,
    inner_product_scorer,
    popularity_scorer,
    similar_artists_scorer,
    similar_users_scorer,
    split,
)
from music_assets.embedding.interactions import read_interactions
from music_assets.embedding.vectors import Embeddings, embed
from music_assets.embedding.word2vec import Hyperparameters
from music_assets.embedding.word2vec_gensim import train
from music_assets.transforms.interactions import weighted_interactions
from music_assets_tests.support.planted import interactions_of, planted_interactions
from music_assets_tests.support.real_data import real_rows


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


def embeddings_of(artists: list[list[float]], users: list[list[float]], trained: list[bool]) -> Embeddings:
    counts = np.ones(len(artists), np.int64)
    vectors = [np.array(rows, np.float32) for rows in (artists, users)]
    return Embeddings(None, vectors[0], counts, np.array(trained), np.arange(len(users)), vectors[1])


def test_scores_of_vectors_by_hand() -> None:
    """Length counts in the score of an artist for a user, but not in similarity; untrained artists are not ranked."""
    embeddings = embeddings_of([[2, 0], [0, 3], [5, 5]], [[1, 0], [1, 2]], [True, True, False])
    assert inner_product_scorer(embeddings)(np.array([1, 0])).tolist() == [[2, 6, 15], [2, 0, 5]]
    scores = similar_artists_scorer(embeddings, np.array([1, 0]))(np.array([0, 1]))
    assert scores.tolist() == [[0, 1, -np.inf], [1, 0, -np.inf]]


def test_co_listening_counts_the_users_who_list_both() -> None:
    """Artists are ordered by listeners: a, b, c."""
    lists = interactions_of((1, "a", 1), (1, "b", 1), (2, "a", 1), (2, "b", 2), (2, "c", 1), (3, "a", 1), (3, "c", 0))
    scores = co_listening_scorer(lists, np.array([1, 0, 0]), np.array([True, True, False]))(np.array([0, 2]))
    assert scores.tolist() == [[2, 2, -np.inf], [3, 2, -np.inf]]


def test_neighbours_lists_are_weighted_by_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    """User 0 has the cosines 0.6 and 0.8 with users 1 and 2, and -1 with user 3, which is not among the nearest two."""
    monkeypatch.setattr("music_assets.embedding.evaluation.NEIGHBOURS", 2)
    lists = interactions_of((0, "a", 1), (1, "a", 5), (1, "b", 1), (2, "b", 1), (2, "c", 0), (3, "c", 1))
    embeddings = embeddings_of([[1, 0]] * 3, [[1, 0], [0.6, 0.8], [8, 6], [-1, 0]], [True] * 3)
    scores = similar_users_scorer(embeddings, lists)(np.array([0]))
    assert scores[0] == pytest.approx([0.6, 1.4, 0])


def test_queries_are_trained_artists_of_the_training_list() -> None:
    data = split(planted_interactions(users=40), seed=1)
    trained = data.train.listeners >= 5
    queries = draw_queries(data, trained, seed=2)
    known = data.train.matrix().toarray() > 0
    served = [user for user in range(40) if trained[known[user]].any()]
    assert all(trained[queries[user]] and known[user, queries[user]] for user in served)
    assert len(set(queries.tolist())) > 10


def test_vectors_of_real_rows_beat_popularity():
    file = real_rows("kaggle399") / "user_top_artists.csv"
    rows = pd.read_csv(file, keep_default_na=False, usecols=["user_id", "artist_name", "playcount"])
    interactions = read_interactions(weighted_interactions(ibis.memtable(rows)).to_pyarrow().to_batches())
    data = split(interactions, seed=0)
    settings = Hyperparameters(passes=30)
    embeddings = embed(data.train, train(data.train, settings), settings)
    found = evaluate_all(data, embeddings, seed=0)
    assert len(embeddings.artists) == rows["artist_name"].nunique()
    ratios = [found[name].ours.recall_at_20 / found[name].baseline.recall_at_20 for name in COMPARISONS]
    assert np.all(np.array(ratios) > [1.5, 0.75, 1.5])
