"""Spark as the engine, in a plain shell: the demo, a cluster of which a worker dies, and missing or old Java."""

import json
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

from music_assets.data_root import DataRoot
from music_assets.ingest.landing import Landing
from music_assets.ingest.object_landing import open_landing
from music_assets.sample_data.generator import generate
from music_assets.tables import ARTIST_RANK_IN_COUNTRY, REFRESH_RANKINGS, USER_DATA, USER_TOP_ARTISTS
from music_assets_tests.conftest import need_java
from music_assets_tests.end_to_end.conftest import Shell
from music_assets_tests.support.ingest_harness import waiting_files
from music_assets_tests.support.processes import BIN, REPOSITORY, clean_environment, kill_tree, wait_until
from music_assets_tests.support.project import RANKED_ARTISTS, TOP_ARTISTS, USERS, Project
from music_assets_tests.support.published import published_rows
from music_assets_tests.support.s3_server import S3Server
from music_assets_tests.support.spark_cluster import FAST_START, LOOPBACK, Cluster

JOB = ("dagster", "job", "execute", "-m", "music_assets.definitions", "-j", REFRESH_RANKINGS)
TIMEOUT = 600
MOVED = "user_id,country,total_scrobbles\n1,Malta,90\n"
NO_JAVA = {"PATH": "/nowhere", "JAVA_HOME": "", "MUSIC_ASSETS_ENGINE": "spark"}


def on_spark(master: str = "local[2]") -> dict[str, str]:
    conf = {**LOOPBACK, "spark.driver.extraJavaOptions": FAST_START, "spark.executor.extraJavaOptions": FAST_START}
    return {
        "MUSIC_ASSETS_ENGINE": "spark",
        "MUSIC_ASSETS_SPARK_MASTER": master,
        "MUSIC_ASSETS_SPARK_CONF": json.dumps(conf),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


def drop_sample(root: DataRoot, users: int) -> None:
    landing = Landing(root)
    root.prepare()
    sample = generate(root.path / "sample", users, dirty=0.005)
    for path in (sample.users_csv, sample.user_top_artists_csv):
        landing.place(path)


def start_job(root: DataRoot, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BIN / JOB[0], *JOB[1:]],
        cwd=REPOSITORY,
        env=clean_environment(root, MUSIC_ASSETS_SETTLE_SECONDS="0", **variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_success(job: subprocess.Popen[str]) -> None:
    try:
        _, errors = job.communicate(timeout=TIMEOUT)
    finally:
        job.kill()
    assert job.returncode == 0, errors[-5000:]


def test_demo_prints_the_same_as_on_duckdb(shell: Shell, tmp_path: Path) -> None:
    need_java()
    printed = {}
    for name, variables in (("duckdb", {}), ("spark", on_spark())):
        folder = tmp_path / name
        ended = shell("music-assets", "demo", "--users", 300, "--data", folder, timeout=TIMEOUT, **variables)
        assert ended.returncode == 0, ended.stderr[-3000:]
        printed[name] = ended.stdout.replace(str(folder), "")
    assert published_rows(DataRoot(tmp_path / "spark")) == published_rows(DataRoot(tmp_path / "duckdb"))
    assert printed["spark"] == printed["duckdb"]


def test_job_on_a_cluster_survives_a_killed_worker(tmp_path: Path) -> None:
    need_java()
    expected, root = DataRoot(tmp_path / "duckdb"), DataRoot(tmp_path / "spark")
    folder = root.table_folder(ARTIST_RANK_IN_COUNTRY)
    for each in (expected, root):
        drop_sample(each, users=4000)
    check_success(start_job(expected))
    with Cluster(tmp_path / "cluster") as cluster:
        job = start_job(root, **on_spark(cluster.master))
        attempts = "part-*/_temporary/0/_temporary/*/*.parquet"
        wait_until(lambda: any(folder.glob(attempts)), "a file of an executor", TIMEOUT, process=job)
        kill_tree(cluster.workers[0])
        check_success(job)
        (application,) = cluster.state()["completedapps"]
    assert (application["name"], application["state"]) == ("music-assets", "FINISHED")
    assert published_rows(root) == published_rows(expected)
    assert not [path for path in folder.rglob("*") if path.name.startswith("_temporary")]


def test_retraction_and_erasure_leave_the_same_rows_as_on_duckdb(shell: Shell, tmp_path: Path) -> None:
    """The retraction moves user 1 back from Malta to Germany. User 2, the only one in France, is erased."""
    need_java()
    for name, variables in (("duckdb", {}), ("spark", on_spark())):
        root = DataRoot(tmp_path / name)
        root.prepare()
        drops = (
            (USER_DATA, USERS, "users.csv"),
            (USER_TOP_ARTISTS, TOP_ARTISTS, "top.csv"),
            (USER_DATA, MOVED, "moved.csv"),
        )
        for table, text, file in drops:
            root.drop_folder(table).joinpath(file).write_text(text)
        environment = {"MUSIC_ASSETS_DATA": str(root), "MUSIC_ASSETS_SETTLE_SECONDS": "0", **variables}
        retract = ("music-assets", "retract", sha256(MOVED.encode()).hexdigest(), "--yes")
        for command in (JOB, retract, JOB, ("music-assets", "forget", "2", "--yes")):
            ended = shell(*command, timeout=TIMEOUT, **environment)
            assert ended.returncode == 0, ended.stderr[-3000:]
    published = published_rows(DataRoot(tmp_path / "spark"))
    assert published == published_rows(DataRoot(tmp_path / "duckdb"))
    ranked = published[ARTIST_RANK_IN_COUNTRY.full_name]
    assert ranked == Counter(row for row in RANKED_ARTISTS if row[0] == "Germany")


def test_refresh_on_s3_gives_the_same_rows_as_on_duckdb(s3: S3Server, tmp_path: Path) -> None:
    need_java()
    expected, root = Project(tmp_path / "duckdb"), s3.root(tmp_path, tmp_path.name)
    root.prepare()
    for path in generate(tmp_path / "sample", 300, dirty=0.005):
        expected.landing.place(path)
        open_landing(root).place(path)
    check_success(start_job(root, **root.environment, **on_spark()))
    assert expected.refresh().success
    elsewhere = s3.root(tmp_path / "elsewhere", tmp_path.name)
    assert published_rows(elsewhere) == published_rows(expected.root)
    assert waiting_files(elsewhere) == []


def test_missing_java_is_reported_before_anything_changes(shell: Shell, root: DataRoot, tmp_path: Path) -> None:
    root.prepare()
    for table, text in ((USER_DATA, USERS), (USER_TOP_ARTISTS, TOP_ARTISTS)):
        root.drop_folder(table).joinpath("drop.csv").write_text(text)
    before = sorted(root.path.rglob("*"))
    for command in (JOB, ("music-assets", "up"), ("music-assets", "demo", "--data", tmp_path / "demo")):
        ended = shell(*command, MUSIC_ASSETS_SETTLE_SECONDS="0", **NO_JAVA)
        assert ended.returncode != 0
        assert "There is no java on the PATH" in ended.stderr
        assert "needs Java 17 or later: install it" in ended.stderr
        assert command is JOB or "Traceback" not in ended.stderr
    assert sorted(root.path.rglob("*")) == before
    assert not (tmp_path / "demo").exists()


def test_no_jvm_starts_before_spark_is_used(shell: Shell) -> None:
    """A web server loads the definitions and never computes."""
    need_java()
    code = "import music_assets.definitions as d, psutil; print(d.defs.resources['engine'].name, d.defs.resources"
    code += "['pyspark'].spark_config['spark.master'], len(psutil.Process().children(recursive=True)))"
    ended = shell(sys.executable, "-c", code, **on_spark("spark://far.example:7077"))
    assert ended.stdout.split() == ["spark", "spark://far.example:7077", "0"], ended.stderr[-3000:]
