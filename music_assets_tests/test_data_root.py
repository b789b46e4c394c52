"""Scratch folders: what a process leaves there goes with it, or, where it was killed, with the next one."""

import gc
import subprocess
import sys
from pathlib import Path

from music_assets.data_root import Scratch

USE_IT = """
import sys, time
from pathlib import Path
from music_assets.data_root import Scratch
scratch = Scratch(Path(sys.argv[1]))
(scratch.folder / "spilled").write_text("half")
print(scratch.folder, flush=True)
time.sleep(60)
"""


def test_each_has_a_folder_of_its_own_for_as_long_as_it_lives(tmp_path: Path) -> None:
    first, second = Scratch(tmp_path / "scratch"), Scratch(tmp_path / "scratch")
    folders = [first.folder, second.folder]
    assert first.folder == folders[0] != folders[1]
    assert all(folder.is_dir() for folder in folders)
    del first
    gc.collect()
    assert [folder.exists() for folder in folders] == [False, True]


def test_what_a_killed_process_left_goes_with_the_next_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    """Half-read files and spilled rows stood in the scratch folder for good."""
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
