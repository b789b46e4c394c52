"""Each file is loaded exactly once: repeated, interrupted, changed while it is read, raced by another process."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from music_assets.data_root import DataRoot, exclusive_lock
from music_assets.ingest.content_hash import content_hash
from music_assets.ingest.ingest import IngestRunningError
from music_assets.ingest.landing import DroppedFile
from music_assets.storage.delta import ConcurrentCommitError, DeltaStore
from music_assets.storage.lineage import FILES
from music_assets.tables import RAW_TABLES, REJECTED_ROWS, USER_DATA, USER_TOP_ARTISTS, Table
from music_assets_tests.support.ingest_harness import LOG, IngestHarness, ParserWithSideEffect

HEADER = "user_id,country,total_scrobbles\n"
MIXED = HEADER + "1,Germany,5\nx,Germany,6\n2,,\n"
GOOD = [(1, "Germany", 5), (2, None, None)]
REJECTED = [(3, "user_id", "not an integer", "x,Germany,6")]


class DiedError(Exception):
    """Simulates the death of the process."""


class DyingStore(DeltaStore):
    """A store after whose n-th commit to one of the tables the process dies."""

    def __init__(self, root: DataRoot, table: Table, commits: int = 1) -> None:
        super().__init__(root)
        self.table = table
        self.commits = commits

    def append(self, table: Table, *rest: Any) -> int:
        version = super().append(table, *rest)
        self.commits -= table is self.table
        if not self.commits:
            raise DiedError
        return version


def load_with_side_effect(harness: IngestHarness, side_effect: Callable[[Path], object]) -> list[tuple[str, str]]:
    """Load users; the side effect happens to each file after it was parsed and before it is committed."""
    ingest = harness.ingest_with(parser=ParserWithSideEffect(harness.parser, side_effect))
    return [(file.name, file.outcome) for file in ingest.load(USER_DATA, LOG).files]


def outcomes(harness: IngestHarness) -> list[tuple[str, str]]:
    return [(file.name, file.outcome) for file in harness.load(USER_DATA).files]


# ---- Repeated -------------------------------------------------------------------------------------------------------


def test_same_content_is_loaded_once(harness: IngestHarness, caplog: pytest.LogCaptureFixture) -> None:
    """Twice in one drop, and again in a later one, under any name; the log says so each time."""
    harness.drop(USER_DATA, "a.csv", MIXED)
    harness.drop(USER_DATA, "b.csv", MIXED)
    with caplog.at_level(logging.INFO):
        assert outcomes(harness) == [("a.csv", "loaded"), ("b.csv", "duplicate")]
    assert "b.csv: duplicate, 0 rows, 0 rejected (same content as a.csv: counted once, deleted)" in caplog.messages

    before = [harness.store.table_version(table) for table in (USER_DATA, REJECTED_ROWS)]
    harness.drop(USER_DATA, "a.csv", MIXED)
    harness.drop(USER_DATA, "c.csv", MIXED)
    with caplog.at_level(logging.INFO):
        assert outcomes(harness) == [("a.csv", "duplicate"), ("c.csv", "duplicate")]
    assert "c.csv: duplicate, 0 rows, 0 rejected (same content as a file loaded before: counted once, deleted)" in (
        caplog.messages
    )
    assert [harness.store.table_version(table) for table in (USER_DATA, REJECTED_ROWS)] == before
    assert harness.delivered(USER_DATA) == GOOD
    assert harness.rejected() == REJECTED
    assert not harness.waiting()


def test_content_is_known_after_a_checkpoint(harness: IngestHarness) -> None:
    harness.drop(USER_DATA, "a.csv", MIXED)
    harness.load(USER_DATA)
    DeltaTable(str(harness.store.folder(USER_DATA))).create_checkpoint()
    harness.drop(USER_DATA, "a.csv", MIXED)
    assert outcomes(harness) == [("a.csv", "duplicate")]


# ---- Delivered again ------------------------------------------------------------------------------------------------

A, B = HEADER + "1,Germany,5\n2,Mali,2\n", HEADER + "1,Chad,6\n"
C, D = HEADER + "3,Chad,7\nx,Chad,7\n", HEADER + "2,Peru,8\n3,Peru,8\n"
CONTENTS = {"a": A, "b": B, "c": C, "d": D}


def current(harness: IngestHarness) -> dict[int, str]:
    """Return the country of each user in the row of the latest file, in plain Python."""
    rows = sorted(harness.rows(USER_DATA, "ingested_at", "user_id", "country"))
    return {user: country for _, user, country in rows}


def loads(harness: IngestHarness) -> str:
    """Return the names of the loaded files, without suffix and number, in the order of loading."""
    return "".join(name[0] for _, name in sorted(set(harness.rows(USER_DATA, "ingested_at", "source_file"))))


@pytest.mark.parametrize(
    ("drops", "loaded", "countries"),
    [
        pytest.param("a b a", "aba", {1: "Germany", 2: "Mali"}, id="replaced in between"),
        pytest.param("aba", "aba", {1: "Germany", 2: "Mali"}, id="replaced in between, in one drop"),
        pytest.param("a ba", "aba", {1: "Germany", 2: "Mali"}, id="replaced by a new file of the same drop"),
        pytest.param("a c a", "ac", {1: "Germany", 2: "Mali", 3: "Chad"}, id="not replaced"),
        pytest.param("a ca", "ac", {1: "Germany", 2: "Mali", 3: "Chad"}, id="not replaced by a new file of the drop"),
        pytest.param("aca", "ac", {1: "Germany", 2: "Mali", 3: "Chad"}, id="not replaced, in one drop"),
        pytest.param("ab ab", "ab", {1: "Chad", 2: "Mali"}, id="mirror"),
        pytest.param("abcd abcd abcd", "abcd", {1: "Chad", 2: "Peru", 3: "Peru"}, id="mirror, three times"),
        pytest.param("abcd ad", "abcdad", {1: "Germany", 2: "Peru", 3: "Peru"}, id="a part of a mirror"),
        pytest.param("abcd a d", "abcdad", {1: "Germany", 2: "Peru", 3: "Peru"}, id="a mirror file by file"),
        pytest.param("ab ba", "aba", {1: "Germany", 2: "Mali"}, id="in another order"),
        pytest.param("ad da d", "adad", {1: "Germany", 2: "Peru", 3: "Peru"}, id="in another order, and once more"),
        pytest.param("a b a b a", "ababa", {1: "Germany", 2: "Mali"}, id="in turn"),
        pytest.param("ab aba", "aba", {1: "Germany", 2: "Mali"}, id="twice in a drop"),
        pytest.param("aa", "a", {1: "Germany", 2: "Mali"}, id="copies"),
    ],
)
def test_latest_drop_wins_when_contents_are_delivered_again(
    harness: IngestHarness, drops: str, loaded: str, countries: dict[int, str]
) -> None:
    """A content is loaded again only if the current rows would not be those of the latest drop."""
    for drop in drops.split():
        for number, name in enumerate(drop):
            harness.drop(USER_DATA, f"{name}{number}.csv", CONTENTS[name])
        harness.load(USER_DATA)
        assert harness.waiting() == []
    assert current(harness) == countries
    assert loads(harness) == loaded


def test_content_that_is_loaded_again_has_its_rejects_again(
    harness: IngestHarness, caplog: pytest.LogCaptureFixture
) -> None:
    for content in (C, D, C):
        harness.drop(USER_DATA, "users.csv", content)
        with caplog.at_level(logging.INFO):
            harness.load(USER_DATA)
    assert harness.rejected() == [(3, "user_id", "not an integer", "x,Chad,7")] * 2
    again = "users.csv: loaded, 1 rows, 1 rejected (loaded again, since later drops had replaced its rows)"
    assert again in caplog.messages
    assert set(harness.rows(REJECTED_ROWS, "ingested_at")) == {
        (time,) for time, country in set(harness.rows(USER_DATA, "ingested_at", "country")) if country == "Chad"
    }


def test_content_of_release_0_1_is_a_new_delivery(harness: IngestHarness) -> None:
    """Its log does not say when the content was loaded. Afterwards the time is known."""
    path = harness.drop(USER_DATA, "a.csv", A)
    harness.store.append(USER_DATA, [], {content_hash(path): 1}, {})
    assert outcomes(harness) == [("a.csv", "loaded")]
    harness.drop(USER_DATA, "a.csv", A)
    assert outcomes(harness) == [("a.csv", "duplicate")]
    assert harness.delivered(USER_DATA) == [(1, "Germany", 5), (2, "Mali", 2)]


@pytest.mark.parametrize("dropped", ["ab", "aba", "ac aba", "ab ab", "ac ba"])
@pytest.mark.parametrize("dies_after", [1, 2])
def test_file_left_over_by_a_dead_run_is_no_new_delivery(harness: IngestHarness, dropped: str, dies_after: int) -> None:
    """The run dies after it has committed rows. What is left over must not replace what the run loaded later."""
    *earlier, last = dropped.split()
    for drop in [*earlier, last]:
        for number, name in enumerate(drop):
            harness.drop(USER_DATA, f"{name}{number}.csv", CONTENTS[name])
        if drop is last:
            with contextlib.suppress(DiedError):
                harness.ingest_with(DyingStore(harness.root, USER_DATA, dies_after)).load(USER_DATA, LOG)
        harness.load(USER_DATA)
    undisturbed = IngestHarness(harness.root.path / "undisturbed", harness.engine)
    for drop in [*earlier, last]:
        for number, name in enumerate(drop):
            undisturbed.drop(USER_DATA, f"{name}{number}.csv", CONTENTS[name])
        undisturbed.load(USER_DATA)
    assert current(harness) == current(undisturbed)
    assert loads(harness) == loads(undisturbed)
    assert harness.waiting() == []


@pytest.mark.parametrize("kind", ["loaded", "repeat", "copy"])
def test_file_that_cannot_be_deleted_is_no_new_delivery(
    harness: IngestHarness, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It stays in the folder for ever, and must not replace what is loaded later."""
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == "stays.csv":
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok)

    if kind == "repeat":
        harness.drop(USER_DATA, "a.csv", A)
        harness.load(USER_DATA)
    if kind == "copy":
        harness.drop(USER_DATA, "a.csv", A)
    harness.drop(USER_DATA, "stays.csv", A)
    monkeypatch.setattr(Path, "unlink", refuse)
    harness.load(USER_DATA)
    harness.drop(USER_DATA, "b.csv", B)
    for _ in range(2):
        harness.load(USER_DATA)
        assert current(harness) == {1: "Chad", 2: "Mali"}
    assert loads(harness) in ("ab", "sb")
    assert harness.waiting() == ["stays.csv"]


def test_new_file_with_name_inode_and_time_of_a_deleted_one_is_a_new_delivery(
    harness: IngestHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems use the inode of a deleted file again, and mirrors keep names and modification times."""
    unchanging = DroppedFile.at
    monkeypatch.setattr(DroppedFile, "at", lambda path: dataclasses.replace(unchanging(path), inode=7))
    for content in (A, B, A):
        path = harness.drop(USER_DATA, "users.csv", content)
        os.utime(path, (1_000_000_000, 1_000_000_000))
        harness.load(USER_DATA)
    assert current(harness) == {1: "Germany", 2: "Mali"}


def test_ingest_without_files_creates_empty_tables(harness: IngestHarness) -> None:
    assert harness.load(USER_DATA).files == []
    assert [harness.rows(table) for table in (USER_DATA, REJECTED_ROWS)] == [[], []]
    assert harness.store.table_version(USER_DATA).version >= 0


def test_commit_metadata_reports_each_file(harness: IngestHarness) -> None:
    harness.drop(USER_DATA, "a.csv", MIXED + "1,Chad,4\n1,,\n")
    path = harness.root.drop_folder(USER_DATA) / "a.csv"
    status, digest = path.stat(), content_hash(path)
    harness.load(USER_DATA)
    ((file,),) = harness.store.commit_metadata(USER_DATA, FILES)
    ((ingested_at,),) = set(harness.rows(USER_DATA, "ingested_at"))
    assert file == {
        "name": "a.csv",
        "outcome": "loaded",
        "bytes": len(MIXED) + 13,
        "rows": 4,
        "rejects": 1,
        "duplicates": 2,
        "note": "",
        "content_hash": digest,
        "ingested_at": ingested_at.isoformat(),
        "inode": status.st_ino,
        "modified_ns": status.st_mtime_ns,
        "key_fields": [0],
    }


# ---- Interrupted ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dies_after", ["parsing", "commit of rejects", "commit of rows"])
def test_crash_leaves_the_file_or_its_rows(harness: IngestHarness, dies_after: str) -> None:
    """Wherever the process dies, the next run ends where an undisturbed run would have."""

    def die(_: Path) -> None:
        raise DiedError

    harness.drop(USER_DATA, "a.csv", MIXED)
    harness.drop(USER_DATA, "b.csv", HEADER + "3,Chad,1\n")
    store, parser = harness.store, harness.parser
    if dies_after == "parsing":
        parser = ParserWithSideEffect(parser, die)
    else:
        store = DyingStore(harness.root, REJECTED_ROWS if dies_after == "commit of rejects" else USER_DATA)
    with pytest.raises(DiedError):
        harness.ingest_with(store, parser).load(USER_DATA, LOG)
    assert harness.waiting() == ["a.csv", "b.csv"]
    assert len(harness.delivered(USER_DATA)) == (3 if dies_after == "commit of rows" else 0)

    again = "duplicate" if dies_after == "commit of rows" else "loaded"
    assert outcomes(harness) == [("a.csv", again), ("b.csv", again)]
    assert harness.delivered(USER_DATA) == [*GOOD, (3, "Chad", 1)]
    assert harness.rejected() == REJECTED
    assert not harness.waiting()


def test_vacuum_removes_the_parquet_files_of_a_run_that_died(harness: IngestHarness) -> None:
    harness.drop(USER_DATA, "a.csv", MIXED)
    with pytest.raises(DiedError):
        harness.ingest_with(DyingStore(harness.root, REJECTED_ROWS)).load(USER_DATA, LOG)
    harness.ingest_with(retention_hours=0).load(USER_DATA, LOG)
    for table in (USER_DATA, REJECTED_ROWS):
        left = {str(path) for path in harness.store.folder(table).rglob("*.parquet")}
        assert left == set(harness.store.table_version(table).files)
    assert harness.delivered(USER_DATA) == GOOD


# ---- Changed while it is read ---------------------------------------------------------------------------------------


def test_file_that_changes_while_it_is_read_waits(harness: IngestHarness) -> None:
    path = harness.drop(USER_DATA, "a.csv", MIXED)
    assert load_with_side_effect(harness, lambda read: read.write_text(MIXED + "9,Chad,1\n")) == []
    assert (harness.delivered(USER_DATA), harness.rejected()) == ([], [])
    assert path.read_text() == MIXED + "9,Chad,1\n"
    assert outcomes(harness) == [("a.csv", "loaded")]
    assert harness.delivered(USER_DATA) == [*GOOD, (9, "Chad", 1)]


def test_copy_of_a_file_that_changes_is_not_deleted(harness: IngestHarness) -> None:
    """The copy must not be deleted as a duplicate, since the rows of the file were not committed."""
    harness.drop(USER_DATA, "a.csv", MIXED)
    harness.drop(USER_DATA, "b.csv", MIXED)

    def change(read: Path) -> None:
        if read.name == "a.csv":
            read.write_text(HEADER + "9,Chad,1\n")

    assert load_with_side_effect(harness, change) == []
    assert sorted(outcomes(harness)) == [("a.csv", "loaded"), ("b.csv", "loaded")]
    assert harness.delivered(USER_DATA) == [*GOOD, (9, "Chad", 1)]


def test_bad_file_that_changes_while_it_is_read_waits(harness: IngestHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is still being written must not be moved to rejected/."""
    path = harness.drop(USER_DATA, "a.csv", "user_id,cou")

    def complete_files_then_append() -> Mapping[Table, list[DroppedFile]]:
        files = {table: harness.landing.files(table) for table in RAW_TABLES}
        path.write_text("user_id,country")
        return files

    monkeypatch.setattr(harness.landing, "complete_files", complete_files_then_append)
    assert outcomes(harness) == []
    assert path.read_text() == "user_id,country"
    assert not harness.root.rejected.exists()


def test_file_that_vanishes_is_skipped(harness: IngestHarness) -> None:
    harness.drop(USER_DATA, "a.csv", MIXED)
    harness.drop(USER_DATA, "b.csv", HEADER + "3,Chad,1\n")

    def delete_other(read: Path) -> None:
        read.with_name("b.csv").unlink(missing_ok=True)

    assert load_with_side_effect(harness, delete_other) == [("a.csv", "loaded")]


# ---- Raced ----------------------------------------------------------------------------------------------------------


def test_second_ingest_is_refused_while_one_runs(harness: IngestHarness) -> None:
    harness.drop(USER_DATA, "a.csv", MIXED)
    with (
        exclusive_lock(harness.root.ingest_lock),
        pytest.raises(IngestRunningError, match=r"Another run is loading files below .*Wait until it has ended"),
    ):
        harness.load(USER_DATA)
    assert harness.waiting() == ["a.csv"]
    assert outcomes(harness) == [("a.csv", "loaded")]


def test_commit_of_the_same_file_by_another_process(harness: IngestHarness) -> None:
    """Even if the lock does not work, as on some shared file systems, the rows are loaded once."""
    path = harness.drop(USER_DATA, "a.csv", HEADER + "1,Germany,5\n")

    def commit(read: Path) -> None:
        folder = harness.store.new_folder(USER_DATA)
        moment = datetime(2020, 1, 1)
        row = {"user_id": 1, "country": "Germany", "total_scrobbles": 5, "source_file": "a.csv", "ingested_at": moment}
        schema = USER_DATA.schema.to_pyarrow()
        pq.write_table(pa.Table.from_pylist([row], pa.schema([f.with_nullable(True) for f in schema])), folder / "r")
        harness.store.append(USER_DATA, [folder / "r"], {content_hash(read): 1_577_836_800_000_000}, {})

    with pytest.raises(ConcurrentCommitError, match="raw_parquet_user_data"):
        load_with_side_effect(harness, commit)
    assert path.exists()
    assert outcomes(harness) == [("a.csv", "duplicate")]
    assert harness.delivered(USER_DATA) == [(1, "Germany", 5)]


def test_file_that_is_replaced_after_it_was_hashed_ahead(harness: IngestHarness) -> None:
    """Loading users hashes the file of artists ahead; it is committed under the hash of what it contains later."""
    header = "user_id,rank,artist_name,playcount,mbid\n"
    harness.drop(USER_DATA, "users.csv", HEADER + "1,Germany,5\n")
    harness.drop(USER_TOP_ARTISTS, "artists.csv", header + "1,1,Björk,5,\n")
    harness.load(USER_DATA)
    replaced = harness.drop(USER_TOP_ARTISTS, "artists.csv", header + "1,1,Drake,5,\n")
    expected = content_hash(replaced)
    harness.load(USER_TOP_ARTISTS)
    assert harness.delivered(USER_TOP_ARTISTS) == [(1, 1, "Drake", 5, None)]
    assert harness.store.transactions(USER_TOP_ARTISTS, [expected])


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
    harness.store.append(USER_DATA, [folder / "rows.parquet"], {"from the future": 1}, {})

    assert not csv_file.exists()
    harness.drop(USER_DATA, "late.csv", HEADER + "1,Chad,6\n")
    harness.load(USER_DATA)
    latest = max(harness.rows(USER_DATA, "ingested_at", "country"))
    assert latest == (datetime(3000, 1, 1), "Chad")


def test_update_does_not_touch_history(harness: IngestHarness) -> None:
    harness.drop(USER_DATA, "a.csv", HEADER + "".join(f"{user},Germany,1\n" for user in range(1000)))
    harness.load(USER_DATA)
    before = {file: DroppedFile.at(Path(file)) for file in harness.store.table_version(USER_DATA).files}
    harness.drop(USER_DATA, "b.csv", HEADER + "".join(f"{user},Chad,2\n" for user in range(990, 1010)))
    harness.load(USER_DATA)
    after = harness.store.table_version(USER_DATA).files
    assert set(before) < set(after)
    assert len(after) == len(before) + 1
    assert all(status.is_unchanged() for status in before.values())
    assert len(harness.rows(USER_DATA)) == 1020
