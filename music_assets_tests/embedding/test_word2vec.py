"""What both trainers promise, on planted clusters, and the values derived from the size of the data."""

import pytest

from music_assets.embedding.vectors import embed
from music_assets.embedding.word2vec import Hyperparameters, Trainer, TrainingError
from music_assets_tests.support.planted import assert_clusters_found, interactions_of, planted_interactions

QUICK = Hyperparameters(passes=2)


def test_neighbours_are_of_the_same_cluster(trainer: Trainer):
    interactions = planted_interactions()
    settings = Hyperparameters(passes=20)
    assert_clusters_found(embed(interactions, trainer(interactions, settings, None, None), settings))


def test_same_seed_and_one_worker_give_same_bytes(trainer: Trainer):
    interactions = planted_interactions(users=60)
    settings = [QUICK.model_copy(update={"workers": 1, "seed": seed}) for seed in (5, 5, 6)]
    first, again, other = (trainer(interactions, setting, None, None).vectors.tobytes() for setting in settings)
    assert first == again != other


@pytest.mark.parametrize("listeners", [1, 2])
def test_a_handful_of_users_is_enough(trainer: Trainer, listeners: int):
    interactions = interactions_of(*((user, "a b", 1) for user in range(listeners)))
    assert trainer(interactions, QUICK, None, None).artists.tolist() == [0]


def test_artists_without_plays_are_refused(trainer: Trainer):
    with pytest.raises(TrainingError, match="nothing to train on"):
        trainer(interactions_of((1, "a", 0), (2, "a", 0)), QUICK, None, None)


def test_failure_is_reported_with_its_cause(trainer: Trainer):
    too_large = QUICK.model_copy(update={"window": 0x7FFF_FFFF_FFFF})
    with pytest.raises(TrainingError, match=r"word2vec failed.*: .*(too large to convert|cannot be cast)"):
        trainer(planted_interactions(users=20), too_large, None, None)


@pytest.mark.parametrize(
    ("users", "words", "min_listeners", "passes"),
    [(400, 30_000, 4, 30), (1_892, 240_000, 5, 25), (50_000, 8_000_000, 12, 2), (500_000, 80_000_000, 21, 2)],
)
def test_defaults_are_derived_from_the_size_of_the_data(users, words, min_listeners, passes):
    assert (Hyperparameters().min_listeners_for(users), Hyperparameters().passes_for(words)) == (min_listeners, passes)


def test_explicit_values_override_derived_ones():
    given = Hyperparameters(passes=7, min_listeners=3)
    assert (given.min_listeners_for(10**6), given.passes_for(1)) == (3, 7)
