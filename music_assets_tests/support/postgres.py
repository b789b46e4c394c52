"""A PostgreSQL server on a loopback port, with an empty database for Dagster's run history."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from music_assets.runtime.ports import free_port
from music_assets_tests.support.processes import wait_until

PASSWORD = "s3cret/t0ken"
USER = "dagster"
WITHOUT_ROOT = "postgres"
"""The user that runs the server if the tests run as root, which the server refuses."""


def find_programs() -> Path:
    """Return the folder of `initdb` and `postgres`. Skip the test where they are missing; under CI=true fail it."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    for folder in (*reversed(debian), *map(Path, os.get_exec_path())):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    missing = "the PostgreSQL server is not installed: apt-get install postgresql"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server and yield the URL of its database, as `MUSIC_ASSETS_POSTGRES_URL` expects it."""
    programs, port = find_programs(), free_port()
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            as_user = {"user": WITHOUT_ROOT, "group": pwd.getpwnam(WITHOUT_ROOT).pw_gid, "extra_groups": []}
            for path in (folder, folder / "password"):
                shutil.chown(path, WITHOUT_ROOT)
        initdb = [programs / "initdb", "-D", folder / "data", "-U", USER, "--pwfile", folder / "password"]
        initdb += ["--auth", "scram-sha-256", "--no-sync", "--encoding", "UTF8", "--no-locale"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd="/", **as_user)
        options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
        arguments = [part for option, value in options.items() for part in ("-c", f"{option}={value}")]
        log = folder / "log"
        with log.open("wb") as sink:
            server = subprocess.Popen(
                [programs / "postgres", "-D", folder / "data", *arguments], stdout=sink, stderr=sink, cwd="/", **as_user
            )
        try:
            wait_until(lambda: _answers(port), "the PostgreSQL server", process=server, log=log)
            yield f"postgresql+psycopg2://{USER}:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait()


def _answers(port: int) -> bool:
    try:
        psycopg2.connect(host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname="postgres").close()
    except psycopg2.OperationalError:
        return False
    return True
