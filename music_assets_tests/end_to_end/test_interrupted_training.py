"""Trainings cancelled, or killed at any moment: what is published stays as it was, and the next one is fine."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest

from music_assets.data_root import DataRoot
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import connect, newest_snapshot
from music_assets.storage.publisher import Publisher
from music_assets.tables import EMBEDDING_TABLES
from music_assets_tests.support.training import drop, refresh, train

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 120
SECONDS_TO_CANCEL = 20
"""Dagster itself takes some of it; the machine may be busy."""
KILLS = 3

TRAIN = """
import sys
import dagster as dg
from pathlib import Path
from music_assets_tests.support.training import train
train(Path(sys.argv[1]), dg.DagsterInstance.ephemeral(), passes=int(sys.argv[2]), workers=1)
"""
ENDLESS = "ops: {embeddings: {config: {passes: 1000000, workers: 1}}}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data root that has been trained once."""
    root = tmp_path_factory.mktemp("data")
    with dg.DagsterInstance.ephemeral() as instance:
        drop(root, 100)
        refresh(root, instance)
        train(root, instance, passes=1)
    yield root


def start(*command: object, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_until_it_trains(process: subprocess.Popen[bytes], root: Path) -> psutil.Process:
    """Wait for the process that trains; return it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, "it ended by itself"
        for child in psutil.Process(process.pid).children(recursive=True):
            if any("gensim_process" in word for word in child.cmdline()):
                return child
        time.sleep(0.05)
    raise TimeoutError("no training began")


def check_whole(root: Path) -> None:
    """Check that both tables, and what a publishing now would show, are whole and of one training."""
    store = DeltaStore(DataRoot(root))
    shown = Publisher(store, "200MB").publish().tables
    commits = store.commit_metadata(EMBEDDING_TABLES[1], "inputs")
    assert shown[EMBEDDING_TABLES[0].full_name].version == commits[0][EMBEDDING_TABLES[0].name]
    with connect(DataRoot(root)) as connection:
        counts = connection.execute(
            "SELECT (SELECT count(DISTINCT user_id) FROM raw_parquet_user_top_artists), "
            "(SELECT count(DISTINCT artist_name) FROM raw_parquet_user_top_artists), "
            "(SELECT count(DISTINCT user_id) FROM processed_parquet_user_embedding), "
            "(SELECT count(DISTINCT artist_name) FROM processed_parquet_artist_embedding)"
        ).fetchone()
    assert counts is not None
    assert counts[:2] == counts[2:]


def test_trainings_killed_at_random_moments_leave_whole_tables(root: Path) -> None:
    moments = random.Random(5)
    for _ in range(KILLS):
        with start("-c", TRAIN, root, 3) as process:
            training = wait_until_it_trains(process, root)
            time.sleep(moments.uniform(0, 2.5))
            process.kill()
        _, alive = psutil.wait_procs([training], timeout=10)
        assert alive == []
        check_whole(root)
    with start("-c", TRAIN, root, 1) as process:
        assert process.wait(PATIENCE) == 0
    check_whole(root)
    assert not (root / ".scratch" / "training").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_training_stops_within_seconds_and_changes_nothing(
    root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    before = newest_snapshot(DataRoot(root))
    versions = [DeltaStore(DataRoot(root)).table_version(table).version for table in EMBEDDING_TABLES]
    config = tmp_path / "run.yaml"
    config.write_text(ENDLESS)
    command = ("-m", "dagster", "job", "execute", "-m", "music_assets.definitions", "-j", "train_embeddings")
    home = {"DAGSTER_HOME": str(tmp_path), "MUSIC_ASSETS_DATA": str(root)}
    with start(*command, "-c", config, **home) as process:
        training = wait_until_it_trains(process, root)
        process.send_signal(number)
        process.wait(SECONDS_TO_CANCEL)
    assert not training.is_running()
    assert not (root / ".scratch" / "training").exists()
    assert newest_snapshot(DataRoot(root)) == before
    assert [DeltaStore(DataRoot(root)).table_version(table).version for table in EMBEDDING_TABLES] == versions
