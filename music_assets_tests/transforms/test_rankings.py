"""The rankings of dropped files, compared with an independent computation in pandas."""

import csv
import io
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from hypothesis import example, given
from hypothesis import strategies as st

from music_assets.engines.base import Engine
from music_assets.tables import ARTIST_RANK_IN_COUNTRY, COUNTRY_RANK_PER_ARTIST, USER_DATA, USER_TOP_ARTISTS
from music_assets_tests.support.ingest_harness import IngestHarness
from music_assets_tests.support.properties import examples

MEANING = {
    "Germany": "Germany",
    " Germany\t": "Germany",
    "germany": "germany",
    "Korea, Republic of": "Korea, Republic of",
    "Côte d'Ivoire": "Côte d'Ivoire",
    "": None,
    "  ": None,
    "None": None,
    "none ": None,
    "NULL": None,
}
"""Delivered countries and their meaning."""
ARTISTS = ["Drake", "drake", "Ärzte", "Zedd", "AC/DC", 'The "X"', "a, b", "Ａ", "𝔘lver", " Drake", "Drake "]
"""Names whose order by UTF-8 bytes differs from the order by locale, by UTF-16 and without case."""
COUNTS = st.one_of(st.none(), st.integers(0, 4), st.just(2**40))

User = tuple[int, str, int | None]
TopArtist = tuple[int, int, str, int | None, str | None]

USERS = st.tuples(st.integers(1, 20), st.sampled_from(sorted(MEANING)), COUNTS)
TOP_ARTISTS = st.tuples(
    st.integers(1, 22), st.integers(1, 4), st.sampled_from(ARTISTS), COUNTS, st.sampled_from([None, "m1", "m2"])
)


def drops(rows: st.SearchStrategy[Any], largest: int) -> st.SearchStrategy[list[list[Any]]]:
    """One to three files that may repeat their own keys and those of others."""
    return st.lists(st.lists(rows, max_size=largest), min_size=1, max_size=3)


def as_csv(table_columns: list[str], rows: list[Any], number: int) -> str:
    """Return CSV. An unknown column makes files with equal rows different."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*table_columns, "delivery"])
    writer.writerows([*("" if value is None else value for value in row), number] for row in rows)
    return text.getvalue()


def current(files: list[list[Any]], columns: list[str], key: list[str], tie_break: dict[str, bool]) -> pd.DataFrame:
    """Return the current row of each key. `tie_break`: columns, and whether ascending."""
    numbered = [(*row, number) for number, rows in enumerate(files) for row in rows]
    frame = pd.DataFrame(numbered, columns=[*columns, "delivery"])
    for name in {"total_scrobbles", "playcount"} & set(columns):
        frame[name] = frame[name].astype("Int64")
    order = {"delivery": False, **tie_break}
    ordered = frame.sort_values(list(order), ascending=list(order.values()), na_position="last", kind="stable")
    return ordered.drop_duplicates(key)


def current_users_and_artists(
    user_files: list[list[User]], artist_files: list[list[TopArtist]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the current rows of both."""
    meant = [[(user, MEANING[country], count) for user, country, count in rows] for rows in user_files]
    users = current(
        meant, ["user_id", "country", "total_scrobbles"], ["user_id"], {"total_scrobbles": False, "country": True}
    )
    artists = current(
        artist_files,
        ["user_id", "rank", "artist_name", "playcount", "mbid"],
        ["user_id", "rank"],
        {"playcount": False, "artist_name": True, "mbid": True},
    )
    return users, artists


def oracle(user_files: list[list[User]], artist_files: list[list[TopArtist]]) -> tuple[list[Any], list[Any]]:
    """Return both rankings in their sort order, computed by definition."""
    users, artists = current_users_and_artists(user_files, artist_files)
    joined = users[users["country"].notna()].merge(artists, on="user_id")
    groups = joined.assign(total=joined["playcount"].fillna(0)).groupby(["country", "artist_name"])
    totals = groups.agg(total=("total", "sum"), listeners=("user_id", "nunique"))
    by_country = totals.astype({"total": "float64"}).reset_index()
    by_country = by_country.sort_values(["country", "total", "artist_name"], ascending=[True, False, True])
    by_country["rank"] = by_country.groupby("country").cumcount() + 1

    by_artist = by_country.drop(columns="rank")
    sums = by_artist.groupby("country")["total"].transform("sum")
    by_artist["share"] = (by_artist["total"] / sums).where(sums > 0, 0.0)
    by_artist = by_artist.sort_values(["artist_name", "share", "country"], ascending=[True, False, True])
    by_artist["rank"] = by_artist.groupby("artist_name").cumcount() + 1
    columns = ["country", "artist_name", "total", "rank", "listeners"]
    artists, countries = by_country[columns], by_artist[[*columns[:3], "share", *columns[3:]]]
    return list(artists.itertuples(index=False, name=None)), list(countries.itertuples(index=False, name=None))


def unranked_oracle(user_files: list[list[User]], artist_files: list[list[TopArtist]]) -> dict[str, float]:
    """Return what `unranked_plays` counts, computed by definition."""
    users, artists = current_users_and_artists(user_files, artist_files)
    plays = artists.fillna({"playcount": 0}).groupby("user_id")["playcount"].sum()
    countries = users.set_index("user_id")["country"]
    is_known = plays.index.isin(countries.index)
    has_country = plays.index.isin(countries[countries.notna()].index)
    groups = {"": plays, "no_user": plays[~is_known], "no_country": plays[is_known & ~has_country]}
    counts = {name or "users": float(len(found)) for name, found in groups.items()}
    return counts | {f"{name}_plays".lstrip("_"): float(found.sum()) for name, found in groups.items()}


@examples(10)
@given(user_files=drops(USERS, 25), artist_files=drops(TOP_ARTISTS, 50))
@example(user_files=[[]], artist_files=[[]])
@example(user_files=[[(1, "Germany", 5)], [(1, "None", 9)]], artist_files=[[(1, 1, "Drake", 3, None)]])
@example(
    user_files=[[(1, "Germany", None), (1, "germany", 0), (2, "Germany", 1)], [(3, "germany", 1)]],
    artist_files=[
        [(1, 1, "Drake", None, None), (1, 1, "Zedd", 0, None), (2, 1, "Zedd", 7, None), (3, 1, "Zedd", 2, "m1")],
        [(1, 2, "Drake", 7, None), (3, 2, "Ärzte", 0, None), (9, 1, "Zedd", 3, None)],
    ],
)
@example(
    user_files=[[(1, "Korea, Republic of", 1), (2, "Côte d'Ivoire", 1), (3, "Germany", 1), (4, "germany", 1)]],
    artist_files=[
        [
            (user, rank, name, count, None)
            for user in (1, 2, 3, 4)
            for rank, (name, count) in enumerate([("drake", 2), ("Zedd", 2), ("𝔘lver", 0), ("Ａ", None)], 1)
        ]
    ],
)
def test_rankings_of_dropped_files(
    engine: Engine, user_files: list[list[User]], artist_files: list[list[TopArtist]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        harness = IngestHarness(Path(folder), engine)
        for table, files in ((USER_DATA, user_files), (USER_TOP_ARTISTS, artist_files)):
            for number, rows in enumerate(files):
                harness.drop(table, f"{number}.csv", as_csv([c.name for c in table.delivered], rows, number))
            harness.load(table)
        harness.rank()
        assert (harness.rows(ARTIST_RANK_IN_COUNTRY), harness.rows(COUNTRY_RANK_PER_ARTIST)) == oracle(
            user_files, artist_files
        )


def test_ranks_by_hand(tmp_path: Path, engine: Engine) -> None:
    """NULL counts as 0, ties are ordered by name, a country without plays has popularity 0.

    A user who lists an artist twice is one listener, with all the plays.
    """
    harness = IngestHarness(tmp_path, engine)
    harness.drop(USER_DATA, "u.csv", "user_id,country,total_scrobbles\n1,Germany,\n2,Germany,\n3,Chad,\n4,,\n")
    harness.drop(
        USER_TOP_ARTISTS,
        "a.csv",
        "user_id,rank,artist_name,playcount,mbid\n1,1,Moby,29,\n1,2,Abba,5,\n2,1,Abba,5,\n2,2,Zaz,,\n"
        "2,3,Zaz,,\n3,1,Moby,0,\n3,2,Abba,,\n3,3,Zaz,0,\n3,4,Abba,0,\n4,1,Moby,1000,\n5,1,Moby,1000,\n1,3,Moby,1,\n",
    )
    for table in (USER_DATA, USER_TOP_ARTISTS):
        harness.load(table)
    harness.rank()
    assert harness.rows(ARTIST_RANK_IN_COUNTRY) == [
        ("Chad", "Abba", 0.0, 1, 1),
        ("Chad", "Moby", 0.0, 2, 1),
        ("Chad", "Zaz", 0.0, 3, 1),
        ("Germany", "Moby", 30.0, 1, 1),
        ("Germany", "Abba", 10.0, 2, 2),
        ("Germany", "Zaz", 0.0, 3, 1),
    ]
    assert harness.rows(COUNTRY_RANK_PER_ARTIST) == [
        ("Germany", "Abba", 10.0, 0.25, 1, 2),
        ("Chad", "Abba", 0.0, 0.0, 2, 1),
        ("Germany", "Moby", 30.0, 0.75, 1, 1),
        ("Chad", "Moby", 0.0, 0.0, 2, 1),
        ("Chad", "Zaz", 0.0, 0.0, 1, 1),
        ("Germany", "Zaz", 0.0, 0.0, 2, 1),
    ]


def test_sum_beyond_the_largest_integer(tmp_path: Path, engine: Engine) -> None:
    harness = IngestHarness(tmp_path, engine)
    largest = 2**63 - 1
    harness.drop(USER_DATA, "u.csv", "user_id,country,total_scrobbles\n1,Germany,\n2,Germany,\n")
    harness.drop(
        USER_TOP_ARTISTS,
        "a.csv",
        f"user_id,rank,artist_name,playcount,mbid\n1,1,Moby,{largest},\n2,1,Moby,{largest},\n2,2,Zaz,1,\n",
    )
    for table in (USER_DATA, USER_TOP_ARTISTS):
        harness.load(table)
    harness.rank()
    assert harness.rows(ARTIST_RANK_IN_COUNTRY) == [
        ("Germany", "Moby", 2.0**64, 1, 2),
        ("Germany", "Zaz", 1.0, 2, 1),
    ]
