"""Fixtures of the tests that run commands in a plain shell, each on a data root of its own."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from music_assets.data_root import DataRoot
from music_assets_tests.support.processes import BIN, REPOSITORY, TIMEOUT, clean_environment

Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    """Return the data root of the command, which is new."""
    return DataRoot(tmp_path / "data")


@pytest.fixture
def shell(root: DataRoot) -> Shell:
    """Return a function that runs a command in the repository, whatever its exit code."""

    def run(
        command: str | Path, *arguments: object, timeout: float = TIMEOUT, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / command, *map(str, arguments)],
            cwd=REPOSITORY,
            env=clean_environment(root, **variables),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
