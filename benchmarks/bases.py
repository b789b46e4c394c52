"""Folders of contestants that hold all users already: what a refresh, a small drop, or a query starts from."""

import shutil
from pathlib import Path

from benchmarks.contestants import Ranker
from benchmarks.data import full_drop
from benchmarks.processes import run
from benchmarks.running import Setting


def folder_of(setting: Setting, purpose: str, name: str) -> Path:
    """Name the folder in which somebody works for a purpose."""
    return setting.work / purpose / name.replace(" ", "-").lower()


def base(setting: Setting, ranker: Ranker) -> Path:
    """Return the contestant's folder with the full drop taken, unmeasured.

    It is made once a process, not once for all: what lies there from before may be of older code.
    """
    folder = folder_of(setting, "base", ranker.name)
    if setting.made.get(folder) != setting.users:
        shutil.rmtree(folder, ignore_errors=True)
        run(ranker.take(folder, full_drop(setting.work, setting.users)), folder.with_suffix(".log"))
        setting.made[folder] = setting.users
    return folder
