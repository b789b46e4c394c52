"""Real Last.fm rows, which are not part of the repository."""

import os
from pathlib import Path

import pytest


def real_rows(name: str) -> Path:
    """Return the folder of a data set, with `users.csv` and `user_top_artists.csv`; skip the test where there is none.

    `kaggle399` has 399 users of the Kaggle data set, `hetrec2k` those of HetRec 2011.
    """
    folder = Path(os.environ.get("MUSIC_ASSETS_REAL_DATA", "")) / name
    if not folder.is_dir():
        pytest.skip(f"{folder.absolute()} is missing: set MUSIC_ASSETS_REAL_DATA to the folder that holds {name}")
    return folder
