"""Both trainers, for the tests of what they share."""

import pytest

from music_assets.embedding.word2vec import Trainer
from music_assets.embedding.word2vec_gensim import train
from music_assets.embedding.word2vec_spark import SparkTrainer


@pytest.fixture
def spark_trainer(spark_engine: "SparkEngine") -> SparkTrainer:  # noqa: F821
    return SparkTrainer(lambda: spark_engine.session)


@pytest.fixture(params=["gensim", "spark"])
def trainer(request: pytest.FixtureRequest) -> Trainer:
    return train if request.param == "gensim" else request.getfixturevalue("spark_trainer")
