"""An S3 server on this machine, with a bucket: `moto` in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from music_assets import object_store
from music_assets.data_root import DataRoot
from music_assets.runtime.ports import free_port
from music_assets.settings import Settings
from music_assets_tests.support.processes import TIMEOUT, wait_until
from music_assets_tests.support.running_up import answers

BUCKET = "music"
VARIABLES = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_REGION": "eu-central-1"}
START = """
import sys
from moto.core.serialize import TimestampSerializer
from moto.s3.models import FakeKey
from moto.server import main
# With fractions of a second, as many stores list objects: files dropped within a second then have an order.
FakeKey.last_modified_ISO8601 = property(lambda key: f"{key.last_modified.isoformat(timespec='microseconds')}Z")
TimestampSerializer.ISO8601_MICRO_ZEROED = TimestampSerializer.ISO8601_MICRO
main(sys.argv[1:])
"""


@dataclass(frozen=True)
class S3Server:
    """A running server."""

    url: str

    def root(self, folder: Path, prefix: str) -> DataRoot:
        """Return the data root with a prefix in the bucket, and its work folder in a folder."""
        return DataRoot.of(Settings(data=f"s3://{BUCKET}/{prefix}", work=folder / "work"))


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run a server, and let this process and its children use it by the variables that all AWS programs know."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    variables = {**VARIABLES, "AWS_ENDPOINT_URL": url}
    command = [sys.executable, "-c", START, "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "s3.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **variables})
    before = {name: os.environ.get(name) for name in variables}
    try:
        wait_until(lambda: answers(f"{url}/moto-api/"), "the S3 server", process=process, log=folder / "s3.log")
        os.environ.update(variables)
        httpx.put(f"{url}/{BUCKET}", content=LOCATION, timeout=TIMEOUT).raise_for_status()
        with new_clients():  # another server may be in use
            yield S3Server(url)
    finally:
        process.kill()
        process.wait()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def new_clients() -> Iterator[None]:
    """Let this process find its endpoint and credentials again, and once more in the end."""
    _forget_clients()
    try:
        yield
    finally:
        _forget_clients()


def _forget_clients() -> None:
    for cached in (
        object_store._client,
        object_store._deleting_client,
        object_store._endpoint,
        object_store._region,
        object_store._session,
    ):
        cached.cache_clear()


LOCATION = (
    "<CreateBucketConfiguration><LocationConstraint>eu-central-1</LocationConstraint></CreateBucketConfiguration>"
)
