"""The policies of deploy/aws on a server that enforces their actions and resources.

The server ignores conditions, and fails on the signed requests with which a run deletes an object. So runs are not
restricted here, and the requests of the code server are sent one by one.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from music_assets.sample_data.generator import SampleFiles, generate
from music_assets_tests.support.processes import BIN, REPOSITORY, TIMEOUT
from music_assets_tests.support.s3_server import BUCKET, VARIABLES, S3Server, s3_server

PREFIX = "data"
REGION = VARIABLES["AWS_REGION"]
ACTIONS = ("get_object", "put_object", "delete_object")
POLICIES = ("code-server", "query-service", "uploader")
REFRESH = ("dagster", "job", "execute", "-m", "music_assets.definitions", "-j", "refresh_rankings")


class Roles:
    """Access keys of users with one policy each, on a server that checks every request."""

    def __init__(self, server: S3Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.keys = {policy: self._create_user(policy) for policy in POLICIES}

    def enforce(self) -> None:
        """Let the server check all further requests."""
        httpx.post(f"{self.server.url}/moto-api/reset-auth", content="0").raise_for_status()

    def _create_user(self, policy: str) -> dict[str, str]:
        text = (REPOSITORY / f"deploy/aws/{policy}.json").read_text()
        document = text.replace("BUCKET", BUCKET).replace("PREFIX", PREFIX)
        iam = boto3.client("iam", region_name=REGION)
        iam.create_user(UserName=policy)
        iam.put_user_policy(UserName=policy, PolicyName=policy, PolicyDocument=document)
        key = iam.create_access_key(UserName=policy)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def run(self, policy: str, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a command with the rights of a policy, and with a work folder of its own."""
        work = self.folder / policy
        home = work / BUCKET / PREFIX / ".dagster_home"
        home.mkdir(parents=True, exist_ok=True)
        variables = {"MUSIC_ASSETS_DATA": f"s3://{BUCKET}/{PREFIX}", "MUSIC_ASSETS_WORK": str(work)}
        variables["DAGSTER_HOME"] = str(home)
        program, *arguments = map(str, command)
        return subprocess.run(
            [BIN / program, *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": str(REPOSITORY),
                "DAGSTER_HOME": str(home),
                **variables,
                **self.keys[policy],
            },
            capture_output=True,
            text=True,
            timeout=3 * TIMEOUT,
            check=False,
        )

    def client(self, policy: str) -> Any:
        """Return an S3 client with the rights of a policy."""
        key = self.keys[policy]
        return boto3.client(
            "s3",
            region_name=REGION,
            aws_access_key_id=key["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=key["AWS_SECRET_ACCESS_KEY"],
        )


@pytest.fixture
def roles(tmp_path: Path) -> Iterator[Roles]:
    with s3_server(tmp_path) as server:
        yield Roles(server, tmp_path)


@pytest.fixture
def sample(tmp_path: Path) -> SampleFiles:
    return generate(tmp_path / "sample", users=50, seed=1)


def test_each_part_may_do_its_work(roles: Roles, sample: SampleFiles) -> None:
    assert roles.run("code-server", "music-assets", "drop", *sample).returncode == 0
    refreshed = roles.run("code-server", *REFRESH)
    assert refreshed.returncode == 0, refreshed.stderr[-3000:]
    roles.enforce()

    count = roles.run(
        "query-service", "music-assets", "query", "SELECT count(*) AS n FROM raw_parquet_user_data", "--format", "json"
    )
    assert json.loads(count.stdout) == [{"n": 50}], count.stderr

    waiting, pointer = f"{PREFIX}/user_data/user_data/new.csv", f"{PREFIX}/music_db/current.json"
    allowed = {
        "uploader": {("put_object", waiting)},
        "query-service": {("get_object", pointer)},
        "code-server": {(action, key) for action in ACTIONS for key in (waiting, pointer)},
    }
    for policy, expected in allowed.items():
        client = roles.client(policy)
        found = {
            (action, key)
            for action in ACTIONS
            for key in (waiting, pointer, "elsewhere.csv")
            if is_allowed(client, action, key)
        }
        assert found == expected, policy


def is_allowed(client: Any, action: str, key: str) -> bool:
    """Send a request, and return whether it is allowed. What it writes is of no use any more."""
    try:
        getattr(client, action)(Bucket=BUCKET, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("403", "AccessDenied", "Forbidden"):
            return False
        assert error.response["Error"]["Code"] == "NoSuchKey"
    return True
