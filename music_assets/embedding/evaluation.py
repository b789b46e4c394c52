"""How well vectors foretell what a user listens to: artists held out, then looked for among the best by cosine.

A share of each user's artists is held out before training. All artists that the user is not known to listen to are
ranked by the cosine between their vector and the user's. Told are, as means over the users:

- recall@20: the share of the user's held-out artists among the first 20,
- HR@10: whether any of them is among the first 10,
- NDCG@10: as recall, the earlier the better: 1 / log2(1 + place), over the most that can be had.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

from music_assets.embedding.interactions import Ints, Listening
from music_assets.embedding.vectors import Embeddings, unit

HELD_OUT_SHARE = 0.2
SCORES_PER_BLOCK = 20_000_000
"""Scores held at a time: 80 MB in single precision."""

RECALL_PLACES = 20
HIT_PLACES = 10

Scores = Callable[[Ints], npt.NDArray[np.float32]]
"""Scores of all artists, a row for each of the users asked for by number."""


@dataclass(frozen=True)
class Split:
    """What training may see, what it must not, and the users something is held out of, by number."""

    kept: Listening
    held_out: Listening
    users: Ints


@dataclass(frozen=True)
class Figures:
    """The figures of a ranking, each between 0 and 1, and the number of users they are the mean of."""

    recall_at_20: float
    hit_rate_at_10: float
    ndcg_at_10: float
    users: int


def split(listening: Listening, seed: int, sample: int | None = None) -> Split:
    """Hold out a fifth (rounded down) of the artists of each user, or of that many users drawn at random.

    Pairs of weight 0 are no sign of taste: they are not held out, nor do they count. The same seed gives the same
    split.
    """
    generator = np.random.default_rng(seed)
    users = listening.users
    liked = listening.weights > 0
    draw = np.where(liked, generator.random(len(users)), 2)
    order = np.lexsort((draw, users))
    place = np.empty(len(users), np.int64)
    place[order] = np.arange(len(users)) - listening.starts[users]
    allowance = (listening.sum_by_user(liked) * HELD_OUT_SHARE).astype(np.int64)
    eligible = np.flatnonzero(allowance)
    if sample is not None and sample < len(eligible):
        chosen = generator.choice(eligible, sample, replace=False)
        allowance[np.setdiff1d(eligible, chosen)] = 0
    held_out = place < allowance[users]
    return Split(listening.only(~held_out), listening.only(held_out), np.flatnonzero(allowance))


def by_cosine(embeddings: Embeddings) -> Scores:
    """Score by the cosine between the user's vector and the artist's."""
    artists = unit(embeddings.artists).T
    return lambda users: unit(embeddings.users[users]) @ artists


def by_popularity(kept: Listening) -> Scores:
    """Score by the number of listeners: the same ranking for everyone, which a model has to beat."""
    listeners = kept.listeners.astype(np.float32)
    return lambda users: np.tile(listeners, (len(users), 1))


def evaluate(data: Split, scores: Scores) -> Figures:
    """Return the figures of a ranking of all artists by these scores, highest first."""
    artists = len(data.kept.artist_names)
    known, wanted = data.kept.matrix(), data.held_out.matrix()
    block = max(1, SCORES_PER_BLOCK // artists)
    hits = [
        _hits(scores(users), known[users], wanted[users])
        for users in np.split(data.users, range(block, len(data.users), block))
    ]
    return _figures(np.concatenate(hits), np.diff(wanted.indptr)[data.users])


def _hits(
    scores: npt.NDArray[np.float32], known: "scipy.sparse.csr_matrix", wanted: "scipy.sparse.csr_matrix"
) -> npt.NDArray[np.bool_]:
    """Return for each user whether the artist at each of the first places is a held-out one."""
    places = min(RECALL_PLACES, scores.shape[1])
    rows = np.arange(len(scores))[:, None]
    scores[np.repeat(rows[:, 0], np.diff(known.indptr)), known.indices] = -np.inf
    best = np.argpartition(-scores, places - 1, axis=1)[:, :places]
    best = best[rows, np.argsort(-scores[rows, best], axis=1, kind="stable")]
    return np.asarray(wanted[np.repeat(rows, places, axis=1), best].todense()) > 0


def _figures(hits: npt.NDArray[np.bool_], wanted: Ints) -> Figures:
    gains = 1 / np.log2(np.arange(2, HIT_PLACES + 2))
    first = hits[:, :HIT_PLACES]
    ideal = np.cumsum(gains)[np.minimum(wanted, HIT_PLACES) - 1]
    return Figures(
        recall_at_20=float(np.mean(hits.sum(axis=1) / wanted)),
        hit_rate_at_10=float(np.mean(first.any(axis=1))),
        ndcg_at_10=float(np.mean((first @ gains[: first.shape[1]]) / ideal)),
        users=len(wanted),
    )
