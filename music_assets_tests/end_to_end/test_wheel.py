"""The wheel, installed where there is no checkout: `demo`, `up` and `serve` work in an empty folder."""

import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import httpx
import pytest

from music_assets.data_root import DataRoot
from music_assets_tests.support.processes import REPOSITORY, TIMEOUT, clean_environment, wait_until
from music_assets_tests.support.running_up import answers, running_up

SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "dagster.yaml", "workspace.yaml", "music_assets")
BUILD_SDIST = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
PIP = (sys.executable, "-m", "pip", "--quiet")


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the commands of a virtual environment into which the wheel is installed.

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
def environment(root: DataRoot) -> dict[str, str]:
    """Return an environment in which only the installed wheel can be imported."""
    environment = clean_environment(root)
    del environment["PYTHONPATH"]
    return environment


def test_demo_and_up_work_without_a_checkout(
    commands: Path, environment: dict[str, str], root: DataRoot, tmp_path: Path
) -> None:
    command = commands / "music-assets"
    demo = subprocess.run(
        [command, "demo", "--users", "200", "--data", root.path],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert demo.returncode == 0, demo.stderr
    assert "processed_parquet_artist_rank_in_country" in demo.stdout

    with running_up(root, tmp_path, command, environment) as up:
        wait_until(lambda: answers(f"{up.service}/readyz"), "an answer of the service", log=up.log)
        sql = "SELECT count(*) AS users FROM raw_parquet_user_data"
        found = httpx.get(f"{up.service}/query", params={"query": sql}).raise_for_status().json()
        assert found["rows"][0][0] >= 200
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(TIMEOUT) == 0, up.log.read_text()
