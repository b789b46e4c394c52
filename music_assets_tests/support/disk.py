"""Disks that misbehave, for tests: a small one, one without room, one that is read-only, one for which rights count.

They need root, which a container of a CI has; a test is skipped where the system does not let it.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534
AT_ONCE = 1 << 16


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system of that size in memory at the place."""
    place.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={megabytes}m,mode=777", "tmpfs", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def full(disk: Path, spare_bytes: int) -> Iterator[None]:
    """Fill the disk up to the last few bytes for a while."""
    filler = disk / ".filler"
    with filler.open("wb", buffering=0) as file:
        for size in (AT_ONCE, 4096):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
        file.truncate(max(file.tell() - spare_bytes, 0))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def read_only(folder: Path, view: Path) -> Iterator[Path]:
    """Show the folder in another place, where nobody can write to it."""
    view.mkdir()
    _mount("--bind", str(folder), str(view))
    try:
        _mount("-o", "remount,bind,ro", str(view))
        yield view
    finally:
        subprocess.run(["umount", "--lazy", view], check=True)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be somebody for whom rights count: to root they do not apply."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _mount(*arguments: str) -> None:
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {getattr(error, 'stderr', b'').decode().strip() or error}")
