"""The vector of a user by numpy's least squares, with one row for each artist and each dimension."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

DIMENSIONS = [f"dim_{number}" for number in range(50)]


def user_of(artists: pd.DataFrame, plays: Mapping[str, int]) -> np.ndarray:
    """Return the vector of the user who played these artists; `artists` is artist_embedding by name.

    With p plays and n listeners, w = round(1 + log10 p), and an artist weighs 2 w / (w + 1) times n ** 0.6 / (n + 2),
    relative to the mean of the latter over all pairs. The list is divided by the root of its sum.
    """
    listeners = artists["listeners"].astype(float)
    of_artists = listeners**0.6 / (listeners + 2)
    of_artists /= (of_artists * listeners).sum() / listeners.sum()
    counted = np.array([round(1 + np.log10(count)) for count in plays.values()])
    weights = 2 * counted / (counted + 1) * of_artists.loc[list(plays)].to_numpy()
    listed = artists.loc[list(plays), DIMENSIONS].to_numpy()
    everyone = artists[DIMENSIONS].to_numpy()
    scale = np.sqrt(np.r_[weights / np.sqrt(weights.sum()), np.full(len(everyone), 0.02), np.full(50, 0.7)])
    target = np.r_[np.ones(len(listed)), np.zeros(len(everyone) + 50)]
    return np.linalg.lstsq(np.vstack([listed, everyone, np.eye(50)]) * scale[:, None], target * scale)[0]
