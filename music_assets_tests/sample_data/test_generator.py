"""Generated data: its shape, its reproducibility, the structure in it, and its bad rows."""

import csv
import io
import re
import statistics
import tracemalloc
import uuid
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from music_assets.sample_data.generator import SampleFiles, generate
from music_assets.sample_data.names import GENRES
from music_assets_tests.support.real_data import real_rows
from music_assets_tests.support.sample_genres import artist_genre, artist_names, user_genres

USERS = 4500
REASONS_FOR_BOTH = {
    "wrong number of fields",
    "broken quoting",
    "invalid UTF-8",
    "not an integer",
    "out of range",
    "missing user_id",
    "negative count",
}


class Sample(NamedTuple):
    """A generated data set, read back with the standard library."""

    files: SampleFiles
    users: list[dict[str, str]]
    top_artists: list[dict[str, str]]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    files = generate(tmp_path_factory.mktemp("sample"), USERS, seed=7)
    return Sample(files, *map(read, files))


def top_artists_by_user(sample: Sample) -> dict[int, list[dict[str, str]]]:
    lists = defaultdict(list)
    for row in sample.top_artists:
        lists[int(row["user_id"])].append(row)
    return lists


def contents(files: SampleFiles) -> list[bytes]:
    return [path.read_bytes() for path in files]


# ---- Shape ----------------------------------------------------------------------------------------------------------


def test_both_files_are_written_and_nothing_else(sample: Sample) -> None:
    assert [path.name for path in sample.files] == ["users.csv", "user_top_artists.csv"]
    assert set(sample.files[0].parent.iterdir()) == set(sample.files)
    assert (len(sample.users), len(sample.top_artists)) == (USERS, USERS * 50)


def test_quotes_only_where_needed(sample: Sample) -> None:
    """Python's csv module with minimal quoting writes the same bytes."""
    for path, rows in zip(sample.files, (sample.users, sample.top_artists), strict=True):
        again = io.StringIO()
        writer = csv.DictWriter(again, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        assert path.read_bytes() == again.getvalue().encode()


def test_columns_have_the_order_of_the_kaggle_data_set(sample: Sample) -> None:
    assert list(sample.users[0]) == ["user_id", "country", "total_scrobbles"]
    assert list(sample.top_artists[0]) == ["user_id", "rank", "artist_name", "playcount", "mbid"]


def test_user_ids_ascend_with_gaps(sample: Sample) -> None:
    ids = [int(row["user_id"]) for row in sample.users]
    assert ids == sorted(set(ids))
    assert USERS < ids[-1] < USERS * 1.02


def test_every_user_has_50_artists_by_descending_playcount(sample: Sample) -> None:
    lists = top_artists_by_user(sample)
    assert list(lists) == [int(row["user_id"]) for row in sample.users]
    for rows in lists.values():
        assert [int(row["rank"]) for row in rows] == list(range(1, 51))
        assert len({row["artist_name"] for row in rows}) == 50
        counts = [int(row["playcount"]) for row in rows]
        assert counts == sorted(counts, reverse=True)
        assert 1 <= counts[-1] <= counts[0] <= 100_000


def test_total_scrobbles_include_the_plays_of_the_top_artists(sample: Sample) -> None:
    lists = top_artists_by_user(sample)
    for row in sample.users:
        top = sum(int(artist["playcount"]) for artist in lists[int(row["user_id"])])
        assert top <= int(row["total_scrobbles"]) < 100 * top


def test_statistics_resemble_the_kaggle_sample(tmp_path: Path) -> None:
    """Number of artists, median playcount of the first artist, and share of missing mbids."""
    real = read(real_rows("kaggle399") / "user_top_artists.csv")
    generated = read(generate(tmp_path, 399).user_top_artists_csv)

    def statistics_of(rows: list[dict[str, str]]) -> tuple[int, float, float]:
        artists = {row["artist_name"] for row in rows}
        firsts = statistics.median(int(row["playcount"]) for row in rows if row["rank"] == "1")
        return len(artists), firsts, sum(not row["mbid"] for row in rows) / len(rows)

    assert statistics_of(generated) == (
        pytest.approx(statistics_of(real)[0], rel=0.2),
        pytest.approx(statistics_of(real)[1], rel=0.4),
        pytest.approx(statistics_of(real)[2], abs=0.05),
    )


# ---- Reproducibility -----------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second, other = (generate(tmp_path / name, 300, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert contents(first) == contents(second)
    assert contents(first)[0] != contents(other)[0]
    assert contents(first)[1] != contents(other)[1]


def test_larger_data_set_begins_with_the_smaller(sample: Sample, tmp_path: Path) -> None:
    for whole, part in zip(contents(sample.files), contents(generate(tmp_path, 4200, seed=7)), strict=True):
        assert whole.startswith(part)


def test_progress_is_reported_in_users(tmp_path: Path) -> None:
    written: list[int] = []
    generate(tmp_path, 5000, progress=written.append)
    assert len(written) > 1
    assert sum(written) == 5000


def test_memory_is_independent_of_the_number_of_users(tmp_path: Path) -> None:
    def peaks(users: int) -> tuple[int, int]:
        tracemalloc.start()
        generate(tmp_path, users)
        python = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return python, pa.default_memory_pool().max_memory()

    fewer, more = peaks(10_000), peaks(30_000)
    assert more[0] < 1.1 * fewer[0]
    assert more[1] < 1.1 * fewer[1]


@pytest.mark.parametrize(
    ("users", "seed", "dirty", "message"),
    [(0, 0, 0.0, "users is 0"), (5, -1, 0.0, "seed is -1"), (5, 0, 1.0, "dirty is 1.0"), (5, 0, -0.1, "dirty is -0.1")],
)
def test_invalid_arguments_are_refused(tmp_path: Path, users: int, seed: int, dirty: float, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        generate(tmp_path / "out", users, seed, dirty)
    assert not (tmp_path / "out").exists()


# ---- Structure -----------------------------------------------------------------------------------------------------


def test_a_third_of_the_users_have_no_country(sample: Sample) -> None:
    assert sum(not row["country"] for row in sample.users) / USERS == pytest.approx(1 / 3, abs=0.02)


def test_countries_are_skewed_and_germany_is_among_the_largest(sample: Sample) -> None:
    countries = Counter(row["country"] for row in sample.users if row["country"])
    assert countries.most_common(1)[0][0] == "United States"
    assert countries["Germany"] > 0.06 * countries.total()
    assert len(countries) > 80
    assert sum("," in country for country in countries) > 0
    assert Counter(row["country"] for row in sample.users[:1000])["Germany"] > 30


def test_names_cover_scripts_quotes_and_separators(sample: Sample) -> None:
    names = {row["artist_name"] for row in sample.top_artists}
    known = {
        "Drake",
        "Tyler, the Creator",
        "Earth, Wind & Fire",
        '"Weird Al" Yankovic',
        "Sigur Rós",
        "宇多田ヒカル",
        "Кино",
    }
    assert known <= names
    composed = names - set(artist_names(np.arange(384)))
    assert len(composed) > 0.9 * len(names)
    for kind in (",", '"', "&", "[а-я]", "[ぁ-ん]", "[가-힣]", "é"):
        assert any(re.search(kind, name) for name in composed), kind


def test_drake_has_listeners_in_many_countries(sample: Sample) -> None:
    country = {row["user_id"]: row["country"] for row in sample.users[:1000]}
    heard = {country.get(row["user_id"], "") for row in sample.top_artists if row["artist_name"] == "Drake"} - {""}
    assert len(heard) >= 20


def test_popularity_has_a_long_tail(sample: Sample) -> None:
    listeners = Counter(row["artist_name"] for row in sample.top_artists)
    assert listeners.most_common(1)[0][1] > 0.15 * USERS
    assert 20_000 < len(listeners) < 70_000
    assert sum(count == 1 for count in listeners.values()) > 0.5 * len(listeners)


def test_countries_differ_in_taste(sample: Sample) -> None:
    country = {row["user_id"]: row["country"] for row in sample.users}
    rows = Counter(country[row["user_id"]] for row in sample.top_artists)
    rammstein = Counter(country[row["user_id"]] for row in sample.top_artists if row["artist_name"] == "Rammstein")
    assert rammstein["Germany"] / rows["Germany"] > 2 * rammstein["United States"] / rows["United States"]


def test_an_artist_always_has_the_same_mbid(sample: Sample, tmp_path: Path) -> None:
    mbids = defaultdict(set)
    for row in [*sample.top_artists, *read(generate(tmp_path, 500, seed=8).user_top_artists_csv)]:
        mbids[row["artist_name"]].add(row["mbid"])
    assert all(len(found) == 1 for found in mbids.values())
    filled = [mbid for found in mbids.values() for mbid in found if mbid]
    assert len(set(filled)) == len(filled)
    assert all(str(uuid.UUID(mbid)) == mbid and uuid.UUID(mbid).version == 4 for mbid in filled)
    assert 1 - len(filled) / len(mbids) == pytest.approx(0.14, abs=0.02)


def test_names_are_unique_and_determine_the_genre() -> None:
    """The most and the least popular artists."""
    numbers = np.concatenate([np.arange(60_000), 24 * 2**20 - 1 - np.arange(60_000)])
    names = artist_names(numbers)
    assert len(set(names)) == len(names)
    assert [artist_genre(name) for name in names] == (numbers % len(GENRES)).tolist()


def test_users_listen_to_the_genre_they_prefer(sample: Sample) -> None:
    preferred = user_genres(USERS, seed=7)
    lists = top_artists_by_user(sample)
    assert list(preferred) == list(lists)
    shares = []
    hits = 0
    for user, rows in lists.items():
        heard = Counter(artist_genre(row["artist_name"]) for row in rows)
        shares.append(heard[preferred[user]] / 50)
        hits += heard.most_common(1)[0][0] == preferred[user]
    assert statistics.mean(shares) > 0.5
    assert hits > 0.85 * USERS
    assert set(preferred.values()) == set(range(len(GENRES)))


# ---- Bad rows -------------------------------------------------------------------------------------------------------


def reject_reason(line: bytes, columns: list[str]) -> str | None:
    """Validate a line independently of the package."""
    try:
        (fields,) = csv.reader([line.decode("utf-8")], strict=True)
    except UnicodeDecodeError:
        return "invalid UTF-8"
    except csv.Error:
        return "broken quoting"
    if len(fields) != len(columns):
        return "wrong number of fields"
    row = dict(zip(columns, fields, strict=True))
    missing = [name for name in ("user_id", "artist_name") if not row.get(name, "x").strip()]
    if missing:
        return f"missing {missing[0]}"
    numbers = {name: row[name] for name in ("user_id", "rank", "playcount", "total_scrobbles") if name in row}
    return next(filter(None, (integer_reason(name, text) for name, text in numbers.items())), None)


def integer_reason(column: str, text: str) -> str | None:
    if not re.fullmatch(r"-?[0-9]+", text):
        return "not an integer"
    largest = 2 ** (31 if column in ("user_id", "rank") else 63) - 1
    if not -largest - 1 <= int(text) <= largest:
        return "out of range"
    if column == "rank" and not 1 <= int(text) <= 50:
        return "rank outside 1 to 50"
    return "negative count" if column in ("playcount", "total_scrobbles") and int(text) < 0 else None


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> SampleFiles:
    return generate(tmp_path_factory.mktemp("dirty"), USERS, seed=7, dirty=0.02)


@pytest.mark.parametrize("file", ["users_csv", "user_top_artists_csv"])
def test_bad_rows_are_added_to_the_rows_of_the_clean_file(sample: Sample, dirty: SampleFiles, file: str) -> None:
    clean, lines = (getattr(files, file).read_bytes().splitlines() for files in (sample.files, dirty))
    columns = clean[0].decode().split(",")
    assert {reject_reason(line, columns) for line in clean[1:2000]} == {None}

    good = 0
    reasons = Counter[str | None]()
    for line in lines:
        if good < len(clean) and line == clean[good]:
            good += 1
        else:
            reasons[reject_reason(line, columns)] += 1
    assert good == len(clean)
    assert reasons.total() / len(lines) == pytest.approx(0.02, abs=0.001)
    only_here = {"rank outside 1 to 50", "missing artist_name"} if file == "user_top_artists_csv" else set()
    assert set(reasons) == REASONS_FOR_BOTH | only_here


def test_bad_rows_are_the_same_for_the_same_seed(dirty: SampleFiles, tmp_path: Path) -> None:
    assert contents(generate(tmp_path, USERS, seed=7, dirty=0.02)) == contents(dirty)


def test_an_open_quote_does_not_swallow_the_rest_of_the_file(dirty: SampleFiles) -> None:
    """A strict reader reports an error at the next quoted field."""
    lines = dirty.user_top_artists_csv.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    opened = [number for number, line in enumerate(lines) if line.count('"') % 2]
    assert len(opened) > 100
    for number in opened:
        with pytest.raises(csv.Error):
            next(csv.reader(lines[number : number + 2000], strict=True))
