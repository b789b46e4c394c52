"""Fixtures of the fault tests."""

from pathlib import Path

import pytest

from music_assets_tests.faults.deployment import Deployment
from music_assets_tests.faults.scenario import Baseline, Scenario

SEED = 6


@pytest.fixture(scope="session")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    """Return three drops and the states they lead to where no run is killed; read only."""
    return Baseline.create(tmp_path_factory.mktemp("baseline"), SEED, 3)


@pytest.fixture
def scenario(baseline: Baseline, tmp_path: Path) -> Scenario:
    """Return an empty data root for the same drops."""
    return Scenario(Deployment.create(tmp_path), baseline)
