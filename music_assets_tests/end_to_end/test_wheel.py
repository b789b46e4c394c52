"""The wheel, installed where there is no checkout: `demo`, `up` and `serve` work in an empty folder."""

import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from music_assets.runtime.ports import free_port
from music_assets_tests.end_to_end.conftest import PATIENCE, REPOSITORY, plain_environment

SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "dagster.yaml", "workspace.yaml", "music_assets")
BUILD_SDIST = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
PIP = (sys.executable, "-m", "pip", "--quiet")


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of a virtual environment into which the wheel is installed.

    The wheel is built from the sdist. The dependencies are those of the test environment, so no network is needed.
    """
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    checkout.mkdir()
    subprocess.run(["cp", "-R", "-P", *(REPOSITORY / name for name in SOURCES), checkout], check=True)
    subprocess.run([sys.executable, "-c", BUILD_SDIST, folder], cwd=checkout, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    subprocess.run([*PIP, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, sdist], check=True)
    (wheel,) = folder.glob("*.whl")

    environment = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    python = environment / "bin/python"
    subprocess.run([*PIP, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    return environment / "bin"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which only the installed wheel can be imported."""
    kept = plain_environment(tmp_path / "demo")
    del kept["PYTHONPATH"]
    return kept


@pytest.fixture
def demo(commands: Path, environment: dict[str, str], tmp_path: Path) -> str:
    """The output of `music-assets demo`."""
    done = subprocess.run(
        [commands / "music-assets", "demo", "--users", "200"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def up(demo: str, commands: Path, environment: dict[str, str], tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The addresses of the web UI and of the query service of a running `music-assets up`."""
    web_ui, service = free_port(), free_port()
    with (tmp_path / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [commands / "music-assets", "up", "--port", str(web_ui)],
            cwd=tmp_path, env={**environment, "MUSIC_ASSETS_PORT": str(service)}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{web_ui}/server_info", f"http://127.0.0.1:{service}/query"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    assert process.returncode == 0, (tmp_path / "up.log").read_text()


def test_demo_and_up_work_without_a_checkout(demo: str, up: tuple[str, str]) -> None:
    assert "processed_parquet_artist_rank_in_country" in demo
    web_ui, service = up
    assert "dagster_version" in answer(web_ui).json()
    found = answer(service, query="SELECT count(*) AS users FROM raw_parquet_user_data").json()
    assert found["rows"][0][0] >= 200


def answer(address: str, **parameters: str) -> httpx.Response:
    """Return the response of a server that may still be starting."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            response = httpx.get(address, params=parameters)
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return response.raise_for_status()
        time.sleep(0.5)
    pytest.fail(f"{address} did not answer within {PATIENCE} s")
