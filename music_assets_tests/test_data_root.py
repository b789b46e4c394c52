"""The data root: its layout version, locks, durable writes and scratch folders."""

import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from music_assets.data_root import (
    LAYOUT_VERSION,
    DataRoot,
    LayoutError,
    LockHeldError,
    Scratch,
    acquire_lock,
    durable_write,
    exclusive_lock,
)
from music_assets.storage.published_snapshot import NothingPublishedError, newest_snapshot
from music_assets.tables import RAW_TABLES

USE_IT = """
import sys, time
from pathlib import Path
from music_assets.data_root import Scratch
scratch = Scratch(Path(sys.argv[1]))
(scratch.folder / "spilled").write_text("half")
print(scratch.folder, flush=True)
time.sleep(60)
"""


def test_prepare_creates_drop_folders_and_records_the_layout_version(tmp_path: Path) -> None:
    root = DataRoot(tmp_path / "data")
    for _ in range(2):
        root.prepare()
    assert all(root.drop_folder(table).is_dir() for table in RAW_TABLES)
    assert (root.path / ".layout_version").read_text() == f"{LAYOUT_VERSION}\n"


@pytest.mark.parametrize("content", [b"3\n", b"", b"\xff"])
def test_other_layout_version_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".layout_version").write_bytes(content)
    root = DataRoot(tmp_path)
    for use in (root.prepare, lambda: newest_snapshot(root)):
        with pytest.raises(LayoutError, match=r"this release supports versions up to 2.*MUSIC_ASSETS_DATA"):
            use()
    assert [path.name for path in tmp_path.iterdir()] == [".layout_version"]


def test_data_root_without_version_file_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(NothingPublishedError):
        newest_snapshot(DataRoot(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_files_are_listed_while_others_are_deleted(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}").mkdir()
        (tmp_path / f"{number:02}" / "file").write_text("12345")
    stopped = Event()

    def create_and_delete() -> None:
        while not stopped.is_set():
            for name in ("a", "y", "z"):
                (tmp_path / name).mkdir()
                (tmp_path / name / "file").touch()
            for name in ("a", "y", "z"):
                (tmp_path / name / "file").unlink()
                (tmp_path / name).rmdir()

    with ThreadPoolExecutor(1) as threads:
        churn = threads.submit(create_and_delete)
        try:
            listed = [DataRoot(tmp_path).files_below(tmp_path) for _ in range(100)]
        finally:
            stopped.set()
        churn.result()
    expected = {tmp_path / f"{number:02}" / "file": 5 for number in range(20)}
    assert all(expected.items() <= found.items() for found in listed)


def test_lock_excludes_others_until_released(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    with exclusive_lock(path), pytest.raises(LockHeldError, match=r"\.lock is held by another process"):
        acquire_lock(path)
    acquire_lock(path).release()


def test_failed_durable_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with durable_write(target) as file:
        file.write(b"old")
    with pytest.raises(ZeroDivisionError), durable_write(target) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_each_scratch_folder_lives_as_long_as_its_object(tmp_path: Path) -> None:
    first, second = Scratch(tmp_path / "scratch"), Scratch(tmp_path / "scratch")
    folders = [first.folder, second.folder]
    assert first.folder == folders[0] != folders[1]
    assert all(folder.is_dir() for folder in folders)
    del first
    gc.collect()
    assert [folder.exists() for folder in folders] == [False, True]


def test_scratch_folder_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    """Unfinished and spilled files of killed processes used to stay forever. Those of a live process stay."""
    with subprocess.Popen([sys.executable, "-c", USE_IT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        folder = Path(process.stdout.readline().strip())
        others = Scratch(tmp_path)
        assert others.folder != folder
        assert (folder / "spilled").exists()
        process.kill()
    third = Scratch(tmp_path)
    assert third.folder.is_dir()
    assert not folder.exists()
    assert {path.name for path in tmp_path.glob("process-*")} == {
        name for each in (others, third) for name in (each.folder.name, f"{each.folder.name}.lock")
    }
