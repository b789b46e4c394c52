"""Commands and services on a data root on S3, as users start them."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import psutil
import pytest

from music_assets.data_root import DataRoot
from music_assets.ingest.batch import BATCH_FILES
from music_assets.ingest.object_landing import open_landing
from music_assets.maintenance.backup import backup, restore
from music_assets.sample_data.generator import generate
from music_assets.storage.delta import DeltaStore
from music_assets.storage.lineage import FILES
from music_assets.storage.published_snapshot import connect, newest_snapshot
from music_assets.tables import (
    ARTIST_EMBEDDING,
    ARTIST_RANK_IN_COUNTRY,
    EMBEDDING_DIMENSIONS,
    EMBEDDING_TABLES,
    REJECTED_ROWS,
    USER_DATA,
    USER_EMBEDDING,
    USER_TOP_ARTISTS,
)
from music_assets_tests.faults.deployment import Deployment
from music_assets_tests.support.processes import BIN, TIMEOUT, clean_environment, wait_until
from music_assets_tests.support.project import RANKED_ARTISTS, TOP_ARTISTS, USERS, Project
from music_assets_tests.support.published import published_rows
from music_assets_tests.support.running_up import running_up
from music_assets_tests.support.s3_proxy import Answer, Refusal, s3_proxy
from music_assets_tests.support.s3_server import S3Server


def run(root: DataRoot, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `music-assets` with the data root."""
    environment = clean_environment(root, **{**root.environment, **variables})
    return subprocess.run(
        [BIN / "music-assets", *arguments], env=environment, capture_output=True, text=True, timeout=TIMEOUT
    )


def test_up_publishes_what_a_folder_publishes(s3: S3Server, tmp_path: Path) -> None:
    files = generate(tmp_path / "sample", 300, dirty=0.005)
    project = Project(tmp_path / "folder")
    root = s3.root(tmp_path, "up")
    with running_up(root, tmp_path, environment=clean_environment(root, **root.environment)) as up:
        for path in files:
            project.landing.place(path)
            open_landing(root).place(path)
        up.wait_for_run(1)
        url = f"{up.service}/countries"
        wait_until(lambda: httpx.get(url, timeout=30).is_success, "the snapshot that the service fetches")
        assert len(httpx.get(url, timeout=30).json()["rows"]) > 10
        assert run(root, "doctor").returncode == 0
    assert project.refresh().success
    assert published_rows(root) == published_rows(project.root)
    assert not list(root.drop_folder(project.landing.tables[0]).iterdir())


def test_generated_files_wait_in_the_bucket(s3: S3Server, tmp_path: Path) -> None:
    root = s3.root(tmp_path, tmp_path.name)
    elsewhere = s3.root(tmp_path, "elsewhere")
    answer = run(elsewhere, "generate", "--users", "50", "--seed", "3", "--to", str(root))
    assert answer.returncode == 0, answer.stderr
    assert f"{root}/user_data/user_data/users.csv  " in answer.stdout
    expected = generate(tmp_path / "sample", 50, seed=3)
    landing = open_landing(root)
    waiting = {
        file.name: root.read(root.drop_folder(t) / file.name) for t in landing.tables for file in landing.files(t)
    }
    assert waiting == {path.name: path.read_bytes() for path in expected}
    assert elsewhere.files_below(elsewhere.path) == {}


@pytest.fixture
def published(s3: S3Server, tmp_path: Path) -> Project:
    """Return a project on S3 whose tables are published."""
    project = Project(s3.root(tmp_path, tmp_path.name))
    project.drop_both()
    assert project.refresh().success
    return project


def test_queries_need_read_access_alone(s3: S3Server, published: Project, tmp_path: Path) -> None:
    def refuse_writes(method: str, path: str) -> Refusal | None:
        return None if method in ("GET", "HEAD") else Refusal(403, "AccessDenied")

    sql = "SELECT * FROM processed_parquet_artist_rank_in_country ORDER BY country, rank"
    with s3_proxy(s3.url, refuse_writes) as url:
        reader = s3.root(tmp_path / "elsewhere", tmp_path.name)
        answer = run(reader, "query", sql, "--format", "csv", AWS_ENDPOINT_URL=url)
        assert answer.returncode == 0, answer.stderr
        assert len(answer.stdout.splitlines()) == 1 + len(RANKED_ARTISTS)
        (tmp_path / "users.csv").write_text(USERS)
        refused = run(reader, "drop", str(tmp_path / "users.csv"), AWS_ENDPOINT_URL=url)
    assert refused.returncode == 1
    assert f"access denied (AccessDenied). Allow these credentials s3:PutObject on {published.root}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_backup_is_restored_to_the_other_kind(s3: S3Server, published: Project, tmp_path: Path) -> None:
    """With the newest snapshot, embeddings, rejected rows, a rejected file and one that waits."""
    project = Project(published.root, reject_fail_share=1.0)
    project.drop(USER_DATA, "user_id,country,total_scrobbles\nx,Mali,1\ny,Mali,1\n", "rejects.csv")
    project.drop(USER_TOP_ARTISTS, "no header", "bad.csv")
    vector = {f"dim_{number}": number / 7 for number in range(EMBEDDING_DIMENSIONS)}
    project.put(ARTIST_EMBEDDING, [{"artist_name": "Can", **vector, "listeners": 3, "trained": True}])
    project.put(USER_EMBEDDING, [{"user_id": 1, **vector}])
    assert project.refresh().success
    project.drop(USER_DATA, "user_id,country,total_scrobbles\n9,Mali,1\n", "waiting.csv")

    def content(root: DataRoot) -> tuple[Any, ...]:
        kept = [*root.files_below(root.rejected), *root.files_below(root.drop_folder(USER_DATA))]
        version = newest_snapshot(root).data_version
        return published_rows(root), {root.relative(path): root.read(path) for path in kept}, version

    expected = content(project.root)
    rows, kept, _ = expected
    assert [rows[table.full_name].total() for table in (*EMBEDDING_TABLES, REJECTED_ROWS)] == [1, 1, 2]
    assert [name.rpartition("/")[2] for name in kept] == ["bad.csv", "bad.csv.reason.txt", "waiting.csv"]
    folder, again = DataRoot(tmp_path / "folder"), s3.root(tmp_path / "again", f"{tmp_path.name}-again")
    backup(project.root, tmp_path / "first", 0, print)
    restore(tmp_path / "first", folder, print)
    assert content(folder) == expected
    backup(folder, tmp_path / "second", 0, print)
    restore(tmp_path / "second", again, print)
    assert content(again) == expected
    assert Project(again).refresh().success
    assert published_rows(again) != rows


def test_commit_whose_answer_is_lost_counts_once(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[str] = []

    def lose_an_answer(method: str, path: str) -> Refusal | None:
        if method == "PUT" and f"{USER_DATA.folder}/_delta_log/{1:020}.json" in path and not lost:
            lost.append(path)
            return Refusal(0)
        return None

    deployment = Deployment.create(tmp_path, s3)
    root = deployment.root
    root.prepare()
    root.write(root.drop_folder(USER_DATA) / "users.csv", USERS.encode())
    root.write(root.drop_folder(USER_TOP_ARTISTS) / "top.csv", TOP_ARTISTS.encode())
    with s3_proxy(s3.url, lose_an_answer) as url, monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", url)
        deployment.run()
    assert lost
    assert deployment.run() == 0, deployment.log_end
    assert DeltaStore(root).table_version(USER_DATA).rows == len(USERS.splitlines()) - 1
    with connect(root) as connection:
        assert connection.execute(f"FROM {ARTIST_RANK_IN_COUNTRY.full_name}").fetchall() == RANKED_ARTISTS


MANY = 100_000
BATCHES = 2
TICKS = """
import json, resource
from music_assets.data_root import DataRoot
from music_assets.settings import settings
from music_assets_tests.support.project import Project

project = Project(DataRoot.of(settings()))
for _ in range(3):
    decision = project.tick()
    files = len(json.loads(project.cursor)["files"])
    print(type(decision).__name__, files, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)
project.materialize_raw()
"""


def test_100_000_waiting_objects(s3: S3Server, tmp_path: Path) -> None:
    """Every one counts in a tick. A run makes lasting progress in batches, and neither lets memory grow."""
    root, deleted = s3.root(tmp_path, tmp_path.name), set[str]()

    def answer(method: str, path: str) -> Answer | None:
        key = urlsplit(path).path
        if "/user_data/user_" not in key:
            return listing(path, MANY)
        if method == "DELETE":
            deleted.add(key)
            return Answer(b"", 204)
        return Answer(object_of(key), etag=etag(key)) if method == "GET" else None

    with s3_proxy(s3.url, answer) as url:
        environment = clean_environment(root, **{**root.environment, "AWS_ENDPOINT_URL": url})
        command = [sys.executable, "-c", TICKS]
        with (tmp_path / "ticks").open("wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.DEVNULL)
        try:
            store = DeltaStore(s3.root(tmp_path / "elsewhere", tmp_path.name))
            enough = BATCHES * BATCH_FILES
            wait_until(lambda: store.table_version(USER_DATA).rows >= enough, "rows", 4 * TIMEOUT, process)
            memory = psutil.Process(process.pid).memory_info().rss >> 20
        finally:
            process.kill()
            process.wait()
    _, second, third = [line.split() for line in (tmp_path / "ticks").read_text().splitlines()]
    assert second[:2] == third[:2] == ["RunRequest", str(MANY + 1)]
    assert int(third[2]) - int(second[2]) < 50
    assert memory - int(third[2]) < 300, "what one batch takes, and the libraries"
    loaded = store.commit_metadata(USER_DATA, FILES)
    assert {len(files) for files in loaded} == {BATCH_FILES}
    assert len(deleted) >= (len(loaded) - 1) * BATCH_FILES, "each batch was deleted before the next one"
    assert len(list(root.staging.iterdir())) <= 2 * BATCH_FILES + 1, "one batch, and the next"


def etag(key: str) -> str:
    """Return the ETag of an object of a long listing."""
    return hashlib.md5(object_of(key)).hexdigest()


def object_of(key: str) -> bytes:
    """Return an object of a long listing: a user, or the artists of one."""
    if "/user_top_artists/" in key:
        return b"user_id,rank,artist_name,playcount,mbid\n1,1,Can,1,\n"
    return f"user_id,country,total_scrobbles\n{int(key[-10:-4]) + 1},Mali,1\n".encode()


def listing(path: str, keys: int) -> Answer | None:
    """Return a page of a long listing of a drop folder as S3 does, or None for other requests."""
    query = dict(parse_qsl(urlsplit(path).query))
    prefix = query.get("prefix", "")
    if "/user_data/user_" not in prefix:
        return None
    keys = keys if prefix.endswith("/user_data/user_data/") else 1
    start = int(query.get("continuation-token", 0))
    end = min(start + 1_000, keys)
    names = [f"{prefix}{number:06}.csv" for number in range(start, end)]
    objects = "".join(
        f"<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{etag(name)}&quot;</ETag><Size>{len(object_of(name))}</Size></Contents>"
        for name in names
    )
    more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < keys else ""
    truncated = "true" if more else "false"
    return Answer(
        f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{objects}{more}</ListBucketResult>".encode()
    )
