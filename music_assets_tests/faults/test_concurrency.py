"""Several runs or daemons on one data root: one waits or is refused with a message, and the tables are right."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from signal import Signals
from uuid import uuid4

import dagster as dg
import psutil
import pytest

from music_assets.data_root import DataRoot
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import connect, newest_snapshot
from music_assets.storage.publisher import Publisher
from music_assets.tables import RAW_TABLES, TRAIN_EMBEDDINGS, USER_DATA, USER_TOP_ARTISTS
from music_assets_tests.faults.deployment import PROCESSES, SETTINGS, Deployment, exit_code
from music_assets_tests.faults.kill_points import Fault, KillPoint
from music_assets_tests.faults.scenario import Scenario
from music_assets_tests.support import training
from music_assets_tests.support.processes import wait_until
from music_assets_tests.support.project import RANKED_ARTISTS, Project
from music_assets_tests.support.published import published_rows
from music_assets_tests.support.s3_server import S3Server

REFUSED_INGEST = "Another run is loading files below {}. Wait until it has ended."
RANKING = "processed_parquet_artist_rank_in_country"
CONFLICTS = ("another process", "Concurrent transaction failed")
"""What the failed runs of several machines report."""
OVERTAKEN = {
    KillPoint.RANKING_WRITTEN: f"{RANKING}: another run has computed it from newer user_data. Nothing was changed",
    KillPoint.BEFORE_COMMIT_OF_RANKING: (f"{RANKING}: another process replaced the content first. Nothing was changed"),
}


@pytest.fixture
def other(scenario: Scenario) -> Deployment:
    """Return a second DAGSTER_HOME for the same data root."""
    return Deployment(scenario.deployment.root, scenario.deployment.home.with_name("other home"))


@contextmanager
def suspended(deployment: Deployment, point: KillPoint) -> Iterator[ForkServerProcess]:
    """Start a run that is suspended at the point, and resume it in the end."""
    run = deployment.start(fault=Fault(point, sent=Signals.SIGSTOP))
    process = psutil.Process(run.pid)
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, point.name, log=deployment.log)
    try:
        yield run
    finally:
        os.kill(process.pid, Signals.SIGCONT)


def test_second_ingest_is_refused_while_one_runs(scenario: Scenario, other: Deployment) -> None:
    scenario.advance()
    with suspended(scenario.deployment, KillPoint.FILE_PARSED) as first:
        assert other.run() == 1
        assert REFUSED_INGEST.format(other.root) in other.log.read_text()
    assert exit_code(first) == 0
    scenario.check_recovered()


@pytest.mark.parametrize("point", OVERTAKEN, ids=lambda point: point.name)
def test_ranking_of_an_overtaken_run_is_refused(scenario: Scenario, other: Deployment, point: KillPoint) -> None:
    scenario.advance()
    with suspended(scenario.deployment, point) as first:
        scenario.advance()
        assert other.run() == 0
    assert exit_code(first) == 1
    assert OVERTAKEN[point] in scenario.deployment.log.read_text()
    scenario.check_recovered()


def test_run_waits_while_another_publishes(scenario: Scenario, other: Deployment) -> None:
    scenario.advance()
    with suspended(scenario.deployment, KillPoint.SNAPSHOT_BUILT) as first:
        scenario.advance()
        second = other.start()
        # Its next step is a vacuum, which needs the lock of publishing.
        wait_until(lambda: "rows into user_data" in other.log.read_text(), "ingest", log=other.log)
        time.sleep(0.5)
        assert second.is_alive()
        assert published_rows(other.root) is None
    assert (exit_code(first), exit_code(second)) == (0, 0)
    scenario.check_recovered()


def test_refresh_and_training_publish_each_others_tables(tmp_path: Path) -> None:
    both, refreshed = (Deployment.create(tmp_path / name) for name in ("both", "refreshed"))
    for seed in (0, 1):
        for each in (both, refreshed):
            training.drop(each.root.path, 100, seed)
        runs = [both.start()] if seed == 0 else [both.start(TRAIN_EMBEDDINGS), both.start()]
        assert [exit_code(run) for run in runs] == [0] * len(runs), both.log_end
        assert refreshed.run() == 0
    found, expected = published_rows(both.root), published_rows(refreshed.root)
    assert found is not None
    assert expected is not None
    embeddings = {name for name in found if name.endswith("embedding")}
    assert {name: rows for name, rows in found.items() if name not in embeddings} == {
        name: rows for name, rows in expected.items() if name not in embeddings
    }
    with connect(both.root) as connection:
        (artists, known) = connection.execute(
            "SELECT count(*), count(*) FILTER (artist_name IN (SELECT artist_name FROM raw_parquet_user_top_artists)) "
            "FROM processed_parquet_artist_embedding"
        ).fetchall()[0]
    assert artists == known > 0


def test_four_machines_refresh_one_root_on_s3(s3: S3Server, tmp_path: Path) -> None:
    """Some runs fail without a change. The next one publishes every row once."""
    prefix = uuid4().hex
    folders = [tmp_path / f"machine {number}" for number in range(4)]
    machines = [Deployment(s3.root(folder, prefix), folder / "home") for folder in folders]
    root = machines[0].root
    root.prepare()
    for user in range(1, 5):
        for name in (f"{user}.csv", f"again {user}.csv"):
            root.write(root.drop_folder(USER_DATA) / name, f"user_id,country,total_scrobbles\n{user},Mali,7\n".encode())
        lists = f"user_id,rank,artist_name,playcount,mbid\n{user},1,Can,{user},\n{user},2,Air,1,\n"
        root.write(root.drop_folder(USER_TOP_ARTISTS) / f"{user}.csv", lists.encode())
    runs = [machine.start() for machine in machines]
    codes = [exit_code(run) for run in runs]
    logs = [machine.log.read_text() for machine in machines]
    for code, log in zip(codes, logs, strict=True):
        assert code == 0 or any(message in log for message in CONFLICTS), log[-3000:]
    assert machines[0].run() == 0, machines[0].log_end
    for machine in machines:
        published = published_rows(machine.root)
        assert published is not None
        assert sorted(published[USER_DATA.full_name].values()) == [1] * 4
        assert sum(published[USER_TOP_ARTISTS.full_name].values()) == 8
        assert published[RANKING] == Counter({("Mali", "Can", 10.0, 1, 4): 1, ("Mali", "Air", 4.0, 2, 4): 1})
    assert not [path for table in RAW_TABLES for path in root.files_below(root.drop_folder(table))]


def test_four_publishers_on_s3(s3: S3Server, tmp_path: Path) -> None:
    """Each succeeds, however often the others are first, and the pointer names the newest snapshot."""
    machines = [s3.root(tmp_path / f"machine {number}", tmp_path.name) for number in range(4)]
    project = Project(machines[0], **SETTINGS)
    project.drop_both()
    assert project.refresh().success
    before = newest_snapshot(machines[0]).data_version
    together = PROCESSES.Barrier(len(machines))
    variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    publishers = [PROCESSES.Process(target=publish, args=(root, variables, together)) for root in machines]
    for publisher in publishers:
        publisher.start()
    assert [exit_code(publisher) for publisher in publishers] == [0] * len(machines)
    for root in machines:
        assert newest_snapshot(root).data_version > before
        with connect(root) as connection:
            assert connection.execute(f"FROM {RANKING}").fetchall() == RANKED_ARTISTS


def publish(root: DataRoot, variables: dict[str, str], together: Barrier) -> None:
    """Publish in a process of its own, at the same time as the others."""
    os.environ |= variables
    publisher = Publisher(DeltaStore(root), "200MB", threads=1)
    together.wait()
    publisher.publish()


def test_three_daemons_and_a_run_by_hand_on_one_data_root(scenario: Scenario, other: Deployment) -> None:
    """Two daemons share a DAGSTER_HOME, the third one has its own."""
    shared = scenario.deployment
    with shared.daemon(), shared.daemon(), other.daemon():
        for _ in range(2):
            scenario.advance()
            assert exit_code(shared.start()) in (0, 1)
            wait_until(lambda: published_rows(shared.root) == scenario.expected.published, "publishing", log=shared.log)
        wait_until(
            lambda: all(run.is_finished for run in shared.runs() + other.runs()), "end of all runs", log=shared.log
        )
    assert {run.status for run in other.runs()} <= {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}
    scenario.check_recovered()
