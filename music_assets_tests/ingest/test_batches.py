"""Each file exactly once: repeated, interrupted, raced, changed under the reader's hands."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from music_assets.data_root import DataRoot
from music_assets.ingest.batches import FILES, Ingest
from music_assets.ingest.csv_header import CsvFile
from music_assets.ingest.landing import IngestRunningError, Landing, identity_of
from music_assets.ingest.parser import ParsedFile, Parser
from music_assets.storage.delta import ConcurrentCommitError, DeltaStore
from music_assets.tables import RAW_TABLES, REJECTED_ROWS, USER_DATA, USER_TOP_ARTISTS, Table
from music_assets_tests.support.ingest_harness import LOG, IngestHarness

HEADER = "user_id,country,total_scrobbles\n"
MIXED = HEADER + "1,Germany,5\nx,Germany,6\n2,,\n"
LANDED = [(1, "Germany", 5), (2, None, None)]
REJECTED = [(3, "user_id", "not an integer", "x,Germany,6")]


class DiedError(Exception):
    """The process dies here."""


class DyingStore(DeltaStore):
    """A store whose process dies right after a commit to one of the tables."""

    def __init__(self, root: DataRoot, table: Table) -> None:
        super().__init__(root)
        self.table = table

    def append(
        self, table: Table, files: Sequence[Path], identities: Iterable[str], metadata: Mapping[str, Any]
    ) -> int:
        version = super().append(table, files, identities, metadata)
        if table is self.table:
            raise DiedError
        return version


class ParserWithSideEffect(Parser):
    """A parser after which something happens to each file, before anything is committed."""

    def __init__(self, parser: Parser, side_effect: Callable[[Path], object]) -> None:
        super().__init__(parser.engine, parser.scratch.parent, parser.threads)
        self.side_effect = side_effect

    def parse(self, csv_file: CsvFile, folder: Path, reject_folder: Path) -> ParsedFile:
        try:
            return super().parse(csv_file, folder, reject_folder)
        finally:
            self.side_effect(csv_file.path)


def take_with_side_effect(harness: IngestHarness, side_effect: Callable[[Path], object]) -> list[tuple[str, str]]:
    ingest = Ingest(harness.landing, harness.store, ParserWithSideEffect(harness.parser, side_effect))
    return [(file.name, file.outcome) for file in ingest.take(USER_DATA, LOG).files]


def outcomes(harness: IngestHarness) -> list[tuple[str, str]]:
    return [(file.name, file.outcome) for file in harness.load(USER_DATA).files]


def die(_: Path) -> None:
    raise DiedError


# ---- Repeated -------------------------------------------------------------------------------------------------------


def test_same_bytes_count_once(harness: IngestHarness, caplog: pytest.LogCaptureFixture) -> None:
    """Twice in one drop, and again in a later one, under any name; the log says so each time."""
    harness.drop(USER_DATA, "a.csv", MIXED)
    harness.drop(USER_DATA, "b.csv", MIXED)
    with caplog.at_level(logging.INFO):
        assert outcomes(harness) == [("a.csv", "landed"), ("b.csv", "duplicate")]
    assert "b.csv: duplicate, 0 rows, 0 rejected (the same bytes as a.csv: counted once, removed)" in caplog.messages

    before = [harness.store.table_version(table) for table in (USER_DATA, REJECTED_ROWS)]
    harness.drop(USER_DATA, "a.csv", MIXED)
    harness.drop(USER_DATA, "c.csv", MIXED)
    with caplog.at_level(logging.INFO):
        assert outcomes(harness) == [("a.csv", "duplicate"), ("c.csv", "duplicate")]
    assert "c.csv: duplicate, 0 rows, 0 rejected (the same bytes as a file taken before: counted once, removed)" in (
        caplog.messages
    )
    assert [harness.store.table_version(table) for table in (USER_DATA, REJECTED_ROWS)] == before
    assert harness.delivered(USER_DATA) == LANDED
    assert harness.rejected() == REJECTED
    assert not harness.waiting()


def test_identity_outlives_a_checkpoint(harness: IngestHarness) -> None:
    harness.drop(USER_DATA, "a.csv", MIXED)
    harness.load(USER_DATA)
    DeltaTable(str(harness.store.folder(USER_DATA))).create_checkpoint()
    harness.drop(USER_DATA, "a.csv", MIXED)
    assert outcomes(harness) == [("a.csv", "duplicate")]


def test_nothing_to_take_makes_empty_tables(harness: IngestHarness) -> None:
    assert harness.load(USER_DATA).files == []
    assert [harness.rows(table) for table in (USER_DATA, REJECTED_ROWS)] == [[], []]
    assert harness.store.table_version(USER_DATA).version >= 0


def test_report_and_commit_tell_of_each_file(harness: IngestHarness) -> None:
    harness.drop(USER_DATA, "a.csv", MIXED + "1,Chad,4\n1,,\n")
    harness.load(USER_DATA)
    ((file,),) = harness.store.commit_metadata(USER_DATA, FILES)
    assert file == {
        "name": "a.csv",
        "outcome": "landed",
        "bytes": len(MIXED) + 13,
        "rows": 4,
        "rejects": 1,
        "duplicates": 2,
        "note": "",
    }


# ---- Interrupted ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dies_after", ["parsing", "commit of rejects", "commit of rows"])
def test_crash_leaves_the_file_or_its_rows(harness: IngestHarness, dies_after: str) -> None:
    """Whenever the process dies, the next one ends where one that was not disturbed would have."""
    harness.drop(USER_DATA, "a.csv", MIXED)
    harness.drop(USER_DATA, "b.csv", HEADER + "3,Chad,1\n")
    store = harness.store
    if dies_after != "parsing":
        store = DyingStore(harness.root, REJECTED_ROWS if dies_after == "commit of rejects" else USER_DATA)
    parser = ParserWithSideEffect(harness.parser, die) if dies_after == "parsing" else harness.parser
    with pytest.raises(DiedError):
        Ingest(harness.landing, store, parser).take(USER_DATA, LOG)
    assert harness.waiting() == ["a.csv", "b.csv"]
    assert len(harness.delivered(USER_DATA)) == (3 if dies_after == "commit of rows" else 0)

    again = "duplicate" if dies_after == "commit of rows" else "landed"
    assert outcomes(harness) == [("a.csv", again), ("b.csv", again)]
    assert harness.delivered(USER_DATA) == [*LANDED, (3, "Chad", 1)]
    assert harness.rejected() == REJECTED
    assert not harness.waiting()


def test_what_died_before_its_commit_is_vacuumed(harness: IngestHarness) -> None:
    """Parquet of a run that died stood in raw tables for good: only rankings were vacuumed."""
    harness.drop(USER_DATA, "a.csv", MIXED)
    with pytest.raises(DiedError):
        Ingest(harness.landing, DyingStore(harness.root, REJECTED_ROWS), harness.parser).take(USER_DATA, LOG)
    Ingest(harness.landing, harness.store, harness.parser, retention_hours=0).take(USER_DATA, LOG)
    for table in (USER_DATA, REJECTED_ROWS):
        left = {str(path) for path in harness.store.folder(table).rglob("*.parquet")}
        assert left == set(harness.store.table_version(table).files)
    assert harness.delivered(USER_DATA) == LANDED


# ---- Changed under the reader's hands -------------------------------------------------------------------------------


def test_file_that_changes_while_it_is_read_waits(harness: IngestHarness) -> None:
    path = harness.drop(USER_DATA, "a.csv", MIXED)
    assert take_with_side_effect(harness, lambda read: read.write_text(MIXED + "9,Chad,1\n")) == []
    assert (harness.delivered(USER_DATA), harness.rejected()) == ([], [])
    assert path.read_text() == MIXED + "9,Chad,1\n"
    assert outcomes(harness) == [("a.csv", "landed")]
    assert harness.delivered(USER_DATA) == [*LANDED, (9, "Chad", 1)]


def test_copy_of_a_file_that_changes_is_not_removed(harness: IngestHarness) -> None:
    """The copy was deleted as counted, while the rows of the file itself were not committed: they were lost."""
    harness.drop(USER_DATA, "a.csv", MIXED)
    harness.drop(USER_DATA, "b.csv", MIXED)

    def change(read: Path) -> None:
        if read.name == "a.csv":
            read.write_text(HEADER + "9,Chad,1\n")

    assert take_with_side_effect(harness, change) == []
    assert sorted(outcomes(harness)) == [("a.csv", "landed"), ("b.csv", "landed")]
    assert harness.delivered(USER_DATA) == [*LANDED, (9, "Chad", 1)]


def test_bad_file_that_changes_while_it_is_read_waits(harness: IngestHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file still being written was moved to rejected/ half written."""
    path = harness.drop(USER_DATA, "a.csv", "user_id,cou")
    listing = harness.landing.listing

    def listed_then_written_on(table: Table) -> list:
        files = listing(table)
        if files and path.stat().st_size < 20:
            path.write_text(HEADER + "1,Germany")
        return files

    monkeypatch.setattr(harness.landing, "listing", listed_then_written_on)
    monkeypatch.setattr(
        harness.landing, "complete", lambda: {table: harness.landing.listing(table) for table in RAW_TABLES}
    )
    assert outcomes(harness) == []
    assert path.read_text() == HEADER + "1,Germany"
    assert not harness.root.rejected.exists()


def test_file_that_vanishes_is_passed_over(harness: IngestHarness) -> None:
    harness.drop(USER_DATA, "a.csv", MIXED)
    harness.drop(USER_DATA, "b.csv", HEADER + "3,Chad,1\n")

    def remove_other(read: Path) -> None:
        read.with_name("b.csv").unlink(missing_ok=True)

    assert take_with_side_effect(harness, remove_other) == [("a.csv", "landed")]


# ---- Raced ----------------------------------------------------------------------------------------------------------


def test_second_ingest_is_refused(harness: IngestHarness) -> None:
    harness.drop(USER_DATA, "a.csv", MIXED)
    with (
        Landing(harness.root).exclusively(),
        pytest.raises(IngestRunningError, match=r"Another run is taking the files below .*Wait for it to end"),
    ):
        harness.load(USER_DATA)
    assert harness.waiting() == ["a.csv"]
    assert outcomes(harness) == [("a.csv", "landed")]


def test_commit_of_the_same_file_in_between(harness: IngestHarness) -> None:
    """Without the lock, as on storage shared by machines: the file waits, and its rows are in once."""
    path = harness.drop(USER_DATA, "a.csv", HEADER + "1,Germany,5\n")

    def commit(read: Path) -> None:
        folder = harness.store.new_folder(USER_DATA)
        moment = datetime(2020, 1, 1)
        row = {"user_id": 1, "country": "Germany", "total_scrobbles": 5, "source_file": "a.csv", "ingested_at": moment}
        schema = USER_DATA.schema.to_pyarrow()
        pq.write_table(pa.Table.from_pylist([row], pa.schema([f.with_nullable(True) for f in schema])), folder / "r")
        harness.store.append(USER_DATA, [folder / "r"], [identity_of(read)], {})

    with pytest.raises(ConcurrentCommitError, match="raw_parquet_user_data"):
        take_with_side_effect(harness, commit)
    assert path.exists()
    assert outcomes(harness) == [("a.csv", "duplicate")]
    assert harness.delivered(USER_DATA) == [(1, "Germany", 5)]


def test_a_file_that_is_replaced_after_it_was_hashed_ahead(harness: IngestHarness) -> None:
    """Taking the users hashes the artists' file, too; what is taken later is known by what stands in it by then."""
    header = "user_id,rank,artist_name,playcount,mbid\n"
    harness.drop(USER_DATA, "users.csv", HEADER + "1,Germany,5\n")
    harness.drop(USER_TOP_ARTISTS, "artists.csv", header + "1,1,Björk,5,\n")
    harness.load(USER_DATA)
    replaced = harness.drop(USER_TOP_ARTISTS, "artists.csv", header + "1,1,Drake,5,\n")
    identity = identity_of(replaced)
    harness.load(USER_TOP_ARTISTS)
    assert harness.delivered(USER_TOP_ARTISTS) == [(1, 1, "Drake", 5, None)]
    assert harness.store.committed_ids(USER_TOP_ARTISTS, [identity])


# ---- Later wins -----------------------------------------------------------------------------------------------------


def test_each_file_has_a_later_time_than_the_one_before(harness: IngestHarness) -> None:
    for number in range(3):
        harness.drop(USER_DATA, f"{number}.csv", HEADER + f"{number},,\n")
    harness.load(USER_DATA)
    harness.drop(USER_DATA, "3.csv", HEADER + "3,,\n")
    harness.load(USER_DATA)
    times = [time for _, time in sorted(harness.rows(USER_DATA, "source_file", "ingested_at"))]
    assert times == sorted(set(times))


def test_later_drop_wins_though_the_clock_went_back(harness: IngestHarness) -> None:
    future = datetime(2999, 12, 31, 23, 59, 59, 999999)
    folder = harness.store.new_folder(USER_DATA)
    csv_file = harness.drop(USER_DATA, "early.csv", HEADER + "1,Germany,5\n")
    harness.load(USER_DATA)
    (rows,) = harness.store.table_version(USER_DATA).files
    earlier = pq.read_table(rows)
    shifted = earlier.set_column(4, "ingested_at", pa.array([future], earlier.schema.field("ingested_at").type))
    pq.write_table(shifted, folder / "rows.parquet")
    harness.store.append(USER_DATA, [folder / "rows.parquet"], ["from the future"], {})

    assert not csv_file.exists()
    harness.drop(USER_DATA, "late.csv", HEADER + "1,Chad,6\n")
    harness.load(USER_DATA)
    latest = max(harness.rows(USER_DATA, "ingested_at", "country"))
    assert latest == (datetime(3000, 1, 1), "Chad")


def test_update_leaves_the_history_untouched(harness: IngestHarness) -> None:
    harness.drop(USER_DATA, "a.csv", HEADER + "".join(f"{user},Germany,1\n" for user in range(1000)))
    harness.load(USER_DATA)
    before = {file: seen(file) for file in harness.store.table_version(USER_DATA).files}
    harness.drop(USER_DATA, "b.csv", HEADER + "".join(f"{user},Chad,2\n" for user in range(990, 1010)))
    harness.load(USER_DATA)
    after = harness.store.table_version(USER_DATA).files
    assert set(before) < set(after)
    assert len(after) == len(before) + 1
    assert {file: seen(file) for file in before} == before
    assert len(harness.rows(USER_DATA)) == 1020


def seen(file: str) -> tuple[int, int]:
    status = Path(file).stat()
    return status.st_mtime_ns, status.st_ino
