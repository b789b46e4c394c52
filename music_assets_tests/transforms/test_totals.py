"""Totals updated drop after drop, compared with an independent computation in pandas."""

import tempfile
from dataclasses import replace
from pathlib import Path

import ibis
from hypothesis import example, given

from music_assets.engines.base import Engine
from music_assets.storage.delta import TableVersion
from music_assets.tables import ARTIST_RANK_IN_COUNTRY, USER_DATA, USER_TOP_ARTISTS
from music_assets.transforms.current_rows import CurrentRows
from music_assets.transforms.rankings import artist_rank_in_country
from music_assets.transforms.totals import Coverage, PreviousTotals, delivered_since, totals, updated_totals
from music_assets.transforms.unranked_plays import Counts, unranked_plays, updated_unranked_plays
from music_assets_tests.support.ingest_harness import IngestHarness
from music_assets_tests.support.properties import examples
from music_assets_tests.transforms.test_rankings import (
    TOP_ARTISTS,
    USERS,
    TopArtist,
    User,
    as_csv,
    drops,
    oracle,
    unranked_oracle,
)

MARK = ("Germany", "Zaz", 1000.0, 7)
"""A total that no file explains: if it remains, the previous totals were updated."""


class Totals:
    """A data root whose totals are updated after each drop, however many users it affects."""

    def __init__(self, folder: str, engine: Engine) -> None:
        self.root = IngestHarness(Path(folder), engine)
        self.previous: PreviousTotals | None = None
        self.unranked: Counts = {}
        self.number = 0

    def take(self, users: list[User] | None, top_artists: list[TopArtist] | None) -> None:
        self.number += 1
        for table, rows in ((USER_DATA, users), (USER_TOP_ARTISTS, top_artists)):
            if rows is not None:
                content = as_csv([column.name for column in table.delivered], rows, self.number)
                self.root.drop(table, f"{self.number}.csv", content)
            self.root.load(table)

    def rank(self, max_updated_share: float = 1e9) -> list[tuple]:
        engine, store = self.root.engine, self.root.store
        snapshots = [store.table_version(table) for table in (USER_DATA, USER_TOP_ARTISTS)]
        users, top_artists = (
            engine.read(table, snapshot.files)
            for table, snapshot in zip((USER_DATA, USER_TOP_ARTISTS), snapshots, strict=True)
        )
        previous = self.previous
        delivered = previous and delivered_since(previous, users, top_artists, engine.cache, max_updated_share)
        if previous and delivered:
            computed = updated_totals(previous.totals, delivered)
            self.unranked = updated_unranked_plays(previous.unranked, delivered.before, delivered.now)
        else:
            current = CurrentRows.of(users, top_artists)
            computed, self.unranked = totals(current), unranked_plays(current)
        ranked = artist_rank_in_country(computed, engine.cache, engine.release).named()
        folder = store.new_folder(ARTIST_RANK_IN_COUNTRY)
        store.replace(ARTIST_RANK_IN_COUNTRY, engine.write(ranked, ARTIST_RANK_IN_COUNTRY, folder))
        engine.clear_cache()
        ranking = engine.read(ARTIST_RANK_IN_COUNTRY, store.table_version(ARTIST_RANK_IN_COUNTRY).files)
        self.previous = _earlier(ranking, self.unranked, *snapshots)
        return self.root.rows(ARTIST_RANK_IN_COUNTRY)

    def mark(self) -> None:
        """Add MARK to the previous totals."""
        assert self.previous is not None
        totals = self.previous.totals.drop("rank")
        marked = ibis.memtable([MARK], schema=totals.schema())
        self.previous = replace(self.previous, totals=totals.union(marked))


def _earlier(
    ranking: ibis.Table, unranked: Counts, users: TableVersion, top_artists: TableVersion
) -> PreviousTotals | None:
    if not users.latest_ingest or not top_artists.latest_ingest:
        return None
    return PreviousTotals(
        ranking,
        unranked,
        {
            USER_DATA.name: Coverage(users.latest_ingest, users.rows),
            USER_TOP_ARTISTS.name: Coverage(top_artists.latest_ingest, top_artists.rows),
        },
    )


@examples(10)
@given(user_files=drops(USERS, 20), artist_files=drops(TOP_ARTISTS, 30))
@example(  # A listener leaves for another country; of two without plays one goes; a country and an artist vanish.
    user_files=[
        [(1, "Germany", 1), (2, "Germany", 1), (3, "germany", 1)],
        [(1, "", 2), (3, "Germany", 2)],
        [(2, "germany", 3), (4, "Germany", None)],
    ],
    artist_files=[
        [
            (1, 1, "Drake", 5, None),
            (1, 2, "Zedd", None, None),
            (2, 1, "Zedd", 0, None),
            (3, 1, "drake", 2**40, None),
        ],
        [(3, 1, "Zedd", 0, None)],
        [(2, 1, "Drake", 7, None), (4, 1, "Zedd", 3, None), (4, 1, "Zedd", None, None)],
    ],
)
def test_updated_totals_equal_full_computation(
    engine: Engine, user_files: list[list[User]], artist_files: list[list[TopArtist]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        totals = Totals(folder, engine)
        for number in range(max(len(user_files), len(artist_files))):
            users, artists = (files[number] if number < len(files) else None for files in (user_files, artist_files))
            totals.take(users, artists)
            taken = user_files[: number + 1], artist_files[: number + 1]
            assert totals.rank() == oracle(*taken)[0]
            assert totals.unranked == unranked_oracle(*taken)


def started(tmp_path: Path, engine: Engine, plays: int = 5) -> Totals:
    """Rank ten users of Germany, and add MARK to their totals."""
    totals = Totals(str(tmp_path), engine)
    users = range(1, 11)
    totals.take([(user, "Germany", 1) for user in users], [(user, 1, "Drake", plays, None) for user in users])
    assert totals.rank() == [("Germany", "Drake", 10.0 * plays, 1, 10)]
    totals.mark()
    return totals


def test_small_drop_updates_previous_totals(tmp_path: Path, engine: Engine) -> None:
    totals = started(tmp_path, engine)
    totals.take(None, [(1, 1, "Abba", 7, None)])
    assert totals.rank(max_updated_share=0.1) == [
        ("Germany", "Zaz", 1000.0, 1, 7),
        ("Germany", "Drake", 45.0, 2, 9),
        ("Germany", "Abba", 7.0, 3, 1),
    ]


def test_large_drop_computes_all_totals(tmp_path: Path, engine: Engine) -> None:
    totals = started(tmp_path, engine)
    totals.take(None, [(1, 1, "Abba", 7, None), (2, 1, "Abba", 7, None)])
    assert totals.rank(max_updated_share=0.1) == [("Germany", "Drake", 40.0, 1, 8), ("Germany", "Abba", 14.0, 2, 2)]


def test_no_drop_computes_all_totals(tmp_path: Path, engine: Engine) -> None:
    totals = started(tmp_path, engine, plays=0)
    assert totals.rank() == [("Germany", "Drake", 0.0, 1, 10)]


def test_different_history_computes_all_totals(tmp_path: Path, engine: Engine) -> None:
    """A raw table that was deleted and loaded again has other rows in the time that the totals cover."""
    totals = started(tmp_path, engine)
    assert totals.previous is not None
    covered = totals.previous.coverage[USER_TOP_ARTISTS.name]
    fewer = {**totals.previous.coverage, USER_TOP_ARTISTS.name: Coverage(covered.until, covered.rows - 1)}
    totals.previous = replace(totals.previous, coverage=fewer)
    totals.take(None, [(1, 1, "Abba", 7, None)])
    assert totals.rank() == [("Germany", "Drake", 45.0, 1, 9), ("Germany", "Abba", 7.0, 2, 1)]


def test_inexact_totals_are_computed_again(tmp_path: Path, engine: Engine) -> None:
    """2^53 + 1 is no float64: rounded totals must not be updated."""
    totals = Totals(str(tmp_path), engine)
    totals.take([(1, "Germany", 1), (2, "Germany", 1)], [(1, 1, "Drake", 2**53, None), (2, 1, "Drake", 1, None)])
    totals.rank()
    totals.take(None, [(1, 1, "Drake", 0, None)])
    assert totals.rank() == [("Germany", "Drake", 1.0, 1, 2)]
