"""What the stories of kills are held against."""

import pytest

from music_assets_tests.faults.story import Undisturbed

SEED = 6


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Two drops into a data root where no run is killed. To be left as it is."""
    return Undisturbed.made(tmp_path_factory.mktemp("undisturbed"), SEED, 2)
