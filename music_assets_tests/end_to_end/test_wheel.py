"""The wheel, installed where there is no checkout: `demo`, `up` and `serve` work in an empty folder.

Without extras it is the Python client, which works with nothing but the client's dependencies.
"""

import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from email import message_from_string
from importlib.metadata import distribution
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement

from music_assets.data_root import DataRoot
from music_assets_tests.service.conftest import make_dataset, serving
from music_assets_tests.support.processes import REPOSITORY, TIMEOUT, clean_environment, wait_until
from music_assets_tests.support.running_up import answers, running_up

SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "dagster.yaml", "workspace.yaml", "music_assets")
BUILD_SDIST = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
PIP = (sys.executable, "-m", "pip", "--quiet")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built from the sdist."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    checkout.mkdir()
    subprocess.run(["cp", "-R", "-P", *(REPOSITORY / name for name in SOURCES), checkout], check=True)
    subprocess.run([sys.executable, "-c", BUILD_SDIST, folder], cwd=checkout, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    subprocess.run([*PIP, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, sdist], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the commands of a virtual environment into which the wheel is installed.

    The dependencies are those of the test environment, so no network is needed.
    """
    environment = tmp_path_factory.mktemp("whole") / "venv"
    packages = new_environment(environment)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return install(wheel, environment)


def new_environment(folder: Path) -> Path:
    """Create a virtual environment and return the folder of its packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))


def install(wheel: Path, environment: Path) -> Path:
    """Install the wheel and return the folder of its commands."""
    python = environment / "bin/python"
    subprocess.run([*PIP, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    return environment / "bin"


def link_dependencies(requires: Iterable[str], packages: Path) -> None:
    """Link packages of the test environment, and what they depend on, into another environment."""
    for requirement in map(Requirement, requires):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = distribution(requirement.name)
        tops = {file.parts[0] for file in installed.files or ()} - {"..", "__pycache__"}
        missing = [top for top in tops if not (packages / top).exists()]
        for top in missing:
            (packages / top).symlink_to(Path(str(installed.locate_file(top))))
        if missing:
            link_dependencies(installed.requires or (), packages)


@pytest.fixture
def environment(root: DataRoot) -> dict[str, str]:
    """Return an environment in which only the installed wheel can be imported."""
    environment = clean_environment(root)
    del environment["PYTHONPATH"]
    return environment


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """Return the URL of a service on a published data root."""
    with serving(make_dataset(tmp_path / "published").root, query_workers=1) as running:
        yield running.url


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


def test_client_works_without_the_pipeline(
    wheel: Path, environment: dict[str, str], service: str, tmp_path: Path
) -> None:
    packages = new_environment(tmp_path / "venv")
    commands = install(wheel, tmp_path / "venv")
    (metadata,) = packages.glob("music_assets-*.dist-info/METADATA")
    link_dependencies(message_from_string(metadata.read_text()).get_all("Requires-Dist", ()), packages)

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )

    code = f"""
from music_assets.client import MusicDB
print(MusicDB({service!r}).query("SELECT 40 + ? AS n", [2]).to_dicts())
"""
    answer = run(commands / "python", "-c", code)
    assert answer.stdout == "[{'n': 42}]\n", answer.stderr
    assert run(commands / "python", "-c", "import pandas").returncode == 1
    refused = run(commands / "music-assets", "tables")
    assert refused.returncode == 1
    assert "pip install 'music-assets[pipeline]'" in refused.stderr
    assert "Traceback" not in refused.stderr
