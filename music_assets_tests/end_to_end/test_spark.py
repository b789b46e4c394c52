"""Spark in the place of DuckDB, from a plain shell: the demo, a real cluster, a worker that dies, no Java."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from music_assets.data_root import DataRoot
from music_assets.ingest.landing import Landing
from music_assets.sample_data.generator import generate
from music_assets.storage.published_snapshot import connect
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    RANKING_TABLES,
    RAW_TABLES,
    REJECTED_ROWS,
    USER_DATA,
    USER_TOP_ARTISTS,
)
from music_assets_tests.conftest import need_java
from music_assets_tests.end_to_end.conftest import BIN, REPOSITORY, Shell, plain_environment
from music_assets_tests.support.project import TOP_ARTISTS, USERS
from music_assets_tests.support.spark_cluster import LOOPBACK, Cluster, kill

QUICK = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
JOB = ("dagster", "job", "execute", "-m", "music_assets.definitions", "-j", "refresh_rankings")
PATIENCE = 600
NO_JAVA = {"PATH": "/nowhere", "JAVA_HOME": "", "MUSIC_ASSETS_ENGINE": "spark"}


def on_spark(master: str = "local[2]") -> dict[str, str]:
    conf = {**LOOPBACK, "spark.driver.extraJavaOptions": QUICK, "spark.executor.extraJavaOptions": QUICK}
    return {
        "MUSIC_ASSETS_ENGINE": "spark",
        "MUSIC_ASSETS_SPARK_MASTER": master,
        "MUSIC_ASSETS_SPARK_CONF": json.dumps(conf),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


def published(root: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every published row, sorted, but for the time at which it was taken."""
    tables = {}
    with connect(DataRoot(root)) as connection:
        for table in (*RAW_TABLES, *RANKING_TABLES, REJECTED_ROWS):
            names = ", ".join(
                f"round({column.name}, 12)" if column.name == "normalized_popularity" else column.name
                for column in table.columns
                if column.name != "ingested_at"
            )
            rows = connection.execute(f"SELECT {names} FROM {table.full_name} ORDER BY ALL")
            tables[table.name] = rows.fetchall()
    return tables


def drop_generated(root: Path, users: int) -> None:
    landing = Landing(DataRoot(root))
    landing.root.prepare()
    made = generate(root / "made", users, dirty=0.005)
    for path in (made.users_csv, made.user_top_artists_csv):
        landing.place(path)


def start_job(root: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BIN / JOB[0], *JOB[1:]],
        cwd=REPOSITORY,
        env=plain_environment(root, MUSIC_ASSETS_SETTLE_SECONDS="0", **environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def end_well(job: subprocess.Popen[str]) -> None:
    try:
        _, errors = job.communicate(timeout=PATIENCE)
    finally:
        job.kill()
    assert job.returncode == 0, errors[-5000:]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    need_java()
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def test_the_demo_shows_what_it_shows_on_duckdb(shell: Shell, tmp_path: Path) -> None:
    need_java()
    shown = {}
    for name, environment in (("duckdb", {}), ("spark", on_spark())):
        folder = tmp_path / name
        ended = shell("music-assets", "demo", "--users", 300, "--data", folder, patience=PATIENCE, **environment)
        assert ended.returncode == 0, ended.stderr[-3000:]
        shown[name] = ended.stdout.replace(str(folder), "")
    assert published(tmp_path / "spark") == published(tmp_path / "duckdb")
    assert shown["spark"] == shown["duckdb"]


def test_the_job_runs_on_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    for name, environment in (("duckdb", {}), ("spark", on_spark(cluster.master))):
        drop_generated(tmp_path / name, users=300)
        end_well(start_job(tmp_path / name, **environment))
    assert published(tmp_path / "spark") == published(tmp_path / "duckdb")
    (ran,) = cluster.state()["completedapps"]
    assert (ran["name"], ran["cores"], ran["state"]) == ("music-assets", 2, "FINISHED")


def test_the_job_survives_a_worker_that_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    drop_generated(tmp_path / "duckdb", users=4000)
    end_well(start_job(tmp_path / "duckdb"))
    root = tmp_path / "spark"
    drop_generated(root, users=4000)
    job = start_job(root, **on_spark(cluster.master))
    folder = root / ARTIST_RANK_IN_COUNTRY.folder
    begun = time.monotonic()
    while not any(folder.glob("part-*/_temporary/0/_temporary/*/*.parquet")):
        assert job.poll() is None, "the job ended before an executor was seen at work"
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.005)
    kill(cluster.workers[0])
    end_well(job)
    assert published(root) == published(tmp_path / "duckdb")
    assert not [path for path in folder.rglob("*") if path.name.startswith("_temporary")]


def test_without_java_nothing_is_touched(shell: Shell, tmp_path: Path) -> None:
    landing = Landing(DataRoot(tmp_path / "data"))
    landing.root.prepare()
    for table, text in ((USER_DATA, USERS), (USER_TOP_ARTISTS, TOP_ARTISTS)):
        landing.root.drop_folder(table).joinpath("drop.csv").write_text(text)
    before = sorted(landing.root.path.rglob("*"))
    for command in (JOB, ("music-assets", "up"), ("music-assets", "demo", "--data", tmp_path / "shown")):
        ended = shell(*command, MUSIC_ASSETS_SETTLE_SECONDS="0", **NO_JAVA)
        assert ended.returncode != 0
        assert "There is no java on the PATH" in ended.stderr
        assert "needs Java 17 or later: install it" in ended.stderr
        assert command is JOB or "Traceback" not in ended.stderr
    assert sorted(landing.root.path.rglob("*")) == before
    assert not (tmp_path / "shown").exists()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo 'openjdk version \"11.0.22\" 2024-01-16' >&2", 'is too old (openjdk version "11.0.22" 2024-01-16)'),
        ("echo 'java version \"1.8.0_391\"' >&2", 'is too old (java version "1.8.0_391")'),
        ("exit 1", "cannot be run"),
    ],
)
def test_java_that_does_not_do_is_named(shell: Shell, tmp_path: Path, script: str, problem: str) -> None:
    java = tmp_path / "home" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    home = str(tmp_path / "home")
    ended = shell("music-assets", "demo", "--data", tmp_path / "shown", **NO_JAVA | {"JAVA_HOME": home})
    assert ended.returncode == 1
    assert f"{java} {problem}" in ended.stderr
    assert not (tmp_path / "shown").exists()


def test_no_jvm_starts_before_spark_is_used(shell: Shell) -> None:
    """A web server looks at the definitions, and never computes."""
    need_java()
    code = "import music_assets.definitions as d, psutil; print(d.defs.resources['engine'].name, d.defs.resources"
    code += "['pyspark'].spark_config['spark.master'], len(psutil.Process().children(recursive=True)))"
    ended = shell(sys.executable, "-c", code, **on_spark("spark://far.example:7077"))
    assert ended.stdout.split() == ["spark", "spark://far.example:7077", "0"], ended.stderr[-3000:]
