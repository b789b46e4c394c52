"""The drop folders: which files are listed, when they are complete, and how files are placed there."""

import os
import time
from pathlib import Path

import pytest

from music_assets.data_root import DataRoot
from music_assets.ingest.csv_header import BadFileError
from music_assets.ingest.landing import DroppedFile, Landing
from music_assets.tables import USER_DATA

USERS = "user_id,country,total_scrobbles\n1,Germany,5\n"


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    landing = Landing(DataRoot(tmp_path / "data"), settle_seconds=60, recheck_seconds=0)
    landing.root.prepare()
    return landing


def drop(landing: Landing, name: str, seconds_ago: float, content: str = USERS) -> Path:
    path = landing.root.drop_folder(USER_DATA) / name
    path.write_text(content)
    os.utime(path, (time.time() - seconds_ago,) * 2)
    return path


def names(landing: Landing) -> list[str]:
    return [file.name for file in landing.complete_files()[USER_DATA]]


def test_regular_csv_files_are_listed(landing: Landing, tmp_path: Path) -> None:
    for name in ("a.csv", "B.CSV", "c.csv.gz", "d.e.csv"):
        drop(landing, name, 100)
    hidden = (".a.csv", "_a.csv", "a.csv.tmp", "a.csv.part", "a.csv.crdownload", "a.tsv", "a.gz", "csv", "a.csv.zip")
    for name in hidden:
        drop(landing, name, 100)
    (landing.root.drop_folder(USER_DATA) / "folder.csv").mkdir()
    (landing.root.drop_folder(USER_DATA) / "link.csv").symlink_to(drop(landing, "target", 100))
    (landing.root.drop_folder(USER_DATA) / "dangling.csv").symlink_to(tmp_path / "nowhere")
    os.mkfifo(landing.root.drop_folder(USER_DATA) / "pipe.csv")
    assert sorted(names(landing)) == ["B.CSV", "a.csv", "c.csv.gz", "d.e.csv"]


def test_file_is_complete_once_it_has_settled(landing: Landing) -> None:
    drop(landing, "fresh.csv", 30)
    drop(landing, "settled.csv", 90)
    drop(landing, "from_the_future.csv", -1000)
    assert names(landing) == ["settled.csv"]


def test_oldest_file_comes_first(landing: Landing) -> None:
    for name, age in (("b.csv", 300), ("a.csv", 200), ("c.csv", 400)):
        drop(landing, name, age)
    assert names(landing) == ["c.csv", "b.csv", "a.csv"]


@pytest.mark.parametrize("change", ["grows", "touched", "replaced", "gone"])
def test_change_between_two_checks(landing: Landing, change: str) -> None:
    path = drop(landing, "a.csv", 100)
    seen = DroppedFile.at(path)
    assert seen.is_unchanged()
    times = (seen.modified_ns, seen.modified_ns)
    if change == "grows":
        path.write_text(USERS + USERS)
        os.utime(path, ns=times)
    elif change == "touched":
        path.touch()
    elif change == "replaced":
        other = drop(landing, "other.csv", 100)
        os.utime(other, ns=times)
        other.replace(path)
    else:
        path.unlink()
    assert not seen.is_unchanged()


def test_only_files_seen_for_the_first_time_are_waited_for(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[bool] = []
    monkeypatch.setattr(time, "sleep", lambda seconds: pauses.append(seconds > 0))
    landing.recheck_seconds = 0.5
    landing.complete_files()
    path = drop(landing, "a.csv", 100)
    assert names(landing) == ["a.csv"]
    assert pauses == [True]
    landing.recheck_seconds = 0
    assert names(landing) == ["a.csv"]
    landing.recheck_seconds = 0.5
    os.utime(path, (time.time() - 200,) * 2)
    assert names(landing) == ["a.csv"]
    assert pauses == [True, False, True]


def test_folder_that_cannot_be_listed_raises(landing: Landing) -> None:
    """It must not be mistaken for an empty one."""
    landing.root.drop_folder(USER_DATA).rmdir()
    with pytest.raises(FileNotFoundError):
        landing.complete_files()
    landing.root.drop_folder(USER_DATA).write_text("a file where the folder was")
    with pytest.raises(OSError, match="Not a directory"):
        landing.complete_files()
    with pytest.raises(OSError, match="exists"):
        landing.root.prepare()


def test_place_overwrites_nothing(landing: Landing, tmp_path: Path) -> None:
    copied: list[int] = []
    placed = []
    for content in (USERS, USERS + "2,,\n"):
        source = tmp_path / "users.csv"
        source.write_text(content)
        placed.append(landing.place(source, copied.append))
    assert [path.name for path in placed] == ["users.csv", "users-2.csv"]
    assert [path.read_text() for path in placed] == [USERS, USERS + "2,,\n"]
    assert sum(copied) == 2 * len(USERS) + 4
    assert sorted(path.name for path in landing.root.drop_folder(USER_DATA).iterdir()) == ["users-2.csv", "users.csv"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "user_id,land\n1,x\n", "fits no table"),
        ("a.csv", "user_id,country,total_scrobbles,rank,artist_name,playcount,mbid\n", "fits more than one table"),
        ("a.txt", USERS, "its name ends neither in .csv nor in .csv.gz"),
        ("a.csv", "", "empty"),
    ],
)
def test_place_refuses_a_file_that_matches_no_table(
    landing: Landing, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(BadFileError, match=message):
        landing.place(tmp_path / name)
    assert not any(path.is_file() for path in landing.root.path.glob("user_data/*/*"))
