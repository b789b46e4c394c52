"""Names of CSV files: how they are shown, and names that no other file in the folder has."""

import os
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

CSV_SUFFIXES = (".csv", ".csv.gz")
UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of control and formatting characters, lone surrogates, and line ends."""


def is_csv_name(name: str) -> bool:
    """Return whether the name has the suffix of a CSV file, in any case."""
    return name.lower().endswith(CSV_SUFFIXES)


def printable(name: str) -> str:
    """Return the name for display: bytes that are not UTF-8 and unprintable characters are replaced."""
    return "".join("\ufffd" if unicodedata.category(character) in UNPRINTABLE else character for character in name)


def numbered(target: Path, reserved_bytes: int = 0) -> Iterator[Path]:
    """Yield the target, then with -2, -3 … before its suffix, shortened so that `reserved_bytes` can be appended."""
    maximum = os.pathconf(target.parent, "PC_NAME_MAX") - reserved_bytes
    suffix = next((target.name[-len(end) :] for end in CSV_SUFFIXES if target.name.lower().endswith(end)), "")
    stem = target.name.removesuffix(suffix).encode()
    for number in count(1):
        ending = f"-{number}{suffix}" if number > 1 else suffix
        yield target.with_name(stem[: maximum - len(ending)].decode(errors="ignore") + ending)


def rename_without_overwriting(source: Path, target: Path) -> Path:
    """Rename a file within its folder to the target or, if that exists, to the next free numbered name.

    An empty file claims the name first. A hard link would need no second step, but not every file system has links.
    """
    for claimed in numbered(target):
        with suppress(FileExistsError):
            claimed.touch(exist_ok=False)
            break
    try:
        source.replace(claimed)
    except BaseException:
        claimed.unlink()
        raise
    return claimed
