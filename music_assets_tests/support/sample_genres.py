"""The genres of generated data: which one a user prefers, and to which one an artist belongs."""

import csv
import re

import numpy as np

from music_assets.sample_data.generator import CHUNK_USERS, draw_listeners
from music_assets.sample_data.names import GENRES, KNOWN_ARTISTS, Ints, artist_fields

GENRE_OF_KNOWN_ARTIST = {name: number % len(GENRES) for number, name in enumerate(KNOWN_ARTISTS)}
GENRE_OF_WORD = {word: number for number, genre in enumerate(GENRES) for word in genre["words"]}


def user_genres(users: int, seed: int = 0) -> dict[int, int]:
    """Return the number of the genre that each user of `generate(folder, users, seed)` prefers, by user_id."""
    chunks = [draw_listeners(seed, chunk) for chunk in range(-(-users // CHUNK_USERS))]
    ids = np.concatenate([chunk.ids for chunk in chunks])[:users]
    return dict(zip(ids.tolist(), np.concatenate([chunk.genres[:, 0] for chunk in chunks]).tolist(), strict=False))


def artist_genre(name: str) -> int:
    """Return the number of the genre of an artist. Raises KeyError if the name was not generated."""
    if name in GENRE_OF_KNOWN_ARTIST:
        return GENRE_OF_KNOWN_ARTIST[name]
    words = [word for word in re.findall(r"\w+", name) if word in GENRE_OF_WORD]
    return GENRE_OF_WORD[words[-1] if words else name]


def artist_names(artists: Ints) -> list[str]:
    """Return the names of artists, without the quotes of a CSV file."""
    return [name for (name,) in csv.reader(artist_fields(artists).to_pylist())]
