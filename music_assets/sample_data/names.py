"""Artists of the generated data: name and MusicBrainz id, both determined by the number of the artist.

Artist n belongs to genre n % 24 and has place n // 24 among its artists, by popularity. The first 16 artists of each
genre are well known; the name of any other is composed of words of its genre.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]

WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
GENRES = list(WORDS["genres"].values())
KNOWN_ARTISTS_PER_GENRE = 16
KNOWN_ARTISTS = [genre["artists"][place] for place in range(KNOWN_ARTISTS_PER_GENRE) for genre in GENRES]
"""Names of the well-known artists, by number."""
ARTISTS_PER_GENRE = 2**20
PERCENT_WITHOUT_MBID = 14


def csv_field(text: str) -> str:
    """Return a field of a CSV file, quoted only where RFC 4180 requires it."""
    return '"{}"'.format(text.replace('"', '""')) if re.search(r'[",\r\n]', text) else text


def _template_numbers(allowed: Sequence[int]) -> Ints:
    """Return 64 template numbers in which each allowed template occurs by its weight, and the first fills the rest."""
    chosen = [number for number in allowed for _ in range(WORDS["templates"][number][3])]
    return np.array([allowed[0]] * (64 - len(chosen)) + chosen)


_TEMPLATES = ["".join(template[:3]) for template in WORDS["templates"]]
_BEFORE, _BETWEEN, _AFTER = (
    pa.array(parts)
    for parts in zip(*(csv_field("\0".join(parts)).split("\0") for *parts, _ in WORDS["templates"]), strict=True)
)
_ANY_TEMPLATE = _template_numbers(range(len(_TEMPLATES)))
_TEMPLATES_WITHOUT_LETTERS = _template_numbers(
    [number for number, template in enumerate(_TEMPLATES) if not re.search("[A-Za-z]", template)]
)
_SCRIPTS = list(WORDS["scripts"])
_GENRE_SCRIPTS = np.array([_SCRIPTS.index(genre["script"]) for genre in GENRES])
_SYLLABLES = pa.array([syllable for script in WORDS["scripts"].values() for syllable in script["syllables"]])
_FIRST_SYLLABLES = pa.array([syllable.title() for syllable in _SYLLABLES.to_pylist()])
_ENDINGS = pa.array([ending for script in WORDS["scripts"].values() for ending in script["endings"]])
_GENRE_WORDS = pa.array([word for genre in GENRES for word in genre["words"]])
_KNOWN_FIELDS = pa.array(map(csv_field, KNOWN_ARTISTS))


def artist_fields(artists: Ints) -> pa.Array:
    """Return the names of artists as fields of a CSV file. No two artists have the same name.

    The place in the genre, multiplied by an odd number modulo 2**20 (a bijection), selects word (3 bits), first and
    second syllable (6 bits each) and ending (5 bits).
    """
    place, genre = np.divmod(artists, len(GENRES))
    script = _GENRE_SCRIPTS[genre]
    bits = (place * 0x9E375 + genre * 0x5BD1B) % ARTISTS_PER_GENRE
    choice = (_hash(artists) >> np.uint64(58)).astype(np.int64)
    template = pa.array(np.where(script == 0, _ANY_TEMPLATE[choice], _TEMPLATES_WITHOUT_LETTERS[choice]))
    composed = pc.binary_join_element_wise(
        _BEFORE.take(template),
        _FIRST_SYLLABLES.take(pa.array(script * 64 + (bits >> 3 & 63))),
        _SYLLABLES.take(pa.array(script * 64 + (bits >> 9 & 63))),
        _ENDINGS.take(pa.array(script * 32 + (bits >> 15))),
        _BETWEEN.take(template),
        _GENRE_WORDS.take(pa.array(genre * 8 + (bits & 7))),
        _AFTER.take(template),
        "",
    )
    known = _KNOWN_FIELDS.take(pa.array(np.minimum(artists, len(KNOWN_ARTISTS) - 1)))
    return pc.if_else(pa.array(artists < len(KNOWN_ARTISTS)), known, composed)


_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype="S2")
_HEX_POSITIONS = [position for position in range(36) if position not in (8, 13, 18, 23)]


def mbids(artists: Ints) -> pa.Array:
    """Return the MusicBrainz ids of artists, random UUIDs (version 4); empty for 14 % of the artists."""
    halves = np.stack([_hash(2 * artists + 2**40), _hash(2 * artists + 1 + 2**40)], axis=1)
    octets = halves.astype(">u8").view(np.uint8).reshape(-1, 16)
    octets[:, 6] = octets[:, 6] & 0x0F | 0x40
    octets[:, 8] = octets[:, 8] & 0x3F | 0x80
    text = np.full((artists.size, 36), ord("-"), np.uint8)
    text[:, _HEX_POSITIONS] = _HEX[octets].view(np.uint8).reshape(-1, 32)
    offsets = np.arange(artists.size + 1, dtype=np.int32) * 36
    uuids = pa.StringArray.from_buffers(artists.size, pa.py_buffer(offsets), pa.py_buffer(text))
    return pc.if_else(pa.array(_hash(artists) % np.uint64(100) < PERCENT_WITHOUT_MBID), "", uuids)


def _hash(numbers: Ints) -> npt.NDArray[np.uint64]:
    """Return 64 pseudo-random bits for each number (the finalizer of SplitMix64, Steele et al. 2014)."""
    bits = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(bits ^ (bits >> np.uint64(31)))
