"""Commands and services on a data root on S3, as users start them."""

import subprocess
from pathlib import Path

import httpx
import pytest

from music_assets.data_root import DataRoot
from music_assets.ingest.object_landing import open_landing
from music_assets.sample_data.generator import generate
from music_assets_tests.support.processes import BIN, TIMEOUT, clean_environment
from music_assets_tests.support.project import RANKED_ARTISTS, USERS, Project
from music_assets_tests.support.published import published_rows
from music_assets_tests.support.running_up import running_up
from music_assets_tests.support.s3_proxy import Refusal, s3_proxy
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
        countries = httpx.get(f"{up.service}/countries", timeout=30)
        assert countries.is_success, countries.text
        assert len(countries.json()["rows"]) > 10
        assert run(root, "doctor").returncode == 0
    assert project.refresh().success
    assert published_rows(root) == published_rows(project.root)
    assert not list(root.drop_folder(project.landing.tables[0]).iterdir())


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
    assert "access denied (AccessDenied). Set or renew AWS_ACCESS_KEY_ID" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_store_that_ignores_conditions_is_refused(s3: S3Server, tmp_path: Path) -> None:
    root = s3.root(tmp_path, tmp_path.name)
    with s3_proxy(s3.url, conditions=False) as url:
        answer = run(root, "doctor", AWS_ENDPOINT_URL=url)
    assert answer.returncode == 1
    assert f"at {url} ignores If-None-Match and If-Match" in " ".join(answer.stdout.split())


def test_requests_are_repeated(s3: S3Server, tmp_path: Path) -> None:
    refused: list[str] = []

    def refuse_twice(method: str, path: str) -> Refusal | None:
        if method == "PUT" and len(refused) < 2:
            refused.append(path)
            return Refusal(503)
        return None

    root = s3.root(tmp_path, tmp_path.name)
    (tmp_path / "users.csv").write_text(USERS)
    with s3_proxy(s3.url, refuse_twice) as url:
        answer = run(root, "drop", str(tmp_path / "users.csv"), AWS_ENDPOINT_URL=url)
    assert answer.returncode == 0, answer.stderr
    assert len(refused) == 2
    assert f"{root}/user_data/user_data/users.csv" in answer.stdout
