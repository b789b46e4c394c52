"""Small, full and read-only disks, and a user without privileges.

Mounting needs root, as in a CI container. Without it, the test is skipped.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534
BLOCK_BYTES = 1 << 16


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system of this size, in memory, on the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={megabytes}m,mode=777", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def fill_disk(disk: Path, spare_bytes: int) -> Iterator[None]:
    """Fill the disk except for some bytes; free the space in the end."""
    filler = disk / ".filler"
    with filler.open("wb", buffering=0) as file:
        for size in (BLOCK_BYTES, 4096):
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
def read_only_view(folder: Path, view: Path) -> Iterator[Path]:
    """Mount the folder read-only on `view`."""
    view.mkdir()
    _mount("--bind", str(folder), str(view))
    try:
        _mount("-o", "remount,bind,ro", str(view))
        yield view
    finally:
        subprocess.run(["umount", "--lazy", view], check=True)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run as a user to whom file permissions apply, unlike to root."""
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
