"""The units of deploy/systemd as processes: code server, daemon and web UI, with the run history in PostgreSQL."""

import configparser
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg2
import pytest

import music_assets
from music_assets.data_root import DataRoot
from music_assets.runtime.ports import free_port
from music_assets.sample_data.generator import generate
from music_assets_tests.support.postgres import postgres_server
from music_assets_tests.support.processes import BIN, REPOSITORY, TIMEOUT, clean_environment, kill_tree, wait_until
from music_assets_tests.support.running_up import RunningUp

UNITS = REPOSITORY / "deploy/systemd"
LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
  __typename ... on RepositoryLocation { repositories { jobs { name } } } } } } } }"""
USERS = "SELECT count(*) FROM raw_parquet_user_data"


class Deployment:
    """The processes of the units, started by the commands in these, with the settings of the units."""

    def __init__(self, root: DataRoot, folder: Path, postgres_url: str) -> None:
        self.root = root
        self.folder = folder
        self.postgres_url = postgres_url
        self.code_port, self.web_port = free_port(), free_port()
        workspace = (UNITS / "workspace.yaml").read_text().replace("port: 4000", f"port: {self.code_port}")
        (folder / "workspace.yaml").write_text(workspace)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.web = RunningUp(root, None, f"http://127.0.0.1:{self.web_port}", "", folder / "web.log")

    def start(self, part: str, programs: Path = BIN, **variables: str) -> subprocess.Popen[bytes]:
        """Start the main process of a unit, after the commands that prepare it."""
        for command in self.commands(part, "ExecStartPre", programs):
            subprocess.run(command, env=self.environment(**variables), check=True, capture_output=True)
        (command,) = self.commands(part, "ExecStart", programs)
        with (self.folder / f"{part}.log").open("ab") as log:
            self.processes[part] = subprocess.Popen(
                command, cwd=self.folder, env=self.environment(**variables), stdout=log, stderr=log
            )
        return self.processes[part]

    def wait_for_code_server(self) -> None:
        """Wait as the unit does before it counts as started."""
        (command,) = self.commands("code", "ExecStartPost", BIN)
        subprocess.run(command, env=self.environment(), check=True, capture_output=True, timeout=TIMEOUT)

    def commands(self, part: str, key: str, programs: Path) -> list[list[str]]:
        """Return the commands of a unit with the programs, ports and files of this deployment."""
        unit = configparser.RawConfigParser(strict=False)
        unit.optionxform = str  # type: ignore[assignment, method-assign]
        unit.read(UNITS / f"music-assets-{part}.service")
        text = unit["Service"].get(key, "")
        for name, value in {
            "/opt/music-assets/current/bin": str(programs),
            "/etc/music-assets/workspace.yaml": str(self.folder / "workspace.yaml"),
            "--port 4000": f"--port {self.code_port}",
            "--port 3000": f"--port {self.web_port}",
        }.items():
            text = text.replace(name, value)
        return [shlex.split(text)] if text else []

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the environment of the units, with changes."""
        settings = {"DAGSTER_HOME": str(self.root.dagster_home), "MUSIC_ASSETS_POSTGRES_URL": self.postgres_url}
        settings |= {"MUSIC_ASSETS_SETTLE_SECONDS": "0.5", "MUSIC_ASSETS_RETRY_PAUSE": "1"}
        return clean_environment(self.root, **{**settings, **variables})

    def location(self) -> str:
        """Return the type of the code location in the web UI: RepositoryLocation if its definitions are loaded."""
        (entry,) = self.web.graphql(LOCATIONS)["workspaceOrError"]["locationEntries"]
        return entry["locationOrLoadError"]["__typename"]

    def stop(self) -> None:
        for process in self.processes.values():
            kill_tree(process)


@pytest.fixture
def deployment(root: DataRoot, tmp_path: Path) -> Iterator[Deployment]:
    """Return a deployment whose daemon and web UI have the settings of another data root.

    So a run that were started next to them would not find the files.
    """
    with postgres_server() as url, ExitStack() as stack:
        deployment = Deployment(root, tmp_path, url)
        stack.callback(deployment.stop)
        deployment.start("code")
        deployment.wait_for_code_server()
        for part in ("daemon", "web"):
            deployment.start(part, MUSIC_ASSETS_DATA=str(tmp_path / "elsewhere"))
        wait_until(deployment.web.is_ready, "the web UI", process=deployment.processes["web"], log=deployment.web.log)
        yield deployment


def broken_release(folder: Path) -> Path:
    """Write a release whose definitions do not load, and return the folder of its programs."""
    shutil.copytree(Path(music_assets.__file__).parent, folder / "code/music_assets")
    (folder / "code/music_assets/definitions.py").write_text("raise RuntimeError('this release is broken')\n")
    (folder / "bin").mkdir()
    for name in ("dagster", "music-assets"):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nPYTHONPATH={folder / "code"} exec {BIN / name} "$@"\n')
        program.chmod(0o755)
    return folder / "bin"


def drop(deployment: Deployment, seed: int) -> None:
    sample = generate(deployment.folder / f"sample{seed}", users=100, seed=seed)
    command = [BIN / "music-assets", "drop", sample.users_csv, sample.user_top_artists_csv]
    subprocess.run(command, env=deployment.environment(), check=True, capture_output=True)


def test_a_deployment_survives_a_broken_release(deployment: Deployment, tmp_path: Path) -> None:
    """Runs start in the code server. A broken one leaves the web UI up, and a good one brings everything back."""
    web = deployment.web
    drop(deployment, seed=1)
    web.wait_for_run(1)
    assert web.query(USERS) == [(100,)]
    assert not (tmp_path / "elsewhere/raw_parquet").exists()
    with (
        psycopg2.connect(deployment.postgres_url.replace("+psycopg2", "")) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT count(*) FROM runs WHERE status = 'SUCCESS'")
        assert cursor.fetchone() == (1,)
    assert not list(deployment.root.dagster_home.rglob("*.db"))

    programs = broken_release(tmp_path / "broken")
    validate = [programs / "dagster", "definitions", "validate", "--module-name", "music_assets.definitions"]
    validated = subprocess.run(
        validate, cwd=tmp_path, env=deployment.environment(), capture_output=True, text=True, check=False
    )
    assert validated.returncode != 0
    assert "this release is broken" in validated.stdout + validated.stderr
    assert deployment.location() == "RepositoryLocation"

    deployment.processes["code"].send_signal(signal.SIGTERM)
    assert deployment.processes["code"].wait(TIMEOUT) == 0
    assert deployment.start("code", programs).wait(TIMEOUT) != 0
    assert web.is_ready()
    drop(deployment, seed=2)
    deployment.start("code")
    wait_until(lambda: deployment.location() == "RepositoryLocation", "the definitions", log=web.log)
    web.wait_for_run(2)
    assert web.query(USERS) == [(200,)]
