"""Random series of drops, repeats, updates, bad files, refreshes, failures and vacuums, compared with the model."""

import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from music_assets.defs.assets.rankings import rank_artists
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.storage.lineage import INPUTS, UNRANKED, inputs_of
from music_assets.storage.published_snapshot import connect
from music_assets.storage.publisher import Publisher
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    COUNTRY_RANK_PER_ARTIST,
    RANKING_TABLES,
    RAW_TABLES,
    REJECTED_ROWS,
    TABLES,
    USER_DATA,
    USER_TOP_ARTISTS,
    Table,
)
from music_assets.transforms.rankings import Numbered, country_rank_per_artist
from music_assets.transforms.unranked_plays import Counts
from music_assets_tests.faults.model import BadRow, File, Model, good_rows, rejects
from music_assets_tests.faults.state import rows_of
from music_assets_tests.support.ingest_harness import LOG, IngestHarness
from music_assets_tests.support.properties import examples

COUNTS = st.none() | st.integers(0, 3)
USERS = st.tuples(st.integers(1, 4), st.sampled_from(["Germany", "Chad", None]), COUNTS)
TOP_ARTISTS = st.tuples(
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from(["Moby", "moby", "Ärzte"]),
    COUNTS,
    st.sampled_from([None, "m"]),
)
BAD_USERS = (
    BadRow("x,Chad,1", "user_id", "not an integer"),
    BadRow(",Chad,1", "user_id", "missing user_id"),
    BadRow("5,Chad,-1", "total_scrobbles", "negative count"),
    BadRow("6,Chad", None, "wrong number of fields"),
)
BAD_TOP_ARTISTS = (
    BadRow("1,51,Moby,1,", "rank", "rank outside 1 to 50"),
    BadRow("1,1,,1,", "artist_name", "missing artist_name"),
    BadRow("2,1,Moby,3.7,", "playcount", "not an integer"),
)
BAD_FILES = (b" \n", b"user_id,land\n1,Chad\n", b"\x1f\x8b not gzip")
ROWS = {
    USER_DATA: st.lists(USERS | st.sampled_from(BAD_USERS), max_size=6),
    USER_TOP_ARTISTS: st.lists(TOP_ARTISTS | st.sampled_from(BAD_TOP_ARTISTS), max_size=8),
}
TABLE = st.sampled_from(RAW_TABLES)


class InjectedError(Exception):
    """The failure of a run."""


class Refresh:
    """The steps of a refresh, in the order of the job. `fails` is the step before or after which it fails."""

    def __init__(self, harness: IngestHarness, fails: tuple[str, str] | None = None) -> None:
        self.harness = harness
        self.fails = fails
        self.done: list[str] = []
        self.unranked: Counts = {}

    def run(self) -> None:
        """Run the steps until one fails; `done` has those that were completed."""
        root, store = self.harness, self.harness.store
        append = store.append

        def appended(table: Table, *rest: Any) -> int:
            of = "rejects" if table is REJECTED_ROWS else "rows"
            return self._step(f"{of} of {self.loading.name}", lambda: append(table, *rest))

        store.append = appended  # type: ignore[method-assign]
        try:
            for table in RAW_TABLES:
                self.loading = table
                self._step(f"clearing of {table.name}", lambda table=table: root.load(table))
        finally:
            store.append = append  # type: ignore[method-assign]
        read = {table: store.table_version(table) for table in RAW_TABLES}
        history = [root.engine.read(table, snapshot.files) for table, snapshot in read.items()]
        inputs = inputs_of({table.name: version for table, version in read.items()})
        artists, self.unranked = rank_artists(store, root.engine, root.engine, *history)
        self._rank(ARTIST_RANK_IN_COUNTRY, artists, {**inputs, UNRANKED: self.unranked})
        ranked = store.table_version(ARTIST_RANK_IN_COUNTRY)
        countries = country_rank_per_artist(artists, root.engine.cache, root.engine.release)
        self._rank(COUNTRY_RANK_PER_ARTIST, countries, {INPUTS: {ARTIST_RANK_IN_COUNTRY.name: ranked.version}})
        root.engine.clear_cache()
        self._step("publishing", Publisher(store, "200MB", 1).publish)

    def _rank(self, table: Table, rows: Numbered, metadata: dict[str, Any]) -> None:
        store = self.harness.store
        files = self.harness.engine.write(rows.named(), table, store.new_folder(table))
        self._step(table.name, lambda: store.replace(table, files, metadata))

    def _step(self, name: str, step: Callable[[], Any]) -> Any:
        if self.fails == ("before", name):
            raise InjectedError
        result = step()
        self.done.append(name)
        if self.fails == ("after", name):
            raise InjectedError
        return result


STEPS = [
    *(f"{what} of {table.name}" for table in RAW_TABLES for what in ("rejects", "rows", "clearing")),
    *(table.name for table in RANKING_TABLES),
    "publishing",
]


class Histories(RuleBasedStateMachine):
    """A data root and its model, to which the same happens."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.harness = IngestHarness(Path(self.folder.name) / "data", ENGINE)
        self.model = Model()
        self.dropped: list[File] = []

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(table=TABLE, data=st.data())
    def drop(self, table: Table, data: st.DataObject) -> None:
        rows = data.draw(ROWS[table])
        self._drop(table, _csv(table, rows), tuple(rows))

    @precondition(lambda self: self.dropped)
    @rule(data=st.data())
    def drop_again(self, data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(self.dropped))
        self._drop(file.table, file.content, file.rows)

    @rule(table=TABLE, content=st.sampled_from(BAD_FILES))
    def drop_bad_file(self, table: Table, content: bytes) -> None:
        self._drop(table, content, None)

    @rule()
    def refresh(self) -> None:
        refresh = Refresh(self.harness)
        refresh.run()
        for table in RAW_TABLES:
            self.model.deliver(table)
        self.model.publish(self._raw_rows())
        assert self.harness.waiting() == []
        rejected = [path for path in self.harness.root.rejected.glob("*") if path.suffix != ".txt"]
        assert Counter(path.read_bytes() for path in rejected) == self.model.rejected_files
        rankings_now = {table.full_name: self.harness.rows(table) for table in RANKING_TABLES}
        assert rankings_now == self.model.rankings()
        assert refresh.unranked == self.model.unranked_plays()

    @rule(when=st.sampled_from(["before", "after"]), step=st.sampled_from(STEPS))
    def refresh_that_fails(self, when: str, step: str) -> None:
        refresh = Refresh(self.harness, (when, step))
        with suppress(InjectedError):
            refresh.run()
        for table in RAW_TABLES:
            if f"clearing of {table.name}" in refresh.done:
                self.model.deliver(table)
        if "publishing" in refresh.done:
            self.model.publish(self._raw_rows())

    @rule(table=st.sampled_from(TABLES))
    def vacuum(self, table: Table) -> None:
        self.harness.store.vacuum(table, 0)
        version = self.harness.store.table_version(table)
        found = {str(path) for path in self.harness.store.folder(table).glob("part-*/*")}
        assert found == set(version.files) or version.version < 0  # a table without a commit is not vacuumed

    @invariant()
    def every_file_waits_or_is_loaded(self) -> None:
        waiting = set(self.harness.waiting())
        assert {file.name for file in self.model.waiting} >= waiting
        for table in RAW_TABLES:
            loaded = self.harness.store.transactions(table)
            gone = [file for file in self.dropped if file.table is table and file.name not in waiting]
            for file in gone:
                assert file.rows is None or loaded.get(hashlib.sha256(file.content).hexdigest())

    @invariant()
    def tables_hold_files_as_a_whole_and_once(self) -> None:
        found = self._raw_rows()
        files = {file.name: file for file in self.dropped}
        loaded = {row[-1] for table in RAW_TABLES for row in found[table.full_name]}
        rows = Counter((*row, name) for name in loaded for row in good_rows(files[name]))
        assert found[USER_DATA.full_name] + found[USER_TOP_ARTISTS.full_name] == rows
        rejected = {row[1] for row in found[REJECTED_ROWS.full_name]}
        assert found[REJECTED_ROWS.full_name] == Counter(row for name in rejected for row in rejects(files[name]))
        for file in chain.from_iterable(self.model.delivered.values()):
            same = {each.name for each in self.dropped if each.table is file.table and each.content == file.content}
            assert not good_rows(file) or loaded & same
            assert not rejects(file) or rejected & same

    @invariant()
    def snapshot_equals_the_last_published_model(self) -> None:
        if self.model.published is None:
            assert not (self.harness.root.snapshots / "current.json").exists()
            return
        with connect(self.harness.root) as connection:
            for name, expected in self.model.published.items():
                if isinstance(expected, Counter):
                    found: Any = Counter(connection.execute(f"SELECT * EXCLUDE (ingested_at) FROM {name}").fetchall())
                else:
                    found = connection.execute(f"FROM {name}").fetchall()
                assert found == expected, name

    def _raw_rows(self) -> dict[str, Counter]:
        return {table.full_name: rows_of(self.harness.store, table) for table in (*RAW_TABLES, REJECTED_ROWS)}

    def _drop(self, table: Table, content: bytes, rows: tuple | None) -> None:
        file = File(table, f"{len(self.dropped)}.csv", content, rows)
        self.harness.drop(table, file.name, content)
        self.dropped.append(file)
        self.model.waiting.append(file)


def _csv(table: Table, rows: list[tuple | BadRow]) -> bytes:
    lines = [row.text if isinstance(row, BadRow) else ",".join(map(_text, row)) for row in rows]
    return "\n".join([",".join(column.name for column in table.delivered), *lines, ""]).encode()


def _text(value: object) -> str:
    return "" if value is None else str(value)


ENGINE = DuckDBEngine(Path(tempfile.gettempdir()) / "music_assets_model", threads=1)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Keep the log of hundreds of drops out of the report of a failure."""
    LOG.setLevel(logging.ERROR)
    yield
    LOG.setLevel(logging.NOTSET)


TestHistories = Histories.TestCase
TestHistories.settings = settings(examples(20), stateful_step_count=12)
