"""The folder of rejected files."""

import os
from pathlib import Path

import pytest

from music_assets.data_root import DataRoot
from music_assets.ingest.landing import DroppedFile
from music_assets.ingest.quarantine import Quarantine
from music_assets.tables import USER_DATA


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    root = DataRoot(tmp_path / "data")
    root.prepare()
    return root


def drop(root: DataRoot, content: str, name: str = "a.csv") -> DroppedFile:
    path = root.drop_folder(USER_DATA) / name
    path.write_text(content)
    return DroppedFile.at(path)


def test_files_keep_their_content_and_none_is_overwritten(root: DataRoot) -> None:
    moved = []
    for content in ("one", "two", "three"):
        file = drop(root, content)
        moved.append(Quarantine(root).move(file, f"reason {content}"))
        assert not file.path.exists()
    assert [path.name for path in moved] == ["a.csv", "a-2.csv", "a-3.csv"]
    assert [path.read_text() for path in moved] == ["one", "two", "three"]
    for path, content in zip(moved, ("one", "two", "three"), strict=True):
        reason = path.with_name(f"{path.name}.reason.txt").read_text().splitlines()
        assert reason[1:] == [f"reason {content}", "Fix the file and drop it again."]


def test_reason_without_a_file_is_overwritten(root: DataRoot) -> None:
    """A run that was killed in between left it."""
    file = drop(root, "bad")
    root.rejected.mkdir()
    (root.rejected / "a.csv.reason.txt").write_text("reason of the killed run")
    moved = Quarantine(root).move(file, "reason")
    assert not file.path.exists()
    assert sorted(each.name for each in root.rejected.iterdir()) == ["a.csv", "a.csv.reason.txt"]
    assert "reason\n" in moved.with_name("a.csv.reason.txt").read_text()


def test_name_that_is_not_utf8(root: DataRoot) -> None:
    moved = Quarantine(root).move(drop(root, "bad", os.fsdecode(b"caf\xe9.csv")), "reason")
    assert moved.name == "caf\ufffd.csv"
    assert moved.read_text() == "bad"
    assert "reason" in moved.with_name(f"{moved.name}.reason.txt").read_text()
