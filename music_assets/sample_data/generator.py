"""Generate Last.fm data of any size in the shape of the Kaggle data set.

The data contains structure that embeddings can recover: every artist belongs to one genre, every user prefers up to
three genres, and every country has its own mix of genres. Each chunk of users depends on the seed and the number of the
chunk only, so memory is constant and a larger data set begins with the rows of a smaller one.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from music_assets.data_root import durable_write
from music_assets.sample_data.bad_rows import TOP_ARTIST_DEFECTS, USER_DEFECTS, DirtyWriter
from music_assets.sample_data.names import (
    ARTISTS_PER_GENRE,
    GENRES,
    KNOWN_ARTISTS,
    WORDS,
    Ints,
    artist_fields,
    csv_field,
    mbids,
)

ARTISTS_PER_USER = 50
CHUNK_USERS = 4096
IDS_PER_CHUNK = 4122
"""0.6 % more ids than users, as in the Kaggle data set."""
MAXIMUM_USERS = (2**31 - 1) // IDS_PER_CHUNK * CHUNK_USERS

TAIL_EXPONENT = 0.57
TAIL_SCALE = 20.0
"""Popularity within a genre follows a Lomax distribution: an artist beyond place x is drawn with the probability
(1 + x / scale) ** -exponent. As in the Kaggle data set, 399 users listen to 8,000 artists, 500,000 users to 800,000."""

WORLD_FAMOUS_SHARE = 0.08
RANDOM_GENRE_SHARE = 0.08
NO_COUNTRY_SHARE = 1 / 3
RARE_COUNTRY_WEIGHT = 0.1

Floats = npt.NDArray[np.float64]


class SampleFiles(NamedTuple):
    """The generated files."""

    users_csv: Path
    user_top_artists_csv: Path


def generate(
    folder: Path, users: int, seed: int = 0, dirty: float = 0.0, progress: Callable[[int], None] | None = None
) -> SampleFiles:
    """Write `users.csv` and `user_top_artists.csv`, with 50 artists per user. The same seed gives the same bytes.

    `dirty` is the share of bad rows in each file; the good rows are those of the clean file. `progress` is called with
    the number of users of each chunk written. Raises ValueError if an argument is out of range, and OSError if the
    folder cannot be written to.
    """
    _check_arguments(users, seed, dirty)
    folder.mkdir(parents=True, exist_ok=True)
    files = SampleFiles(folder / "users.csv", folder / "user_top_artists.csv")
    with ExitStack() as stack:
        user_file, artist_file = (stack.enter_context(durable_write(path)) for path in files)
        user_file.write(b"user_id,country,total_scrobbles\n")
        artist_file.write(b"user_id,rank,artist_name,playcount,mbid\n")
        user_writer = DirtyWriter(user_file, USER_DEFECTS, dirty)
        artist_writer = DirtyWriter(artist_file, TOP_ARTIST_DEFECTS, dirty)
        for chunk, start in enumerate(range(0, users, CHUNK_USERS)):
            listeners = draw_listeners(seed, chunk)
            artists, playcounts = _draw_top_artists(_rng(seed, chunk, "artists"), listeners)
            size = min(CHUNK_USERS, users - start)
            defect_rng = _rng(seed, chunk, "defects")
            user_writer.write(_user_lines(listeners, playcounts)[:size], defect_rng)
            artist_writer.write(_artist_lines(listeners.ids[:size], artists[:size], playcounts[:size]), defect_rng)
            if progress is not None:
                progress(size)
    return files


def _check_arguments(users: int, seed: int, dirty: float) -> None:
    if not 1 <= users <= MAXIMUM_USERS:
        raise ValueError(f"users is {users}; it must be between 1 and {MAXIMUM_USERS}.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must not be negative.")
    if not 0 <= dirty < 1:
        raise ValueError(f"dirty is {dirty}; it must be a share from 0 to below 1, such as 0.01.")


def _rng(seed: int, chunk: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, chunk, ("listeners", "artists", "defects").index(purpose)])


@dataclass(frozen=True)
class Listeners:
    """A chunk of users: ids, countries (the last number: none), and tastes.

    `genres` (users x 3) are the preferred genres. A draw between 0 and 1 below `bounds[:, 0]` selects the first, below
    `bounds[:, 1]` the second, else the third. `unlisted` is the number of plays of artists outside the top 50, relative
    to those in it.
    """

    ids: Ints
    countries: Ints
    genres: Ints
    bounds: Floats
    unlisted: Floats


_COUNTRIES = WORDS["countries"] | dict.fromkeys(WORDS["rare_countries"], RARE_COUNTRY_WEIGHT)
_COUNTRY_BOUNDS = np.cumsum(list(_COUNTRIES.values())) / sum(_COUNTRIES.values())
_COUNTRY_BOUNDS[-1] = 1.0
_BOUNDS_BY_BREADTH = np.array([[1.0, 1.0], [0.65, 1.0], [0.5, 0.8]])


def _genre_bounds() -> Floats:
    """Return the cumulated shares of the genres in each country (countries x genres)."""
    countries, genres = list(_COUNTRIES), list(WORDS["genres"])
    weights = np.tile([genre["weight"] for genre in GENRES], (len(countries), 1))
    weights *= np.random.default_rng(0).uniform(0.6, 1.4, weights.shape)
    for genre, factors in WORDS["home_genres"].items():
        for country, factor in factors.items():
            weights[countries.index(country), genres.index(genre)] *= factor
    cumulated = np.cumsum(weights, axis=1)
    return np.asarray(cumulated / cumulated[:, -1:])


_GENRE_BOUNDS = _genre_bounds()


def draw_listeners(seed: int, chunk: int) -> Listeners:
    """Return a whole chunk of users."""
    rng = _rng(seed, chunk, "listeners")
    ids = 1 + chunk * IDS_PER_CHUNK + np.sort(rng.permutation(IDS_PER_CHUNK)[:CHUNK_USERS])
    homes = np.searchsorted(_COUNTRY_BOUNDS, rng.random(CHUNK_USERS), side="right")
    countries = np.where(rng.random(CHUNK_USERS) < NO_COUNTRY_SHARE, len(_COUNTRIES), homes)
    draws = rng.random((CHUNK_USERS, 3, 1))
    genres = (draws >= _GENRE_BOUNDS[homes][:, None, :]).sum(axis=2)
    breadth = np.searchsorted([0.45, 0.8], rng.random(CHUNK_USERS))
    unlisted = 0.6 * rng.lognormal(0.0, 0.8, CHUNK_USERS)
    return Listeners(ids, countries, genres, _BOUNDS_BY_BREADTH[breadth], unlisted)


_WORLD_FAMOUS = np.array([KNOWN_ARTISTS.index(name) for name in WORDS["world_famous"]])
_WORLD_FAMOUS_BOUNDS = np.cumsum(1 / (np.arange(len(_WORLD_FAMOUS)) + 8.0))
_WORLD_FAMOUS_BOUNDS /= _WORLD_FAMOUS_BOUNDS[-1]


def _draw_top_artists(rng: np.random.Generator, listeners: Listeners) -> tuple[Ints, Ints]:
    """Return artist numbers, without repeats in a row, and descending playcounts (both users x 50)."""
    rows = np.repeat(np.arange(CHUNK_USERS), ARTISTS_PER_USER)
    artists = _draw_artists(rng, listeners, rows).reshape(CHUNK_USERS, ARTISTS_PER_USER)
    unfinished = np.arange(CHUNK_USERS)
    while unfinished.size:
        row, place = _repeats(artists[unfinished])
        artists[unfinished[row], place] = _draw_artists(rng, listeners, unfinished[row])
        unfinished = unfinished[np.unique(row)]
    return _popular_first(rng, artists), _draw_playcounts(rng)


def _draw_artists(rng: np.random.Generator, listeners: Listeners, rows: Ints) -> Ints:
    """Draw an artist for each of `rows`, which are positions in `listeners`."""
    kind = rng.random(rows.size)
    taste = (kind - WORLD_FAMOUS_SHARE - RANDOM_GENRE_SHARE) / (1 - WORLD_FAMOUS_SHARE - RANDOM_GENRE_SHARE)
    slot = (taste >= listeners.bounds[rows, 0]).astype(np.int64) + (taste >= listeners.bounds[rows, 1])
    genre = listeners.genres[rows, slot]
    random = taste < 0
    genre[random] = rng.integers(len(GENRES), size=int(random.sum()))
    unit = 1 - rng.random(rows.size)
    place = np.minimum(TAIL_SCALE * (unit ** (-1 / TAIL_EXPONENT) - 1), 1e9).astype(np.int64)
    artists = place % ARTISTS_PER_GENRE * len(GENRES) + genre
    famous = kind < WORLD_FAMOUS_SHARE
    artists[famous] = _WORLD_FAMOUS[np.searchsorted(_WORLD_FAMOUS_BOUNDS, rng.random(int(famous.sum())))]
    return artists


def _repeats(artists: Ints) -> tuple[Ints, Ints]:
    """Return row and column of each artist that occurs earlier in its row."""
    key = np.sort((artists << 6) | np.arange(ARTISTS_PER_USER), axis=1)
    row, after = np.nonzero(key[:, 1:] >> 6 == key[:, :-1] >> 6)
    return row, key[row, after + 1] & 63


def _popular_first(rng: np.random.Generator, artists: Ints) -> Ints:
    """Sort each row so that popular artists tend to come first."""
    score = (artists // len(GENRES) + 40) * rng.random(artists.shape) * 256
    order = np.sort(score.astype(np.int64) << 6 | np.arange(ARTISTS_PER_USER), axis=1) & 63
    return np.take_along_axis(artists, order, axis=1)


def _draw_playcounts(rng: np.random.Generator) -> Ints:
    """Draw playcounts from 1 to 100,000 that decrease with the rank by a power law of each user."""
    highest = rng.lognormal(np.log(2700.0), 1.2, (CHUNK_USERS, 1))
    slope = np.clip(rng.normal(0.58, 0.12, (CHUNK_USERS, 1)), 0.2, 1.0)
    ranks = np.arange(1.0, ARTISTS_PER_USER + 1)
    plays = highest * ranks**-slope * rng.uniform(0.85, 1.15, (CHUNK_USERS, ARTISTS_PER_USER))
    return np.clip(np.sort(plays, axis=1)[:, ::-1], 1, 100_000).astype(np.int64)


# The lines are joined here because Arrow's CSV writer quotes every string, which the Kaggle files do not.

_COUNTRY_FIELDS = pa.array([*map(csv_field, _COUNTRIES), ""])
_RANKS = pa.array([str(rank) for rank in range(1, ARTISTS_PER_USER + 1)])


def _lines(*columns: pa.Array) -> pa.Array:
    *others, last = columns
    return pc.binary_join_element_wise(*others, pc.binary_join_element_wise(last, "\n", ""), ",")


def _text(numbers: Ints) -> pa.Array:
    return pa.array(numbers).cast(pa.string())


def _user_lines(listeners: Listeners, playcounts: Ints) -> pa.Array:
    totals = (playcounts.sum(axis=1) * (1 + listeners.unlisted)).astype(np.int64)
    return _lines(_text(listeners.ids), _COUNTRY_FIELDS.take(pa.array(listeners.countries)), _text(totals))


def _artist_lines(ids: Ints, artists: Ints, playcounts: Ints) -> pa.Array:
    encoded = pa.array(artists.ravel()).dictionary_encode()
    numbers = encoded.dictionary.to_numpy()
    return _lines(
        _text(ids).take(pa.array(np.repeat(np.arange(ids.size), ARTISTS_PER_USER))),
        _RANKS.take(pa.array(np.tile(np.arange(ARTISTS_PER_USER), ids.size))),
        artist_fields(numbers).take(encoded.indices),
        _text(playcounts.ravel()),
        mbids(numbers).take(encoded.indices),
    )
