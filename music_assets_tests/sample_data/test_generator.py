"""Made-up data is what the docstrings promise: its shape, its bytes, what is planted in it, what is spoiled in it."""

import csv
import io
import os
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

from music_assets.sample_data.generator import (
    CLUSTERS,
    Generated,
    artist_cluster,
    artist_names,
    generate,
    user_clusters,
)

USERS = 4500
KAGGLE = Path(os.environ.get("MUSIC_ASSETS_REAL_DATA", Path(__file__).parents[2] / "../shared/realdata")) / "kaggle399"
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
    """A generated set, read back with the standard library."""

    generated: Generated
    users: list[dict[str, str]]
    top_artists: list[dict[str, str]]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    generated = generate(tmp_path_factory.mktemp("sample"), USERS, seed=7)
    return Sample(generated, rows_of(generated.users_csv), rows_of(generated.user_top_artists_csv))


def lists_of(sample: Sample) -> dict[int, list[dict[str, str]]]:
    lists = defaultdict(list)
    for row in sample.top_artists:
        lists[int(row["user_id"])].append(row)
    return lists


def contents(generated: Generated) -> tuple[bytes, bytes]:
    return generated.users_csv.read_bytes(), generated.user_top_artists_csv.read_bytes()


# ---- Shape ----------------------------------------------------------------------------------------------------------


def test_reports_what_it_wrote(sample: Sample) -> None:
    generated = sample.generated
    assert (generated.users_csv.name, generated.user_top_artists_csv.name) == ("users.csv", "user_top_artists.csv")
    assert (generated.users, generated.user_top_artists) == (len(sample.users), len(sample.top_artists))
    assert (generated.users, generated.user_top_artists) == (USERS, USERS * 50)
    assert (generated.bad_users, generated.bad_user_top_artists) == (0, 0)
    assert sorted(path.name for path in generated.users_csv.parent.iterdir()) == ["user_top_artists.csv", "users.csv"]


def test_quotes_only_where_needed(sample: Sample) -> None:
    """Written again by the standard library with minimal quoting, the files are the same bytes."""
    for path, rows in (
        (sample.generated.users_csv, sample.users),
        (sample.generated.user_top_artists_csv, sample.top_artists),
    ):
        again = io.StringIO()
        writer = csv.DictWriter(again, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        assert path.read_bytes() == again.getvalue().encode()


def test_columns_stand_in_the_order_of_the_kaggle_set(sample: Sample) -> None:
    assert list(sample.users[0]) == ["user_id", "country", "total_scrobbles"]
    assert list(sample.top_artists[0]) == ["user_id", "rank", "artist_name", "playcount", "mbid"]


def test_user_ids_rise_with_gaps(sample: Sample) -> None:
    ids = [int(row["user_id"]) for row in sample.users]
    assert ids == sorted(set(ids))
    assert USERS < ids[-1] < USERS * 1.02


def test_every_user_has_50_different_artists_by_falling_playcount(sample: Sample) -> None:
    lists = lists_of(sample)
    assert list(lists) == [int(row["user_id"]) for row in sample.users]
    for rows in lists.values():
        assert [int(row["rank"]) for row in rows] == list(range(1, 51))
        assert len({row["artist_name"] for row in rows}) == 50
        counts = [int(row["playcount"]) for row in rows]
        assert counts == sorted(counts, reverse=True)
        assert 1 <= counts[-1] <= counts[0] <= 100_000


def test_total_scrobbles_cover_the_top_artists(sample: Sample) -> None:
    lists = lists_of(sample)
    for row in sample.users:
        top = sum(int(artist["playcount"]) for artist in lists[int(row["user_id"])])
        assert top <= int(row["total_scrobbles"]) < 100 * top


def test_resembles_the_kaggle_slice(tmp_path: Path) -> None:
    """As many users know about as many artists, play their first about as often, and lack as many mbids."""
    if not KAGGLE.is_dir():
        pytest.skip(f"{KAGGLE} is missing: set MUSIC_ASSETS_REAL_DATA to the folder that holds kaggle399")
    real = rows_of(KAGGLE / "user_top_artists.csv")
    made_up = rows_of(generate(tmp_path, 399).user_top_artists_csv)

    def figures(rows: list[dict[str, str]]) -> tuple[int, float, float]:
        artists = {row["artist_name"] for row in rows}
        firsts = statistics.median(int(row["playcount"]) for row in rows if row["rank"] == "1")
        return len(artists), firsts, sum(not row["mbid"] for row in rows) / len(rows)

    assert figures(made_up) == (
        pytest.approx(figures(real)[0], rel=0.2),
        pytest.approx(figures(real)[1], rel=0.4),
        pytest.approx(figures(real)[2], abs=0.05),
    )


# ---- Same seed, same bytes ------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second, other = (generate(tmp_path / name, 300, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert contents(first) == contents(second)
    assert contents(first)[0] != contents(other)[0]
    assert contents(first)[1] != contents(other)[1]


def test_larger_set_begins_with_the_smaller(sample: Sample, tmp_path: Path) -> None:
    """No user depends on how many follow, nor on how the users before were worked off."""
    for whole, part in zip(contents(sample.generated), contents(generate(tmp_path, 4200, seed=7)), strict=True):
        assert whole.startswith(part)


def test_progress_adds_up(tmp_path: Path) -> None:
    written: list[int] = []
    generate(tmp_path, 5000, progress=written.append)
    assert len(written) > 1
    assert sum(written) == 5000


def test_memory_does_not_grow_with_users(tmp_path: Path) -> None:
    """Three times the users, the same memory, in Python and in Arrow."""

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
def test_refuses_what_does_not_fit(tmp_path: Path, users: int, seed: int, dirty: float, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        generate(tmp_path / "out", users, seed, dirty)
    assert not (tmp_path / "out").exists()


# ---- What is planted ------------------------------------------------------------------------------------------------


def test_a_third_of_the_users_state_no_country(sample: Sample) -> None:
    assert sum(not row["country"] for row in sample.users) / USERS == pytest.approx(1 / 3, abs=0.02)


def test_countries_are_skewed_and_germany_is_well_represented(sample: Sample) -> None:
    countries = Counter(row["country"] for row in sample.users if row["country"])
    assert countries.most_common(1)[0][0] == "United States"
    assert countries["Germany"] > 0.06 * countries.total()
    assert len(countries) > 80
    assert sum("," in country for country in countries) > 0
    assert Counter(row["country"] for row in sample.users[:1000])["Germany"] > 30


def test_names_of_every_kind(sample: Sample) -> None:
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
    made_up = names - set(artist_names(np.arange(384)))
    assert len(made_up) > 0.9 * len(names)
    for kind in (",", '"', "&", "[а-я]", "[ぁ-ん]", "[가-힣]", "é"):
        assert any(re.search(kind, name) for name in made_up), kind


def test_drake_is_heard_in_many_countries(sample: Sample) -> None:
    country = {row["user_id"]: row["country"] for row in sample.users[:1000]}
    heard = {country.get(row["user_id"], "") for row in sample.top_artists if row["artist_name"] == "Drake"} - {""}
    assert len(heard) >= 20


def test_popularity_has_a_long_tail(sample: Sample) -> None:
    listeners = Counter(row["artist_name"] for row in sample.top_artists)
    assert listeners.most_common(1)[0][1] > 0.15 * USERS
    assert 20_000 < len(listeners) < 70_000
    assert sum(count == 1 for count in listeners.values()) > 0.5 * len(listeners)


def test_countries_have_tastes_of_their_own(sample: Sample) -> None:
    country = {row["user_id"]: row["country"] for row in sample.users}
    rows = Counter(country[row["user_id"]] for row in sample.top_artists)
    rammstein = Counter(country[row["user_id"]] for row in sample.top_artists if row["artist_name"] == "Rammstein")
    assert rammstein["Germany"] / rows["Germany"] > 2 * rammstein["United States"] / rows["United States"]


def test_mbid_belongs_to_the_artist(sample: Sample, tmp_path: Path) -> None:
    mbids = defaultdict(set)
    for row in [*sample.top_artists, *rows_of(generate(tmp_path, 500, seed=8).user_top_artists_csv)]:
        mbids[row["artist_name"]].add(row["mbid"])
    assert all(len(found) == 1 for found in mbids.values())
    filled = [mbid for found in mbids.values() for mbid in found if mbid]
    assert len(set(filled)) == len(filled)
    assert all(str(uuid.UUID(mbid)) == mbid and uuid.UUID(mbid).version == 4 for mbid in filled)
    assert 1 - len(filled) / len(mbids) == pytest.approx(0.14, abs=0.02)


def test_no_two_artists_share_a_name_and_each_name_tells_its_cluster() -> None:
    """Well-known artists, the next ones, and the rarest there can be."""
    numbers = np.concatenate([np.arange(60_000), 24 * 2**20 - 1 - np.arange(60_000)])
    names = artist_names(numbers)
    assert len(set(names)) == len(names)
    assert [artist_cluster(name) for name in names] == (numbers % len(CLUSTERS)).tolist()


def test_foreign_name_has_no_cluster() -> None:
    with pytest.raises(ValueError, match="Nobody Ever"):
        artist_cluster("Nobody Ever")


def test_users_listen_to_the_clusters_planted_for_them(sample: Sample) -> None:
    planted = user_clusters(USERS, seed=7)
    lists = lists_of(sample)
    assert list(planted) == list(lists)
    shares = []
    hits = 0
    for user, rows in lists.items():
        heard = Counter(artist_cluster(row["artist_name"]) for row in rows)
        shares.append(heard[planted[user]] / 50)
        hits += heard.most_common(1)[0][0] == planted[user]
    assert statistics.mean(shares) > 0.5
    assert hits > 0.85 * USERS
    assert set(planted.values()) == set(range(len(CLUSTERS)))


# ---- Bad rows -------------------------------------------------------------------------------------------------------


def reason_against(line: bytes, columns: list[str]) -> str | None:  # noqa: C901
    """Judge one physical line by the rules of the data set, strictly."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return "invalid UTF-8"
    try:
        (fields,) = csv.reader([text], strict=True)
    except csv.Error:
        return "broken quoting"
    if len(fields) != len(columns):
        return "wrong number of fields"
    row = dict(zip(columns, fields, strict=True))
    if not row["user_id"].strip():
        return "missing user_id"
    if not row.get("artist_name", "x").strip():
        return "missing artist_name"
    for column, bits in (("user_id", 31), ("rank", 31), ("playcount", 63), ("total_scrobbles", 63)):
        value = row.get(column, "1")
        if not re.fullmatch(r"-?[0-9]+", value):
            return "not an integer"
        if not -(2**bits) <= int(value) < 2**bits:
            return "out of range"
        if column == "rank" and not 1 <= int(value) <= 50:
            return "rank outside 1 to 50"
        if column in ("playcount", "total_scrobbles") and int(value) < 0:
            return "negative count"
    return None


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return generate(tmp_path_factory.mktemp("dirty"), USERS, seed=7, dirty=0.02)


@pytest.mark.parametrize("file", ["users", "user_top_artists"])
def test_bad_rows_come_on_top_of_the_clean_file(sample: Sample, dirty: Generated, file: str) -> None:
    """What stands between the lines of the clean file breaks a rule, every rule in turn, and is as much as reported."""
    clean_path, dirty_path = (getattr(generated, f"{file}_csv") for generated in (sample.generated, dirty))
    clean, lines = clean_path.read_bytes().splitlines(), dirty_path.read_bytes().splitlines()
    columns = clean[0].decode().split(",")
    assert {reason_against(line, columns) for line in clean[1:2000]} == {None}

    good = 0
    reasons = Counter[str | None]()
    for line in lines:
        if good < len(clean) and line == clean[good]:
            good += 1
        else:
            reasons[reason_against(line, columns)] += 1
    assert good == len(clean) == getattr(dirty, file) + 1
    assert reasons == getattr(dirty, f"{file[:-1]}_reasons")
    assert reasons.total() == getattr(dirty, f"bad_{file}")
    assert reasons.total() / len(lines) == pytest.approx(0.02, abs=0.001)
    only_here = {"rank outside 1 to 50", "missing artist_name"} if file == "user_top_artists" else set()
    assert set(reasons) == REASONS_FOR_BOTH | only_here


def test_bad_rows_are_the_same_for_the_same_seed(dirty: Generated, tmp_path: Path) -> None:
    assert contents(generate(tmp_path, USERS, seed=7, dirty=0.02)) == contents(dirty)


def test_unterminated_quote_is_noticed_soon(dirty: Generated) -> None:
    """A strict reader trips over the next quoted field, and does not swallow the rest of the file."""
    lines = dirty.user_top_artists_csv.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    opened = [number for number, line in enumerate(lines) if line.count('"') % 2]
    assert len(opened) > 100
    for number in opened:
        with pytest.raises(csv.Error):
            next(csv.reader(lines[number : number + 2000], strict=True))
