"""The commands as a person types them: in a plain shell, each over a data root of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PATIENCE = 120
"""Seconds after which a command that has not ended is taken to hang."""

Shell = Callable[..., subprocess.CompletedProcess[str]]


def plain_environment(root: Path, **more: str) -> dict[str, str]:
    """The environment without any setting of Dagster or of this project but the data root."""
    foreign = ("DAGSTER", "MUSIC_ASSETS", "DG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "MUSIC_ASSETS_DATA": str(root), "COLUMNS": "200", "PYTHONPATH": str(REPOSITORY), **more}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Run a command in the repository to its end, whatever its exit code."""

    def run(
        command: str, *arguments: object, patience: float = PATIENCE, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / command, *map(str, arguments)],
            cwd=REPOSITORY,
            env=plain_environment(tmp_path / "data", **environment),
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
        )

    return run
