"""Made-up Last.fm data of any size, in the shape of the Kaggle set: what users listen to, and how it is written down.

Planted in it are genres, here called clusters: an artist belongs to one, a user prefers one to three, a country has
its own. An embedding worth its name finds them again. The words that names are composed of stand in `sample_words`.

Everything about an artist follows from the artist's number alone, so no table of artists is held, and each chunk of
users from the seed and the chunk's number alone, so a larger set begins with the rows of a smaller one.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from music_assets.sample_data.words import COUNTRIES, ENDINGS, GENRES, HOME_GENRES, SYLLABLES, TEMPLATES, WORLD_FAMOUS

ARTISTS_PER_USER = 50
CLUSTERS = tuple(GENRES)
"""Names of the planted clusters. A cluster's number is its place here."""

USERS_HEADER = b"user_id,country,total_scrobbles\n"
TOP_ARTISTS_HEADER = b"user_id,rank,artist_name,playcount,mbid\n"

_CHUNK = 4096
_IDS_PER_CHUNK = 4122
"""0.6 % more ids than users: the gaps of the Kaggle set."""

_LARGEST_USERS = (2**31 - 1) // _IDS_PER_CHUNK * _CHUNK
_KNOWN_PER_CLUSTER = 16
_ARTISTS_PER_CLUSTER = 2**20
_TAIL_EXPONENT = 0.57
_TAIL_SCALE = 20.0
"""An artist of the cluster comes after place x with probability (1 + x / scale) ** -exponent (a Lomax distribution):
chosen so that 399 users know about 8,000 artists and 500,000 users 800,000, as in the Kaggle set."""

_WORLD_FAMOUS_SHARE = 0.08
_NOISE_SHARE = 0.08
_NO_COUNTRY_SHARE = 1 / 3
_NO_MBID_PERCENT = 14

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Generated:
    """What `generate` wrote: good rows of each file, and on top of them bad rows, by the reason to reject them for."""

    users_csv: Path
    user_top_artists_csv: Path
    users: int
    user_top_artists: int
    user_reasons: dict[str, int]
    user_top_artist_reasons: dict[str, int]

    @property
    def bad_users(self) -> int:
        """Number of bad rows in `users.csv`."""
        return sum(self.user_reasons.values())

    @property
    def bad_user_top_artists(self) -> int:
        """Number of bad rows in `user_top_artists.csv`."""
        return sum(self.user_top_artist_reasons.values())


def generate(
    out_dir: Path, users: int, seed: int = 0, dirty: float = 0.0, progress: Callable[[int], None] | None = None
) -> Generated:
    """Write `users.csv` and `user_top_artists.csv` into `out_dir`, 50 artists a user.

    The same seed gives the same bytes. `dirty` is the share of each file's rows that are bad: they stand at random
    places between the good ones, which stay those of the clean files. `progress` is called with the number of users
    just written. The files get their names when they are whole.

    Raises ValueError where users, seed or dirty does not fit, OSError where the folder cannot be written to.
    """
    _check(users, seed, dirty)
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = (out_dir / "users.csv", out_dir / "user_top_artists.csv")
    parts = [path.with_name(path.name + ".part") for path in paths]
    with ExitStack() as stack:
        users_file, artists_file = (stack.enter_context(part.open("wb")) for part in parts)
        user_dirt, artist_dirt = _Dirt(_BAD_USERS, dirty), _Dirt(_BAD_TOP_ARTISTS, dirty)
        users_file.write(USERS_HEADER)
        artists_file.write(TOP_ARTISTS_HEADER)
        for number, size in _chunks(users):
            listeners = _listeners(seed, number)
            artists, playcounts = _top_artists(_rng(seed, number, "artists"), listeners)
            dirt_rng = _rng(seed, number, "dirt")
            user_dirt.write(users_file, _user_lines(listeners, playcounts, size), dirt_rng)
            artist_dirt.write(artists_file, _artist_lines(listeners.ids, artists, playcounts, size), dirt_rng)
            if progress is not None:
                progress(size)
    for part, path in zip(parts, paths, strict=True):
        part.replace(path)
    return Generated(*paths, users, users * ARTISTS_PER_USER, dict(user_dirt.reasons), dict(artist_dirt.reasons))


def user_clusters(users: int, seed: int = 0) -> dict[int, int]:
    """Return, for each user_id that `generate(users, seed)` writes, the number of the cluster the user prefers."""
    _check(users, seed, 0.0)
    found: dict[int, int] = {}
    for number, size in _chunks(users):
        listeners = _listeners(seed, number)
        found.update(zip(listeners.ids[:size].tolist(), listeners.clusters[:size, 0].tolist(), strict=True))
    return found


def artist_cluster(name: str) -> int:
    """Return the number of the cluster the artist of that generated name belongs to.

    Raises ValueError where the name is neither well known nor holds a word of any cluster.
    """
    known = _CLUSTER_OF_KNOWN.get(name)
    if known is not None:
        return known
    for word in reversed(re.findall(r"\w+", name)):
        if word in _CLUSTER_OF_WORD:
            return _CLUSTER_OF_WORD[word]
    raise ValueError(f"{name!r} is not the name of a generated artist.")


def artist_names(numbers: Ints) -> list[str]:
    """Return the names of the artists of these numbers, each 0 to 24 * 2**20 - 1. No two numbers share a name."""
    return _names(numbers, _PLAIN).to_pylist()


def _check(users: int, seed: int, dirty: float) -> None:
    if not 1 <= users <= _LARGEST_USERS:
        raise ValueError(f"users is {users}; give a number from 1 to {_LARGEST_USERS}.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; give 0 or more.")
    if not 0 <= dirty < 1:
        raise ValueError(f"dirty is {dirty}; give a share from 0 to below 1, such as 0.01.")


def _chunks(users: int) -> Iterator[tuple[int, int]]:
    """Yield number and size of each chunk of users."""
    for number, start in enumerate(range(0, users, _CHUNK)):
        yield number, min(_CHUNK, users - start)


def _rng(seed: int, chunk: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, chunk, ("listeners", "artists", "dirt").index(purpose)])


# ---- Users ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Listeners:
    """A chunk of users: ids, stated countries (the last number: none), and tastes.

    `clusters` (users x 3) are the preferred ones; a draw in 0..1 below `bounds[:, 0]` goes to the first, below
    `bounds[:, 1]` to the second, else to the third. `unheard` is what was played outside the top 50, as a multiple.
    """

    ids: Ints
    countries: Ints
    clusters: Ints
    bounds: Floats
    unheard: Floats


def _country_tastes() -> Floats:
    """Return, for each country, the cumulated weights of the clusters, ending in 1 (countries x clusters)."""
    countries = list(COUNTRIES)
    weights = np.tile([genre.weight for genre in GENRES.values()], (len(countries), 1))
    weights *= np.random.default_rng(0).uniform(0.6, 1.4, weights.shape)
    for genre, homes in HOME_GENRES.items():
        for country, factor in homes.items():
            weights[countries.index(country), CLUSTERS.index(genre)] *= factor
    cumulated = np.cumsum(weights, axis=1)
    return np.asarray(cumulated / cumulated[:, -1:])


_COUNTRY_TASTES = _country_tastes()
_COUNTRY_BOUNDS = np.cumsum(list(COUNTRIES.values())) / sum(COUNTRIES.values())
_COUNTRY_BOUNDS[-1] = 1.0
_BOUNDS_BY_BREADTH = np.array([[1.0, 1.0], [0.65, 1.0], [0.5, 0.8]])


def _listeners(seed: int, chunk: int) -> _Listeners:
    rng = _rng(seed, chunk, "listeners")
    ids = 1 + chunk * _IDS_PER_CHUNK + np.sort(rng.permutation(_IDS_PER_CHUNK)[:_CHUNK])
    homes = np.searchsorted(_COUNTRY_BOUNDS, rng.random(_CHUNK), side="right")
    stated = np.where(rng.random(_CHUNK) < _NO_COUNTRY_SHARE, len(COUNTRIES), homes)
    picks = rng.random((_CHUNK, 3, 1))
    clusters = (picks >= _COUNTRY_TASTES[homes][:, None, :]).sum(axis=2)
    breadth = np.searchsorted([0.45, 0.8], rng.random(_CHUNK))
    unheard = 0.6 * rng.lognormal(0.0, 0.8, _CHUNK)
    return _Listeners(ids, stated, clusters, _BOUNDS_BY_BREADTH[breadth], unheard)


# ---- What they listen to --------------------------------------------------------------------------------------------


def _world_famous() -> Ints:
    known = {name: number for number, name in enumerate(_KNOWN)}
    return np.array([known[name] for name in WORLD_FAMOUS])


_KNOWN = [genre.artists[place] for place in range(_KNOWN_PER_CLUSTER) for genre in GENRES.values()]
"""Artists 0 to 383. Artist n is of cluster n % 24, and has place n // 24 in it."""

_WORLD_FAMOUS = _world_famous()
_WORLD_FAMOUS_BOUNDS = np.cumsum(1 / (np.arange(len(_WORLD_FAMOUS)) + 8.0))
_WORLD_FAMOUS_BOUNDS /= _WORLD_FAMOUS_BOUNDS[-1]


def _top_artists(rng: np.random.Generator, listeners: _Listeners) -> tuple[Ints, Ints]:
    """Return artist numbers, distinct in a row, and playcounts, falling in a row (both users x 50)."""
    rows = np.repeat(np.arange(_CHUNK), ARTISTS_PER_USER)
    artists = _draw_artists(rng, listeners, rows).reshape(_CHUNK, ARTISTS_PER_USER)
    unsettled = np.arange(_CHUNK)
    while unsettled.size:
        row, place = _repeats(artists[unsettled])
        artists[unsettled[row], place] = _draw_artists(rng, listeners, unsettled[row])
        unsettled = unsettled[np.unique(row)]
    return _loved_first(rng, artists), _playcounts(rng)


def _draw_artists(rng: np.random.Generator, listeners: _Listeners, rows: Ints) -> Ints:
    """Draw one artist for each of `rows`, which are places in `listeners`."""
    kind = rng.random(rows.size)
    taste = (kind - _WORLD_FAMOUS_SHARE - _NOISE_SHARE) / (1 - _WORLD_FAMOUS_SHARE - _NOISE_SHARE)
    slot = (taste >= listeners.bounds[rows, 0]).astype(np.int64) + (taste >= listeners.bounds[rows, 1])
    cluster = listeners.clusters[rows, slot]
    noise = taste < 0
    cluster[noise] = rng.integers(len(CLUSTERS), size=int(noise.sum()))
    unit = 1 - rng.random(rows.size)
    place = np.minimum(_TAIL_SCALE * (unit ** (-1 / _TAIL_EXPONENT) - 1), 1e9).astype(np.int64)
    artists = place % _ARTISTS_PER_CLUSTER * len(CLUSTERS) + cluster
    famous = kind < _WORLD_FAMOUS_SHARE
    artists[famous] = _WORLD_FAMOUS[np.searchsorted(_WORLD_FAMOUS_BOUNDS, rng.random(int(famous.sum())))]
    return artists


def _repeats(artists: Ints) -> tuple[Ints, Ints]:
    """Return row and place of each artist that stands in the same row before."""
    key = np.sort((artists << 6) | np.arange(ARTISTS_PER_USER), axis=1)
    row, after = np.nonzero(key[:, 1:] >> 6 == key[:, :-1] >> 6)
    return row, key[row, after + 1] & 63


def _loved_first(rng: np.random.Generator, artists: Ints) -> Ints:
    """Order each row so that artists many listen to tend to come first, and by chance any other."""
    score = (artists // len(CLUSTERS) + 40) * rng.random(artists.shape) * 256
    order = np.sort(score.astype(np.int64) << 6 | np.arange(ARTISTS_PER_USER), axis=1) & 63
    return np.take_along_axis(artists, order, axis=1)


def _playcounts(rng: np.random.Generator) -> Ints:
    """Draw playcounts that fall with rank by a power law of each user's own, from 1 to 100,000."""
    loudest = rng.lognormal(np.log(2700.0), 1.2, (_CHUNK, 1))
    slope = np.clip(rng.normal(0.58, 0.12, (_CHUNK, 1)), 0.2, 1.0)
    ranks = np.arange(1.0, ARTISTS_PER_USER + 1)
    plays = loudest * ranks**-slope * rng.uniform(0.85, 1.15, (_CHUNK, ARTISTS_PER_USER))
    return np.clip(np.sort(plays, axis=1)[:, ::-1], 1, 100_000).astype(np.int64)


# ---- Names ----------------------------------------------------------------------------------------------------------


def _csv_field(text: str) -> str:
    """Return the field as RFC 4180 writes it: quoted only where needed."""
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if re.search(r'[",\r\n]', text) else text


class _NameParts:
    """The parts of names, as they are spelled or as a CSV file spells them."""

    def __init__(self, *, as_csv: bool) -> None:
        templates = [_template_parts(before, between, after, as_csv) for before, between, after, _ in TEMPLATES]
        self.before, self.between, self.after = (pa.array(part) for part in zip(*templates, strict=True))
        self.known = pa.array([_csv_field(name) if as_csv else name for name in _KNOWN])


def _template_parts(before: str, between: str, after: str, as_csv: bool) -> tuple[str, str, str]:
    if not as_csv:
        return before, between, after
    before, between, after = _csv_field(f"{before}\0{between}\0{after}").split("\0")
    return before, between, after


def _template_choices(indices: Sequence[int]) -> Ints:
    """Return 64 template numbers, each as often as its weight tells; what is missing to 64 is the first."""
    chosen = [index for index in indices for _ in range(TEMPLATES[index][3])]
    return np.array([indices[0]] * (64 - len(chosen)) + chosen)


_PLAIN = _NameParts(as_csv=False)
_AS_CSV = _NameParts(as_csv=True)
_SCRIPTS = tuple(SYLLABLES)
_SCRIPT_OF_CLUSTER = np.array([_SCRIPTS.index(genre.script) for genre in GENRES.values()])
_FIRST_SYLLABLES = pa.array([syllable.title() for script in _SCRIPTS for syllable in SYLLABLES[script]])
_SECOND_SYLLABLES = pa.array([syllable for script in _SCRIPTS for syllable in SYLLABLES[script]])
_ENDINGS = pa.array([ending for script in _SCRIPTS for ending in ENDINGS[script]])
_WORDS = pa.array([word for genre in GENRES.values() for word in genre.words])
_WITHOUT_LETTERS = [i for i, template in enumerate(TEMPLATES) if not re.search("[A-Za-z]", "".join(template[:3]))]
_LATIN_TEMPLATES = _template_choices(range(len(TEMPLATES)))
_OTHER_TEMPLATES = _template_choices(_WITHOUT_LETTERS)
_CLUSTER_OF_KNOWN = {name: number % len(CLUSTERS) for number, name in enumerate(_KNOWN)}
_CLUSTER_OF_WORD = {word: cluster for cluster, genre in enumerate(GENRES.values()) for word in genre.words}


def _names(numbers: Ints, parts: _NameParts) -> Any:
    """Return the artists' names as an Arrow array.

    The place in the cluster, shuffled by an odd factor (one to one modulo 2**20), picks word (3 bits), syllables (6
    and 6) and ending (5), so that names differ whatever the template.
    """
    place, cluster = np.divmod(numbers, len(CLUSTERS))
    script = _SCRIPT_OF_CLUSTER[cluster]
    bits = (place * 0x9E375 + cluster * 0x5BD1B) % _ARTISTS_PER_CLUSTER
    choice = (_hash(numbers) >> np.uint64(58)).astype(np.int64)
    template = np.where(script == 0, _LATIN_TEMPLATES[choice], _OTHER_TEMPLATES[choice])
    made_up = pc.binary_join_element_wise(
        parts.before.take(pa.array(template)),
        _FIRST_SYLLABLES.take(pa.array(script * 64 + (bits >> 3 & 63))),
        _SECOND_SYLLABLES.take(pa.array(script * 64 + (bits >> 9 & 63))),
        _ENDINGS.take(pa.array(script * 32 + (bits >> 15))),
        parts.between.take(pa.array(template)),
        _WORDS.take(pa.array(cluster * 8 + (bits & 7))),
        parts.after.take(pa.array(template)),
        "",
    )
    known = parts.known.take(pa.array(np.minimum(numbers, len(_KNOWN) - 1)))
    return pc.if_else(pa.array(numbers < len(_KNOWN)), known, made_up)


def _hash(numbers: Ints) -> npt.NDArray[np.uint64]:
    """Return 64 well mixed bits for each number (the finalizer of SplitMix64, Steele et al. 2014)."""
    bits = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(bits ^ (bits >> np.uint64(31)))


_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype="S2")
_HYPHENS = (8, 13, 18, 23)
_HEX_PLACES = [place for place in range(36) if place not in _HYPHENS]


def _mbid_lines(numbers: Ints) -> Any:
    """Return mbid and line feed for each artist, as an Arrow array: a version 4 UUID, or nothing for 14 % of them."""
    halves = np.stack([_hash(2 * numbers + 2**40), _hash(2 * numbers + 1 + 2**40)], axis=1)
    octets = halves.astype(">u8").view(np.uint8).reshape(-1, 16)
    octets[:, 6] = octets[:, 6] & 0x0F | 0x40
    octets[:, 8] = octets[:, 8] & 0x3F | 0x80
    text = np.full((numbers.size, 37), ord("-"), np.uint8)
    text[:, _HEX_PLACES] = _HEX[octets].view(np.uint8).reshape(-1, 32)
    text[:, 36] = ord("\n")
    offsets = np.arange(numbers.size + 1, dtype=np.int32) * 37
    mbids = pa.StringArray.from_buffers(numbers.size, pa.py_buffer(offsets), pa.py_buffer(text))
    return pc.if_else(pa.array(_hash(numbers) % np.uint64(100) < _NO_MBID_PERCENT), "\n", mbids)


# ---- Lines ----------------------------------------------------------------------------------------------------------
# Arrow's CSV writer would put every string in quotes, which the Kaggle files do not.

_COUNTRY_FIELDS = pa.array([*map(_csv_field, COUNTRIES), ""])
_RANKS = pa.array([str(rank) for rank in range(1, ARTISTS_PER_USER + 1)])


def _user_lines(listeners: _Listeners, playcounts: Ints, size: int) -> Any:
    totals = (playcounts.sum(axis=1) * (1 + listeners.unheard)).astype(np.int64)[:size]
    return pc.binary_join_element_wise(
        pa.array(listeners.ids[:size]).cast(pa.string()),
        _COUNTRY_FIELDS.take(pa.array(listeners.countries[:size])),
        pc.binary_join_element_wise(pa.array(totals).cast(pa.string()), "\n", ""),
        ",",
    )


def _artist_lines(ids: Ints, artists: Ints, playcounts: Ints, size: int) -> Any:
    encoded = pa.array(artists[:size].ravel()).dictionary_encode()
    numbers = encoded.dictionary.to_numpy()
    user = pa.array(np.repeat(np.arange(size), ARTISTS_PER_USER))
    rank = pa.array(np.tile(np.arange(ARTISTS_PER_USER), size))
    return pc.binary_join_element_wise(
        pa.array(ids[:size]).cast(pa.string()).take(user),
        _RANKS.take(rank),
        _names(numbers, _AS_CSV).take(encoded.indices),
        pa.array(playcounts[:size].ravel()).cast(pa.string()),
        _mbid_lines(numbers).take(encoded.indices),
        ",",
    )


# ---- Bad rows -------------------------------------------------------------------------------------------------------

Spoil = Callable[[list[str]], bytes]


def _line(fields: Sequence[str]) -> bytes:
    return ",".join(map(_csv_field, fields)).encode()


def _put(column: int, value: str) -> Spoil:
    """Put a value in place of the column's."""
    return lambda fields: _line([*fields[:column], value, *fields[column + 1 :]])


def _put_raw(column: int, value: bytes) -> Spoil:
    """Put bytes, which no quoting protects, in place of the column's value."""
    return lambda fields: b",".join(
        (*(_line([field]) for field in fields[:column]), value, *(_line([field]) for field in fields[column + 1 :]))
    )


_BAD_USERS: tuple[tuple[str, Spoil], ...] = (
    ("wrong number of fields", lambda fields: _line(fields[:-1])),
    ("broken quoting", _put_raw(1, b'"Germany" (West)')),
    ("invalid UTF-8", _put_raw(1, b"C\xf4te d'Ivoire")),
    ("not an integer", _put(0, "abc")),
    ("out of range", _put(0, str(2**31))),
    ("missing user_id", _put(0, "")),
    ("negative count", _put(2, "-1")),
    ("wrong number of fields", _put_raw(1, b"Congo, the Democratic Republic of the")),
    ("broken quoting", _put_raw(1, b'"Germany')),
    ("invalid UTF-8", _put_raw(1, b"\xff\xfe")),
    ("not an integer", _put(2, "3.7")),
    ("out of range", _put(2, str(2**63))),
    ("not an integer", _put(2, "1e3")),
    ("not an integer", _put(2, "12 plays")),
)
_BAD_TOP_ARTISTS: tuple[tuple[str, Spoil], ...] = (
    ("wrong number of fields", lambda fields: _line(fields[:-1])),
    ("broken quoting", _put_raw(2, b'"Weird Al" Yankovic')),
    ("invalid UTF-8", _put_raw(2, b"Bj\xf6rk")),
    ("not an integer", _put(3, "3.7")),
    ("out of range", _put(3, str(2**63))),
    ("rank outside 1 to 50", _put(1, "51")),
    ("missing user_id", _put(0, "")),
    ("missing artist_name", _put(2, "")),
    ("negative count", _put(3, "-5")),
    ("wrong number of fields", _put_raw(2, b"Tyler, the Creator")),
    ("broken quoting", _put_raw(2, b'"Broken Quote')),
    ("invalid UTF-8", _put_raw(2, b"Sigur R\xc3")),
    ("not an integer", _put(3, "abc")),
    ("out of range", _put(0, str(2**31))),
    ("rank outside 1 to 50", _put(1, "0")),
    ("missing artist_name", _put(2, "   ")),
    ("not an integer", _put(3, "1e3")),
    ("not an integer", _put(1, "first")),
    ("not an integer", _put(0, "7.0")),
    ("rank outside 1 to 50", _put(1, "-1")),
)
"""The reason for which a row is to be rejected, and how a good one is spoiled so. Used in turn."""


class _Dirt:
    """Writes the lines of one file, and between them the bad rows that are due. Counts those by reason."""

    def __init__(self, kinds: Sequence[tuple[str, Spoil]], share: float) -> None:
        self.kinds = kinds
        self.per_good_row = share / (1 - share)
        self.good = 0
        self.reasons = Counter[str]()

    def write(self, file: BinaryIO, lines: Any, rng: np.random.Generator) -> None:
        """Write the Arrow array of lines."""
        _, offset_buffer, text = lines.buffers()
        offsets = np.frombuffer(offset_buffer, np.int32)
        self.good += len(lines)
        written = self.reasons.total()
        due = round(self.good * self.per_good_row) - written
        done = 0
        places = np.sort(rng.integers(len(lines), size=due)).tolist()
        for number, place in enumerate(places, start=written):
            file.write(text[done : offsets[place]])
            done = offsets[place]
            fields = next(csv.reader(io.StringIO(lines[place].as_py())))
            reason, spoil = self.kinds[number % len(self.kinds)]
            file.write(spoil(fields) + b"\n")
            self.reasons[reason] += 1
        file.write(text[done : offsets[len(lines)]])
