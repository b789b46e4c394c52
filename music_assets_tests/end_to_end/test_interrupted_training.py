"""Trainings that are cancelled or killed: the published vectors stay consistent, and the next training succeeds."""

import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest

from music_assets.data_root import DataRoot
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import connect, newest_snapshot
from music_assets.storage.publisher import Publisher
from music_assets.tables import EMBEDDING_TABLES, TRAIN_EMBEDDINGS
from music_assets_tests.support.processes import REPOSITORY, TIMEOUT, clean_environment, process_tree, wait_until
from music_assets_tests.support.training import drop, refresh, train

SECONDS_TO_STOP = 20
"""Dagster itself takes some of it, and the machine may be busy."""
KILLS = 3
ENDLESS = "ops: {embeddings: {config: {passes: 1000000, workers: 1}}}"
TRAIN = """
import sys
import dagster as dg
from pathlib import Path
from music_assets_tests.support.training import train
train(Path(sys.argv[1]), dg.DagsterInstance.ephemeral(), passes=int(sys.argv[2]), workers=1)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    """Return a data root that was trained once."""
    root = DataRoot(tmp_path_factory.mktemp("data"))
    with dg.DagsterInstance.ephemeral() as instance:
        drop(root.path, 100)
        refresh(root.path, instance)
        train(root.path, instance, passes=1)
    return root


def start(root: DataRoot, *command: object, **variables: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=REPOSITORY,
        env=clean_environment(root, **variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def training_process(process: subprocess.Popen[bytes]) -> psutil.Process:
    """Wait for the process in which gensim trains."""

    def found() -> psutil.Process | None:
        for each in process_tree(process.pid):
            with suppress(psutil.NoSuchProcess):
                if any("gensim_process" in word for word in each.cmdline()):
                    return each
        return None

    trainer = wait_until(found, "a training", process=process)
    assert trainer
    return trainer


def check_consistent(root: DataRoot) -> None:
    """Check that a snapshot published now has complete vectors of one training."""
    store = DeltaStore(root)
    tables = Publisher(store, "200MB").publish().tables
    commits = store.commit_metadata(EMBEDDING_TABLES[1], "inputs")
    assert tables[EMBEDDING_TABLES[0].full_name].version == commits[0][EMBEDDING_TABLES[0].name]
    with connect(root) as connection:
        counts = connection.execute(
            "SELECT (SELECT count(DISTINCT user_id) FROM raw_parquet_user_top_artists), "
            "(SELECT count(DISTINCT artist_name) FROM raw_parquet_user_top_artists), "
            "(SELECT count(DISTINCT user_id) FROM processed_parquet_user_embedding), "
            "(SELECT count(DISTINCT artist_name) FROM processed_parquet_artist_embedding)"
        ).fetchone()
    assert counts is not None
    assert counts[:2] == counts[2:]


def test_training_killed_at_any_time_leaves_consistent_tables(root: DataRoot) -> None:
    moments = random.Random(5)
    for _ in range(KILLS):
        with start(root, "-c", TRAIN, root, 30) as process:
            trainer = training_process(process)
            time.sleep(moments.uniform(0, 2.5))
            process.kill()
        _, alive = psutil.wait_procs([trainer], timeout=10)
        assert alive == []
        check_consistent(root)
    with start(root, "-c", TRAIN, root, 1) as process:
        assert process.wait(TIMEOUT) == 0
    check_consistent(root)
    assert not root.training.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_cancelled_training_stops_within_seconds_and_changes_nothing(
    root: DataRoot, tmp_path: Path, number: signal.Signals
) -> None:
    before = newest_snapshot(root)
    versions = [DeltaStore(root).table_version(table).version for table in EMBEDDING_TABLES]
    config = tmp_path / "run.yaml"
    config.write_text(ENDLESS)
    command = ("-m", "dagster", "job", "execute", "-m", "music_assets.definitions", "-j", TRAIN_EMBEDDINGS)
    with start(root, *command, "-c", config, DAGSTER_HOME=str(tmp_path)) as process:
        trainer = training_process(process)
        process.send_signal(number)
        process.wait(SECONDS_TO_STOP)
    assert not trainer.is_running()
    assert not root.training.exists()
    assert newest_snapshot(root) == before
    assert [DeltaStore(root).table_version(table).version for table in EMBEDDING_TABLES] == versions
