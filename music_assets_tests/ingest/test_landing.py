"""The drop folders: which files are listed, when they are complete, and how files are placed there."""

import os
import resource
import sys
import time
from contextlib import ExitStack
from math import inf
from pathlib import Path
from threading import Timer
from unittest.mock import Mock

import pytest

from music_assets.data_root import DataRoot
from music_assets.ingest.csv_header import BadFileError
from music_assets.ingest.landing import DroppedFile, Landing
from music_assets.tables import USER_DATA

USERS = "user_id,country,total_scrobbles\n1,Germany,5\n"


class Clock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def monotonic_ns(self) -> int:
        return int(self.seconds * 1e9)

    def time(self) -> float:
        return time.time()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("music_assets.ingest.landing.time", clock)
    return clock


@pytest.fixture
def landing(tmp_path: Path, clock: Clock) -> Landing:
    landing = Landing(DataRoot(tmp_path / "data"), settle_seconds=60)
    landing.root.prepare()
    return landing


def drop(landing: Landing, name: str, seconds_ago: float, content: str = USERS) -> Path:
    path = landing.root.drop_folder(USER_DATA) / name
    path.write_text(content)
    os.utime(path, (time.time() - seconds_ago,) * 2)
    return path


def names(landing: Landing, maximum_wait: float = inf) -> list[str]:
    return [file.name for file in landing.complete_files(maximum_wait)[USER_DATA]]


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


@pytest.mark.parametrize("seconds_ago", [0, 90, -1000], ids=["fresh", "old", "from the future"])
def test_file_is_complete_after_two_equal_looks(landing: Landing, clock: Clock, seconds_ago: float) -> None:
    """Whatever its modification time is; a file from the future used to wait until then."""
    drop(landing, "a.csv", seconds_ago)
    assert names(landing, maximum_wait=59) == []
    clock.sleep(59)
    assert names(landing, maximum_wait=0) == []
    clock.sleep(1)
    assert names(landing, maximum_wait=0) == ["a.csv"]


def test_run_waits_the_settle_time_once(landing: Landing, clock: Clock) -> None:
    assert names(landing) == []
    assert clock.seconds == 1_000
    drop(landing, "a.csv", 100)
    assert names(landing) == ["a.csv"]
    assert names(landing) == ["a.csv"]
    assert clock.seconds == 1_060


def test_run_does_not_wait_for_files_that_the_sensor_has_watched(landing: Landing, clock: Clock) -> None:
    path = drop(landing, "a.csv", 100)
    assert names(landing, maximum_wait=0) == []
    clock.sleep(60)
    another_process = Landing(landing.root, settle_seconds=60)
    assert names(another_process, maximum_wait=0) == ["a.csv"]
    path.unlink()
    drop(landing, "a.csv", 100, USERS + "2,,\n")
    assert names(Landing(landing.root, settle_seconds=60), maximum_wait=0) == []


def test_looks_stored_before_a_reboot_are_valid(landing: Landing, clock: Clock) -> None:
    """The monotonic clock starts again, so their times may be in the future."""
    drop(landing, "a.csv", 100)
    assert names(landing, maximum_wait=0) == []
    clock.seconds = 5
    rebooted = Landing(landing.root, settle_seconds=60)
    assert names(rebooted, maximum_wait=0) == []
    clock.sleep(60)
    assert names(rebooted, maximum_wait=0) == ["a.csv"]


def test_file_that_changes_between_two_looks_is_not_complete(landing: Landing, clock: Clock) -> None:
    """Its settle time starts again with the look that found it changed."""
    drop(landing, "a.csv", 100)
    assert names(landing, maximum_wait=0) == []
    clock.sleep(45)
    drop(landing, "a.csv", 100, USERS + "2,,\n")
    assert names(landing, maximum_wait=0) == []
    clock.sleep(45)
    assert names(landing, maximum_wait=0) == []
    clock.sleep(15)
    assert names(landing, maximum_wait=0) == ["a.csv"]


def test_growing_file_does_not_hold_back_others(landing: Landing, clock: Clock) -> None:
    drop(landing, "a.csv", 100)
    for size in range(1, 4):
        drop(landing, "growing.csv", 0, USERS * size)
        found = names(landing, maximum_wait=0)
        clock.sleep(30)
    assert found == ["a.csv"]


@pytest.fixture
def watching(tmp_path: Path) -> Landing:
    """Drop folders that a sensor watches; files there settle in an hour."""
    landing = Landing(DataRoot(tmp_path / "data"), settle_seconds=3_600)
    landing.root.prepare()
    landing.wait_for_files(0)
    return landing


needs_events = pytest.mark.skipif(sys.platform != "linux", reason="inotify is a part of Linux")


@needs_events
class TestWatch:
    @pytest.mark.parametrize("folder", [".", ".."], ids=["in the folder", "from another folder"])
    def test_renamed_file_is_complete_at_once_also_for_the_run(self, watching: Landing, folder: str) -> None:
        written = drop(watching, f"{folder}/.a.csv.part", 0)
        assert names(watching, maximum_wait=0) == []
        written.rename(watching.root.drop_folder(USER_DATA) / "a.csv")
        assert names(watching, maximum_wait=0) == ["a.csv"]
        assert names(Landing(watching.root, settle_seconds=3_600), maximum_wait=0) == ["a.csv"]

    def test_placed_file_is_complete_at_once(self, watching: Landing, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text(USERS)
        watching.place(tmp_path / "a.csv")
        assert names(watching, maximum_wait=0) == ["a.csv"]

    def test_file_that_is_written_under_its_name_settles(self, watching: Landing) -> None:
        drop(watching, "a.csv", 0)
        assert names(watching, maximum_wait=0) == []

    @pytest.mark.parametrize("seen", [False, True])
    def test_file_that_is_written_to_after_its_rename_settles(self, watching: Landing, seen: bool) -> None:
        path = drop(watching, ".a.csv.part", 0).rename(watching.root.drop_folder(USER_DATA) / "a.csv")
        if seen:
            assert names(watching, maximum_wait=0) == ["a.csv"]
        with path.open("a") as file:
            file.write("2,,\n")
        assert names(watching, maximum_wait=0) == []

    def test_file_that_is_written_to_through_another_link_settles(self, watching: Landing, tmp_path: Path) -> None:
        """The watch on the folder does not report that."""
        path = drop(watching, ".a.csv.part", 0).rename(watching.root.drop_folder(USER_DATA) / "a.csv")
        os.link(path, tmp_path / "link")
        assert names(watching, maximum_wait=0) == ["a.csv"]
        (tmp_path / "link").write_text(USERS + "2,,\n")
        assert names(watching, maximum_wait=0) == []

    def test_file_renamed_before_the_watch_settles(self, watching: Landing) -> None:
        drop(watching, ".a.csv.part", 0).rename(watching.root.drop_folder(USER_DATA) / "a.csv")
        late = Landing(watching.root, settle_seconds=3_600)
        late.wait_for_files(0)
        assert names(late, maximum_wait=0) == []

    def test_a_process_with_many_open_files_can_watch(self, tmp_path: Path) -> None:
        """`select` takes no descriptor above 1,023."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_096, hard), hard))
        with ExitStack() as opened:
            opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            for _ in range(1_024):
                opened.enter_context(Path(os.devnull).open())
            landing = Landing(DataRoot(tmp_path / "data"), settle_seconds=3_600)
            landing.root.prepare()
            landing.wait_for_files(0)
            drop(landing, ".a.csv.part", 0).rename(landing.root.drop_folder(USER_DATA) / "b.part")
            landing.wait_for_files(0.01)

    def test_folder_that_was_replaced_is_watched_again(self, watching: Landing) -> None:
        folder = watching.root.drop_folder(USER_DATA)
        folder.rename(folder.with_name("old"))
        watching.root.prepare()
        for _ in range(2):
            watching.wait_for_files(0)
            names(watching, maximum_wait=0)
        drop(watching, "../old/.a.csv.part", 0).rename(folder.with_name("old") / "a.csv")
        drop(watching, "a.csv", 0)
        drop(watching, ".b.csv.part", 0).rename(folder / "b.csv")
        assert names(watching, maximum_wait=0) == ["b.csv"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("events", [pytest.param(True, marks=needs_events), False])
def test_wait_ends_when_a_file_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: bool) -> None:
    """A file in progress does not end it. Where there are no events, the folder is listed again and again."""
    if not events:
        monkeypatch.setattr("music_assets.ingest.folder_watch.INotify", Mock(side_effect=OSError("no more")))
    landing = Landing(DataRoot(tmp_path / "data"))
    landing.root.prepare()
    written = drop(landing, ".a.csv.part", 0)
    Timer(0.1, written.rename, [landing.root.drop_folder(USER_DATA) / "a.csv"]).start()
    landing.wait_for_files(3_600)
    assert names(landing) == ["a.csv"]


IGNORED = {
    "a.txt": "its name ends neither in .csv nor in .csv.gz: rename it if it is CSV with commas",
    "a.csv.txt": "its name ends neither in .csv nor in .csv.gz: rename it if it is CSV with commas",
    "csv": "its name ends neither in .csv nor in .csv.gz: rename it if it is CSV with commas",
    "a.tsv": "tab-separated values: export with commas, as .csv",
    "a.zip": "a zip archive or an Excel workbook: unpack the archive, or save the sheet as CSV UTF-8",
    "a.csv.ZIP": "a zip archive or an Excel workbook: unpack the archive, or save the sheet as CSV UTF-8",
    "a.csv.zst": "compressed with zstd: decompress it, or compress it with gzip as .csv.gz",
    "a.csv.bz2": "compressed with bzip2: decompress it, or compress it with gzip as .csv.gz",
    "a.gz": "gzip-compressed: if it is a CSV file, name it .csv.gz",
    "a.xlsx": "an Excel workbook: save the sheet as CSV UTF-8",
}
IN_PROGRESS = {
    "_a.csv": 'its name begins with "_", which marks a file in progress: rename it when it is complete',
    ".a.csv": 'its name begins with ".", which marks a file in progress: rename it when it is complete',
    "a.csv.tmp": "its name ends in .tmp, which marks a file in progress: rename it when it is complete",
    "a.csv.PART": "its name ends in .part, which marks a file in progress: rename it when it is complete",
    "a.csv.crdownload": "its name ends in .crdownload, which marks a file in progress: rename it when it is complete",
}


def test_every_file_that_is_not_loaded_is_named(landing: Landing) -> None:
    for name in (*IGNORED, *IN_PROGRESS, "good.csv", "GOOD.CSV.GZ"):
        drop(landing, name, 4_000)
    expected = [f"{name}: {problem}" for name, problem in (IGNORED | IN_PROGRESS).items()]
    assert landing.ignored(USER_DATA) == sorted(expected)


def test_files_in_progress_are_named_after_an_hour(landing: Landing) -> None:
    for name in IN_PROGRESS:
        drop(landing, name, 3_000)
    assert landing.ignored(USER_DATA) == []


@pytest.mark.parametrize("name", [*IGNORED, *IN_PROGRESS])
def test_place_refuses_a_name_in_the_same_words(landing: Landing, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(USERS)
    with pytest.raises(BadFileError) as error:
        landing.place(tmp_path / name)
    assert str(error.value) == (IGNORED | IN_PROGRESS)[name]


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
        ("a.csv", "number,land\n1,x\n", "the header, which is: number,land, fits no table"),
        ("a.csv", "user_id,land\n1,x\n", "column country, total_scrobbles missing from the header, which is: user_id,"),
        ("a.csv", "user_id,country,country,total_scrobbles\n", "column country appears more than once"),
        ("a.csv", "user_id,country,total_scrobbles,rank,artist_name,playcount,mbid\n", "fits more than one table"),
        ("a.txt", USERS, "its name ends neither in .csv nor in .csv.gz"),
        ("a.csv", "", "empty"),
        ("a.csv.gz", USERS, "unreadable: Not a gzipped file"),
        ("folder.csv", None, "unreadable: Is a directory"),
    ],
)
def test_place_refuses_a_file_that_matches_no_table(
    landing: Landing, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(BadFileError, match=message):
        landing.place(tmp_path / name)
    assert not any(path.is_file() for path in landing.root.path.glob("user_data/*/*"))
