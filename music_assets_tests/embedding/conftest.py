"""Both trainers, for the tests of what they share."""

from functools import partial

import pytest

from music_assets.embedding import word2vec_gensim, word2vec_spark
from music_assets.embedding.word2vec import Trainer


@pytest.fixture
def spark_trainer(spark_engine: "SparkEngine") -> Trainer:  # noqa: F821
    return partial(word2vec_spark.train, lambda: spark_engine.session)


@pytest.fixture(params=["gensim", "spark"])
def trainer(request: pytest.FixtureRequest) -> Trainer:
    return word2vec_gensim.train if request.param == "gensim" else request.getfixturevalue("spark_trainer")
