"""Files with odd names and of odd kinds: each is loaded, rejected or ignored, and none stops the others."""

import logging
import os
from pathlib import Path

import pytest

from music_assets.ingest.landing import Landing
from music_assets.tables import USER_DATA
from music_assets_tests.support.ingest_harness import IngestHarness

HEADER = "user_id,country,total_scrobbles\n"
NAMES = {
    b"with space.csv": "with space.csv",
    b"qu'ote\"d.csv": "qu'ote\"d.csv",
    b"semi;colon,comma.csv": "semi;colon,comma.csv",
    b"--option.csv": "--option.csv",
    b"pattern[x]*?.csv": "pattern[x]*?.csv",
    b"address#%41&a=1.csv": "address#%41&a=1.csv",
    b"back\\slash.csv": "back\\slash.csv",
    b"$HOME{x}`id`.csv": "$HOME{x}`id`.csv",
    b"line\nend\r.csv": "line\ufffdend\ufffd.csv",
    b"\x1b[31mred.csv": "\ufffd[31mred.csv",
    "turned\u202evsc.csv".encode(): "turned\ufffdvsc.csv",
    "東京\u3000é.csv".encode(): "東京\u3000é.csv",
    b"latin1 caf\xe9.csv": "latin1 caf\ufffd.csv",
    b"x" * 251 + b".csv": "x" * 251 + ".csv",
    "é".encode() * 125 + b".csv": "é" * 125 + ".csv",
    b"a.csv.csv": "a.csv.csv",
}
"""Names as bytes, and as they are displayed and stored in `source_file`."""


def drop(harness: IngestHarness, name: bytes, content: str) -> Path:
    return harness.drop(USER_DATA, os.fsdecode(name), content)


def test_files_with_odd_names_are_loaded(harness: IngestHarness) -> None:
    """Under each name one file for the fast reader, and one with a bad row for the exact reader."""
    expected = []
    for number, (name, shown) in enumerate(NAMES.items()):
        good, mixed = 2 * number, 2 * number + 1
        drop(harness, name, HEADER + f"{good},Chad,1\n")
        drop(harness, b"m" + os.fsencode(os.fsdecode(name)[1:]), HEADER + f"{mixed},Chad,1\nx,,\n")
        expected += [(good, shown), (mixed, "m" + shown[1:])]
    outcomes = harness.load(USER_DATA).files
    assert {file.outcome for file in outcomes} == {"loaded"}
    found = dict(harness.rows(USER_DATA, "user_id", "source_file"))
    assert found == dict(expected)
    assert len(harness.rejected()) == len(NAMES)
    assert harness.waiting() == []


def test_bad_files_with_odd_names_are_rejected(harness: IngestHarness) -> None:
    for number, name in enumerate(NAMES):
        drop(harness, name, f"nonsense {number}\n")
    drop(harness, b"other.csv", HEADER + "2,Malta,2\n")
    outcomes = {file.name: file.outcome for file in harness.load(USER_DATA).files}
    assert outcomes == {**dict.fromkeys(NAMES.values(), "rejected"), "other.csv": "loaded"}
    folder = harness.root.rejected
    moved = [path for path in folder.iterdir() if not path.name.endswith(".reason.txt")]
    assert sorted(path.read_text() for path in moved) == sorted(f"nonsense {number}\n" for number in range(len(NAMES)))
    reasons = [(folder / f"{path.name}.reason.txt").read_text().splitlines()[0] for path in moved]
    assert sorted(reason.rpartition("/")[2] for reason in reasons) == sorted(NAMES.values())
    assert harness.waiting() == []


@pytest.mark.parametrize("name", ["x" * 251 + ".csv", "é" * 124 + ".csv.gz", "x." + "y" * 249 + ".csv"])
def test_longest_names_are_shortened(harness: IngestHarness, name: str) -> None:
    """`.reason.txt` and a number must fit into the maximum length of a name."""
    for content in ("one", "two", "three"):
        harness.drop(USER_DATA, name, content)
        assert [file.outcome for file in harness.load(USER_DATA).files] == ["rejected"]
    moved = [path for path in harness.root.rejected.iterdir() if not path.name.endswith(".reason.txt")]
    assert sorted(path.read_bytes() for path in moved) == [b"one", b"three", b"two"]
    assert all(len(os.fsencode(path.name)) <= 244 for path in moved)
    assert all(path.name.endswith(name[name.rindex(".csv") :]) for path in moved)
    assert all(path.with_name(path.name + ".reason.txt").exists() for path in moved)


def test_longest_name_can_be_placed_twice(harness: IngestHarness, tmp_path: Path) -> None:
    source = tmp_path / ("u" * 251 + ".csv")
    source.write_text(HEADER)
    placed = [harness.landing.place(source) for _ in range(3)]
    assert [path.name for path in placed] == [source.name, "u" * 249 + "-2.csv", "u" * 249 + "-3.csv"]


def test_files_whose_names_are_displayed_the_same_are_all_loaded(harness: IngestHarness) -> None:
    for number, name in enumerate((b"\xe9.csv", b"\xea.csv", "\ufffd.csv".encode())):
        drop(harness, name, HEADER + f"{number},Chad,1\n")
    assert [file.outcome for file in harness.load(USER_DATA).files] == ["loaded"] * 3
    assert [user for user, *_ in harness.delivered(USER_DATA)] == [0, 1, 2]


def test_log_names_what_is_not_a_regular_file(
    harness: IngestHarness, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = harness.landing.root.drop_folder(USER_DATA)
    (tmp_path / "secret.csv").write_text(HEADER + "9,Secret,9\n")
    (folder / "out.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "dangling.csv").symlink_to(tmp_path / "nowhere")
    (folder / "loop.csv").symlink_to(folder / "loop.csv")
    (folder / "folder.csv").mkdir()
    os.mkfifo(folder / "pipe.csv.gz")
    harness.drop(USER_DATA, "good.csv", HEADER + "1,Chad,1\n")
    with caplog.at_level(logging.WARNING):
        assert [(file.name, file.outcome) for file in harness.load(USER_DATA).files] == [("good.csv", "loaded")]
    link = "a symbolic link, which is not followed: copy the file itself"
    assert [message for message in caplog.messages if "Ignored" in message] == [
        f"Ignored in {folder}: {entry}"
        for entry in (
            f"dangling.csv: {link}",
            "folder.csv: a folder: move the files in it here",
            f"loop.csv: {link}",
            f"out.csv: {link}",
            "pipe.csv.gz: not a regular file: copy the data into a file",
        )
    ]
    assert harness.delivered(USER_DATA) == [(1, "Chad", 1)]
    assert (tmp_path / "secret.csv").exists()


def test_file_that_becomes_a_link_is_not_followed(harness: IngestHarness, tmp_path: Path) -> None:
    """A file may be replaced by a link out of the folder after it was listed."""
    path = harness.drop(USER_DATA, "a.csv", HEADER + "1,Chad,1\n")
    (seen,) = harness.landing.files(USER_DATA)
    target = tmp_path / "elsewhere.csv"
    path.rename(target)
    path.symlink_to(target)
    assert not seen.is_unchanged()


class VanishingLanding(Landing):
    """Drop folders from which a file vanishes after it was listed."""

    def complete_files(self):  # type: ignore[no-untyped-def]
        found = super().complete_files()
        self.root.drop_folder(USER_DATA).joinpath("gone.csv").unlink()
        return found


def test_file_that_vanishes_after_it_was_listed(harness: IngestHarness) -> None:
    harness.drop(USER_DATA, "gone.csv", HEADER + "1,Chad,1\n")
    harness.drop(USER_DATA, "here.csv", HEADER + "2,Chad,1\n")
    harness.ingest.landing = VanishingLanding(harness.root, settle_seconds=0)
    assert [(file.name, file.outcome) for file in harness.load(USER_DATA).files] == [("here.csv", "loaded")]
    assert harness.delivered(USER_DATA) == [(2, "Chad", 1)]
    assert not harness.root.rejected.exists()
