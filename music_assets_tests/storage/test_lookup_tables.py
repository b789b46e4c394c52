"""The lookup tables of published snapshots, with values computed by hand."""

from math import log, sqrt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_assets.data_root import DataRoot
from music_assets.storage.delta import DeltaStore
from music_assets.storage.lineage import INPUTS, REMOVED
from music_assets.storage.published_snapshot import connect, newest_snapshot
from music_assets.storage.publisher import Publisher
from music_assets.tables import ARTIST_RANK_IN_COUNTRY, COUNTRY_RANK_PER_ARTIST, LOOKUP_TABLES, USER_DATA, Table

Plays = dict[str, dict[str, tuple[float, int]]]  # country, artist: plays and listeners

PLAYS: Plays = {"Chad": {"Air": (6.0, 4), "Can": (2.0, 1)}, "Mali": {"Air": (2.0, 2), "Can": (10.0, 5)}}


class Published:
    """A data root whose rankings are replaced and published."""

    def __init__(self, root: DataRoot) -> None:
        self.store = DeltaStore(root)
        self.publisher = Publisher(self.store, "200MB", 1)

    def write(self, table: Table, rows: list[tuple], inputs: dict[str, int]) -> int:
        schema = table.schema.to_pyarrow()
        path = self.store.new_folder(table) / "rows.parquet"
        pq.write_table(pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema), path)
        return self.store.replace(table, [path], {INPUTS: inputs})

    def publish(self, plays: Plays) -> None:
        artists = [
            (country, artist, *totals[artist][:1], rank, totals[artist][1])
            for country, totals in sorted(plays.items())
            for rank, artist in enumerate(sorted(totals, key=lambda name: (-totals[name][0], name)), 1)
        ]
        version = self.write(ARTIST_RANK_IN_COUNTRY, artists, {})
        shares = {
            (country, artist): count / sum(each for each, _ in plays[country].values())
            for country, artist, count, *_ in artists
        }
        countries = [
            (country, artist, *plays[country][artist][:1], shares[country, artist], rank, plays[country][artist][1])
            for artist in sorted({artist for _, artist in shares})
            for rank, country in enumerate(
                sorted((each for each in plays if artist in plays[each]), key=lambda c: -shares[c, artist]), 1
            )
        ]
        self.write(COUNTRY_RANK_PER_ARTIST, countries, {ARTIST_RANK_IN_COUNTRY.name: version})
        self.publisher.publish()

    def rows(self, sql: str) -> list[tuple]:
        with connect(self.store.root) as connection:
            return connection.execute(sql).fetchall()

    def changes(self) -> list[tuple]:
        return self.rows("FROM rank_changes")


@pytest.fixture
def published(data_root: DataRoot) -> Published:
    published = Published(data_root)
    published.publish(PLAYS)
    return published


def test_totals_of_countries_and_of_the_world(published: Published) -> None:
    assert published.rows("FROM country_totals") == [("Chad", 2, 8.0, 5), ("Mali", 2, 12.0, 7)]
    assert published.rows("FROM world_artists") == [
        (1, "Can", 12.0, 6, 2, "Mali"),
        (2, "Air", 8.0, 6, 2, "Chad"),
    ]


def test_distinctive_artists_have_more_listeners_than_expected(published: Published) -> None:
    """Of 12 listeners in all, 5 are in Chad, and each artist has 6: 2.5 are expected in Chad, and 3.5 in Mali."""
    assert published.rows("FROM distinctive_artists") == [
        ("Chad", 1, "Air", 6.0, 4, 2.5, 14 / 12.5),
        ("Mali", 1, "Can", 10.0, 5, 3.5, 15 / 13.5),
    ]


def test_three_listeners_do_not_win_against_many(tmp_path: Path) -> None:
    published = Published(DataRoot(tmp_path))
    world = {"Air": (9000.0, 900), "Can": (1000.0, 100), "Zaz": (0.0, 0)}
    published.publish({"Chad": {"Zaz": (3.0, 3), "Can": (90.0, 90), "Air": (7.0, 7)}, "Mali": world})
    assert [row[2] for row in published.rows("FROM distinctive_artists WHERE country = 'Chad'")] == ["Can", "Zaz"]


def test_similarity_is_the_cosine_of_logarithms_of_ratios(published: Published) -> None:
    chad = [log(14 / 12.5), log(11 / 12.5)]
    mali = [log(12 / 13.5), log(15 / 13.5)]
    cosine = sum(a * b for a, b in zip(chad, mali, strict=True)) / sqrt(
        sum(a * a for a in chad) * sum(b * b for b in mali)
    )
    assert published.rows("FROM similar_countries") == [
        ("Chad", 1, "Mali", pytest.approx(cosine)),
        ("Mali", 1, "Chad", pytest.approx(cosine)),
    ]


def test_only_so_many_countries_are_compared(tmp_path: Path) -> None:
    """A file may name a country for each user; comparing each with each would never end."""
    published = Published(DataRoot(tmp_path))
    several = {f"{number:03}": {"Air": (1.0, 2), "Can": (1.0, 1)} for number in range(500)}
    published.publish({**several, "few": {"Air": (1.0, 1), "Can": (1.0, 1)}})
    listed = published.rows("SELECT DISTINCT unnest([country, similar_country]) FROM similar_countries")
    assert {country for (country,) in listed} == several.keys()


def test_changes_compare_with_the_previous_published_ranking(published: Published) -> None:
    assert published.changes() == []
    published.publish({"Chad": {"Can": (9.0, 2), "Air": (6.0, 4)}, "Mali": {"Can": (10.0, 5), "Zaz": (3.0, 1)}})
    expected = [
        ("Chad", "Can", 1, 2, "riser"),
        ("Chad", "Air", 2, 1, "faller"),
        ("Mali", "Can", 1, 1, "unchanged"),
        ("Mali", "Zaz", 2, None, "new"),
        ("Mali", "Air", None, 2, "gone"),
        (None, "Can", 1, 1, "unchanged"),
        (None, "Air", 2, 2, "unchanged"),
        (None, "Zaz", 3, None, "new"),
    ]
    assert published.changes() == expected

    published.publisher.publish()
    assert published.changes() == expected, "the same ranking, published again as after a training"


def test_changes_show_ranks_after_the_first_200(tmp_path: Path) -> None:
    published = Published(DataRoot(tmp_path))
    published.publish({"Chad": {f"{place:03}": (1000.0 - place, 1) for place in range(1, 301)}})
    published.publish({"Chad": {f"{place:03}": (1000.0 - (place + 250) % 300, 1) for place in range(1, 301)}})
    changes = {row[1]: row[2:] for row in published.rows("FROM rank_changes WHERE country IS NULL")}
    assert len(changes) == 249
    assert (changes["001"], changes["050"], changes["249"]) == (
        (252, 1, "faller"),
        (1, 50, "riser"),
        (200, 249, "riser"),
    )


def test_changes_do_not_name_artists_of_erased_users(published: Published) -> None:
    store = published.store
    path = store.new_folder(USER_DATA) / "rows.parquet"
    pq.write_table(USER_DATA.schema.to_pyarrow().empty_table(), path)
    store.append(USER_DATA, [path], {}, {REMOVED: {"rows": 1}})
    published.publish({"Chad": {"Can": (2.0, 1)}})
    assert published.changes() == []


def test_unreadable_previous_snapshot_leaves_changes_empty(published: Published) -> None:
    path = newest_snapshot(published.store.root).path
    size = path.stat().st_size
    path.chmod(0o600)
    path.write_bytes(b"\1" * size)
    published.publish(PLAYS)
    assert published.changes() == []


def test_no_rankings(tmp_path: Path) -> None:
    published = Published(DataRoot(tmp_path))
    published.publisher.publish()
    for table in LOOKUP_TABLES:
        assert published.rows(f"FROM {table.full_name}") == []
