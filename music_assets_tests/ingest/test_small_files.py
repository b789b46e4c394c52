"""Many small files in one drop: parsed together, with the same result as one by one."""

import logging
from pathlib import Path
from typing import Any

import pytest

from music_assets.storage.lineage import FILES
from music_assets.tables import REJECTED_ROWS, USER_DATA, Table
from music_assets_tests.support.ingest_harness import LOG, IngestHarness, ParserWithSideEffect

HEADER = "user_id,country,total_scrobbles\n"
FILES_DROPPED = 300


def drop_many(harness: IngestHarness, number: int = FILES_DROPPED) -> list[Path]:
    """Drop files of two users each, the second of whom is in every file."""
    return [
        harness.drop(USER_DATA, f"{user:05}.csv", HEADER + f"{user},Germany,{user}\n1000000,Chad,{user}\n")
        for user in range(number)
    ]


def reported(harness: IngestHarness) -> dict[str, dict]:
    """Return what the commits of the table report of each file."""
    return {file["name"]: file for files in harness.store.commit_metadata(USER_DATA, FILES) for file in files}


def test_they_share_one_parquet_file(harness: IngestHarness) -> None:
    """Not one parquet file for each CSV file, which every query would read."""
    drop_many(harness)
    report = harness.load(USER_DATA)
    assert len(harness.store.table_version(USER_DATA).files) == 1
    assert [file.name for file in report.files] == [f"{user:05}.csv" for user in range(FILES_DROPPED)]
    assert {(file.outcome, file.rows, file.rejects, file.duplicates) for file in report.files} == {("loaded", 2, 0, 0)}
    assert harness.delivered(USER_DATA) == sorted(
        [(user, "Germany", user) for user in range(FILES_DROPPED)]
        + [(1000000, "Chad", user) for user in range(FILES_DROPPED)],
        key=repr,
    )
    assert not harness.waiting()


def test_log_names_only_files_with_a_remark(harness: IngestHarness, caplog: pytest.LogCaptureFixture) -> None:
    """Ten thousand lines of log take longer to write than the rows."""
    drop_many(harness, 50)
    harness.drop(USER_DATA, "mixed.csv", HEADER + "1,,1\nx,,1\n")
    harness.drop(USER_DATA, "more.csv", "more," + HEADER + ",1,,1\n")
    with caplog.at_level(logging.INFO):
        harness.load(USER_DATA)
    assert "Loaded 52 files with 102 rows into user_data" in caplog.messages
    assert "mixed.csv: loaded, 1 rows, 1 rejected" in caplog.messages
    assert "more.csv: loaded, 1 rows, 0 rejected (unknown columns ignored: more)" in caplog.messages
    assert not [message for message in caplog.messages if message.startswith("00")]


def test_later_file_has_a_later_time(harness: IngestHarness) -> None:
    drop_many(harness, 50)
    harness.load(USER_DATA)
    files = [name for _, name in sorted(set(harness.rows(USER_DATA, "ingested_at", "source_file")))]
    assert files == [f"{user:05}.csv" for user in range(50)]
    assert max(harness.rows(USER_DATA, "ingested_at", "total_scrobbles"))[1] == 49


def test_each_file_has_its_own_report(harness: IngestHarness) -> None:
    drop_many(harness, 30)
    harness.drop(USER_DATA, "mixed.csv", "country,more,user_id,total_scrobbles\nMali,,7,1\nMali,,7,2\nMali,,x,1\n1\n")
    harness.drop(USER_DATA, "none.csv", HEADER)
    harness.drop(USER_DATA, "bad.csv", "user_id,country\n1,Mali\n")
    harness.drop(USER_DATA, "copy.csv", HEADER + "29,Germany,29\n1000000,Chad,29\n")
    report = harness.load(USER_DATA)
    found = {file.name: (file.outcome, file.rows, file.rejects, file.duplicates) for file in report.files[30:]}
    assert found == {
        "mixed.csv": ("loaded", 2, 2, 1),
        "none.csv": ("loaded", 0, 0, 0),
        "copy.csv": ("duplicate", 0, 0, 0),
        "bad.csv": ("rejected", 0, 0, 0),
    }
    assert dict(report.reject_reasons) == {"not an integer": 1, "wrong number of fields": 1}
    assert harness.rejected() == [
        (4, "user_id", "not an integer", "Mali,,x,1"),
        (5, None, "wrong number of fields", "1"),
    ]
    assert set(harness.rows(REJECTED_ROWS, "table_name", "source_file")) == {("user_data", "mixed.csv")}
    assert reported(harness)["mixed.csv"]["note"] == "unknown columns ignored: more"
    assert sorted(path.name for path in harness.root.rejected.iterdir()) == ["bad.csv", "bad.csv.reason.txt"]
    assert not harness.waiting()


def test_result_is_the_same_as_one_by_one(harness: IngestHarness, tmp_path: Path) -> None:
    """The same content gives the same rows and rejects, whether one file is waiting or many."""
    corpus = sorted((Path(__file__).parent / "csv_corpus" / "good").glob("*.csv"))
    contents = [file.read_bytes() for file in corpus if b"rank" not in file.read_bytes()]
    one_by_one = IngestHarness(tmp_path / "one by one", harness.engine)
    for number, content in enumerate(contents):
        one_by_one.drop(USER_DATA, f"{number}.csv", content)
        one_by_one.load(USER_DATA)
        harness.drop(USER_DATA, f"{number}.csv", content)
    drop_many(harness, 30)
    harness.load(USER_DATA)
    drop_many(one_by_one, 30)
    one_by_one.load(USER_DATA)
    assert contents
    for table in (USER_DATA, REJECTED_ROWS):
        names = [column.name for column in table.columns if column.name != "ingested_at"]
        assert sorted(harness.rows(table, *names), key=repr) == sorted(one_by_one.rows(table, *names), key=repr)


def test_files_that_are_dropped_again_count_once(harness: IngestHarness) -> None:
    drop_many(harness, 50)
    harness.load(USER_DATA)
    before = harness.store.table_version(USER_DATA)
    drop_many(harness, 50)
    assert {file.outcome for file in harness.load(USER_DATA).files} == {"duplicate"}
    assert harness.store.table_version(USER_DATA) == before
    assert not harness.waiting()


def test_file_that_changes_while_they_are_read_waits(harness: IngestHarness) -> None:
    """All other files are loaded, and no row of the one that changed."""
    files = drop_many(harness, 50)

    def change_one(path: Path) -> None:
        if path == files[7]:
            path.write_text(HEADER + "7,Mali,7\n")

    parser = ParserWithSideEffect(harness.parser, change_one)
    harness.ingest_with(parser=parser).load(USER_DATA, LOG)
    assert harness.waiting() == ["00007.csv"]
    assert sorted(reported(harness)) == [file.name for file in files if file != files[7]]
    assert len(harness.delivered(USER_DATA)) == 98
    harness.load(USER_DATA)
    assert (7, "Mali", 7) in harness.delivered(USER_DATA)


@pytest.mark.parametrize("known", ["no rejects", "rejects of some", "rejects of all"])
def test_crash_after_the_commit_of_rejects(harness: IngestHarness, known: str) -> None:
    """The rejects of a group share a parquet file: those committed before must not be committed again."""
    files = [
        harness.drop(USER_DATA, f"{user:02}.csv", HEADER + f"{user},Germany,1\nx,{user},1\n") for user in range(40)
    ]
    some = {"no rejects": [], "rejects of some": files[10:30], "rejects of all": files}[known]

    def die(table: Table, *_: Any) -> int:
        raise InterruptedError

    if some:
        renamed = {file: file.rename(file.with_suffix(".part")) for file in files if file not in some}
        interrupted = IngestHarness(harness.root, harness.engine)
        append = interrupted.store.append
        interrupted.store.append = lambda table, *rest: (die if table is USER_DATA else append)(table, *rest)  # type: ignore[method-assign]
        with pytest.raises(InterruptedError):
            interrupted.load(USER_DATA)
        for file, hidden in renamed.items():
            hidden.rename(file)
    harness.load(USER_DATA)
    assert harness.delivered(USER_DATA) == sorted(((user, "Germany", 1) for user in range(40)), key=repr)
    assert sorted(harness.rows(REJECTED_ROWS, "raw_line")) == sorted((f"x,{user},1",) for user in range(40))
    assert not harness.waiting()
