"""Offline evaluation of the vectors on held-out artists.

For each evaluated user, all artists outside the user's training list are ranked by score. What gives the scores:

- user to artist: the inner product of the user's vector and the artist's; baseline: the artist's listeners.
- artist to artist: the cosine to one artist of the user's training list, drawn at random. It is drawn from the trained
  artists, and only these are ranked. Baseline: how many users list both.
- user to user: how many of the 50 nearest users by cosine list the artist, each counted by its cosine; baseline: how
  many users do, near or not.

Metrics, averaged over users:

- recall@20: share of the user's held-out artists among the first 20,
- HR@10 (hit rate): whether any held-out artist is among the first 10,
- NDCG@10: sum of 1 / log2(1 + rank) over the held-out artists among the first 10, divided by the highest possible sum.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

from music_assets.embedding.interactions import Bools, Interactions, Ints
from music_assets.embedding.ridge import Floats
from music_assets.embedding.vectors import Embeddings, normalize

HELD_OUT_SHARE = 0.2
SCORES_PER_BLOCK = 20_000_000
"""Scores in memory at a time: 80 MB in float32."""

USER_TO_ARTIST, ARTIST_TO_ARTIST, USER_TO_USER = COMPARISONS = ("user to artist", "artist to artist", "user to user")
NEIGHBOURS = 50
RECALL_CUTOFF = 20
RANKING_CUTOFF = 10

Scorer = Callable[[Ints], npt.NDArray[np.float32]]
"""Returns the scores of all artists, one row for each of the given user indices."""


@dataclass(frozen=True)
class Split:
    """Interactions for training, held-out interactions, and the indices of the users that have any held out."""

    train: Interactions
    held_out: Interactions
    users: Ints


@dataclass(frozen=True)
class Metrics:
    """The metrics of a ranking, each between 0 and 1, and the number of users they are averaged over."""

    recall_at_20: float
    hit_rate_at_10: float
    ndcg_at_10: float
    users: int


@dataclass(frozen=True)
class Comparison:
    """The metrics of the vectors and of a baseline."""

    ours: Metrics
    baseline: Metrics


def split(interactions: Interactions, seed: int, sample: int | None = None) -> Split:
    """Hold out a fifth (rounded down) of the artists of each user, or of `sample` users drawn at random.

    Interactions of weight 0 say nothing about taste: they are neither held out nor counted. The same seed gives the
    same split.
    """
    generator = np.random.default_rng(seed)
    users = interactions.users
    played = interactions.weights > 0
    draw = np.where(played, generator.random(len(users)), 2)
    order = np.lexsort((draw, users))
    position = np.empty(len(users), np.int64)
    position[order] = np.arange(len(users)) - interactions.starts[users]
    counts = (interactions.sum_by_user(played) * HELD_OUT_SHARE).astype(np.int64)
    eligible = np.flatnonzero(counts)
    if sample is not None and sample < len(eligible):
        chosen = generator.choice(eligible, sample, replace=False)
        counts[np.setdiff1d(eligible, chosen)] = 0
    held_out = position < counts[users]
    return Split(interactions.select(~held_out), interactions.select(held_out), np.flatnonzero(counts))


def evaluate_all(data: Split, embeddings: Embeddings, seed: int) -> dict[str, Comparison]:
    """Return the metrics of the vectors, and of the baseline on the same split, for each of COMPARISONS."""
    popularity = evaluate(data, popularity_scorer(data.train))
    queries = draw_queries(data, embeddings.trained, seed)
    scorers = {
        USER_TO_ARTIST: (inner_product_scorer(embeddings), None),
        ARTIST_TO_ARTIST: (
            similar_artists_scorer(embeddings, queries),
            co_listening_scorer(data.train, queries, embeddings.trained),
        ),
        USER_TO_USER: (similar_users_scorer(embeddings, data.train), None),
    }
    return {
        name: Comparison(evaluate(data, ours), evaluate(data, baseline) if baseline else popularity)
        for name, (ours, baseline) in scorers.items()
    }


def inner_product_scorer(embeddings: Embeddings) -> Scorer:
    """Score by the inner product of the user's vector and the artist's."""
    return lambda users: embeddings.users[users] @ embeddings.artists.T


def popularity_scorer(train: Interactions) -> Scorer:
    """Score by the number of listeners, the same for every user: the baseline."""
    listeners = train.listeners.astype(np.float32)
    return lambda users: np.tile(listeners, (len(users), 1))


def draw_queries(data: Split, trained: Bools, seed: int) -> Ints:
    """Return a trained artist of each user's training list, drawn at random; 0 for users without."""
    known = data.train.select(trained[data.train.artists])
    counts = np.diff(known.starts)
    drawn = known.starts[:-1] + (np.random.default_rng(seed).random(len(counts)) * counts).astype(np.int64)
    queries = np.zeros(len(counts), np.int64)
    queries[counts > 0] = known.artists[drawn[counts > 0]]
    return queries


def similar_artists_scorer(embeddings: Embeddings, queries: Ints) -> Scorer:
    """Score the trained artists by their cosine to the user's query."""
    artists = normalize(embeddings.artists)
    candidates = np.where(embeddings.trained[:, None], artists, 0).T
    return lambda users: np.where(embeddings.trained, artists[queries[users]] @ candidates, -np.inf)


def co_listening_scorer(train: Interactions, queries: Ints, trained: Bools) -> Scorer:
    """Score the trained artists by the number of users who list them together with the user's query."""
    lists = _presence(train)
    by_artist = lists.T.tocsr()
    return lambda users: np.where(trained, (by_artist[queries[users]] @ lists).toarray(), -np.inf)


def similar_users_scorer(embeddings: Embeddings, train: Interactions) -> Scorer:
    """Score by the lists of the 50 nearest users, each counted by its cosine."""
    vectors, lists = normalize(embeddings.users), _presence(train)

    def scores(users: Ints) -> Floats:
        cosines = vectors[users] @ vectors.T
        rows = np.arange(len(users))
        cosines[rows, users] = -np.inf
        count = max(1, min(NEIGHBOURS, len(vectors) - 1))
        nearest = np.argpartition(cosines, -count, axis=1)[:, -count:]
        weights = np.take_along_axis(cosines, nearest, axis=1)
        starts = np.arange(0, nearest.size + 1, count)
        chosen = scipy.sparse.csr_matrix((weights.ravel(), nearest.ravel(), starts), cosines.shape)
        return np.asarray((chosen @ lists).toarray(), np.float32)

    return scores


def _presence(interactions: Interactions) -> "scipy.sparse.csr_matrix":
    matrix = interactions.matrix()
    matrix.data = (matrix.data > 0).astype(np.float32)
    return matrix


def evaluate(data: Split, scorer: Scorer) -> Metrics:
    """Return the metrics of ranking artists by descending score."""
    known, held_out = data.train.matrix(), data.held_out.matrix()
    block = max(1, SCORES_PER_BLOCK // max(len(data.train.artist_names), len(data.train.user_ids)))
    hits = [
        _hits(scorer(users), known[users], held_out[users])
        for users in np.split(data.users, range(block, len(data.users), block))
    ]
    return _metrics(np.concatenate(hits), np.diff(held_out.indptr)[data.users])


def _hits(
    scores: npt.NDArray[np.float32], known: "scipy.sparse.csr_matrix", held_out: "scipy.sparse.csr_matrix"
) -> npt.NDArray[np.bool_]:
    """Return whether the artist at each of the first 20 ranks is held out, one row per user. Overwrites `scores`."""
    cutoff = min(RECALL_CUTOFF, scores.shape[1])
    rows = np.arange(len(scores))[:, None]
    scores[np.repeat(rows[:, 0], np.diff(known.indptr)), known.indices] = -np.inf
    best = np.argpartition(scores, -cutoff, axis=1)[:, -cutoff:]
    best = best[rows, np.argsort(-scores[rows, best], axis=1, kind="stable")]
    return np.asarray(held_out[np.repeat(rows, cutoff, axis=1), best].todense()) > 0


def _metrics(hits: npt.NDArray[np.bool_], held_out: Ints) -> Metrics:
    gains = 1 / np.log2(np.arange(2, RANKING_CUTOFF + 2))
    first = hits[:, :RANKING_CUTOFF]
    ideal = np.cumsum(gains)[np.minimum(held_out, RANKING_CUTOFF) - 1]
    return Metrics(
        recall_at_20=float(np.mean(hits.sum(axis=1) / held_out)),
        hit_rate_at_10=float(np.mean(first.any(axis=1))),
        ndcg_at_10=float(np.mean((first @ gains[: first.shape[1]]) / ideal)),
        users=len(held_out),
    )
