"""Drops of a few small files, generated from a seed: good and bad rows, repeats, gzip and bad files."""

import gzip
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from music_assets.data_root import DataRoot
from music_assets.tables import USER_DATA, USER_TOP_ARTISTS, Table

USERS = 30
COUNTRIES = ("Germany", "Chad", "Côte d'Ivoire", "", "none")
ARTISTS = ('"Earth, Wind & Fire"', "Björk", "Can", "Neu!", "Βαγγέλης", "Moby")
BAD_USERS = ("x,Germany,1", ",Germany,1", "5,Germany,-1", "6,Germany", '7,"Germany,3')
BAD_TOP_ARTISTS = ("1,51,Can,1,", "1,1,,1,", "2,1,Can,many,", "3000000000,1,Can,1,", "1,2,Can,1,,,")
BAD_FILES = (b"\n", b"user_id,land\n1,Chad\n", b"\x1f\x8b not gzip", b"user_id,country\x00,total_scrobbles\n")
SECONDS_AGO = 10_000
"""Age of the first file of a drop. Each further file is a second younger, so the order is always the same."""


@dataclass(frozen=True)
class DroppedCsv:
    """A file of a drop: its table, name and content."""

    table: Table
    name: str
    content: bytes


def generate_drops(seed: int, number: int) -> list[list[DroppedCsv]]:
    """Return `number` drops. Later ones repeat files of earlier ones."""
    source = random.Random(seed)
    earlier: list[DroppedCsv] = []
    drops = []
    for place in range(number):
        drop = list(_drop(source, f"{place + 1}", earlier))
        drops.append(drop)
        earlier += drop[:4]
    return drops


def drop_files(drop: list[DroppedCsv], root: DataRoot) -> None:
    """Write the files of a drop into the drop folders."""
    root.prepare()
    first = int(time.time()) - SECONDS_AGO
    for age, file in enumerate(drop):
        path = root.drop_folder(file.table) / file.name
        root.write(path, file.content)
        if not root.store:
            os.utime(path, (first + age, first + age))


def _drop(source: random.Random, name: str, earlier: list[DroppedCsv]) -> Iterator[DroppedCsv]:
    """Yield for each table a clean file and one with bad rows; then a copy, an earlier file again, and a bad file."""
    users = _csv("user_id,country,total_scrobbles", _users(source))
    top = _csv("user_id,rank,artist_name,playcount,mbid", _top_artists(source))
    yield DroppedCsv(USER_DATA, f"users {name}.csv", users)
    yield DroppedCsv(USER_TOP_ARTISTS, f"top {name}.csv.gz", gzip.compress(top, mtime=0))
    dirty_users = _csv("user_id,country,total_scrobbles", _mixed(source, _users(source), BAD_USERS))
    yield DroppedCsv(USER_DATA, f"dirty users {name}.csv", dirty_users)
    dirty_top = _csv("user_id,rank,artist_name,playcount,mbid", _mixed(source, _top_artists(source), BAD_TOP_ARTISTS))
    yield DroppedCsv(USER_TOP_ARTISTS, f"dirty top {name}.csv", dirty_top)
    yield DroppedCsv(USER_DATA, f"copy {name}.csv", users)
    if earlier:
        again = source.choice(earlier)
        suffix = "".join(Path(again.name).suffixes)
        yield DroppedCsv(again.table, f"again {name}{suffix}", again.content)
    yield DroppedCsv(source.choice((USER_DATA, USER_TOP_ARTISTS)), "bad.csv", source.choice(BAD_FILES))


def _csv(header: str, rows: list[str]) -> bytes:
    return "\n".join([header, *rows, ""]).encode()


def _users(source: random.Random) -> list[str]:
    users = source.sample(range(1, USERS + 1), source.randint(3, 12))
    return [f"{user},{source.choice(COUNTRIES)},{source.randint(0, 10_000)}" for user in users]


def _top_artists(source: random.Random) -> list[str]:
    users = source.sample(range(1, USERS + 1), source.randint(3, 12))
    return [
        f"{user},{rank},{artist},{source.choice(['', source.randint(0, 500)])},"
        for user in users
        for rank, artist in enumerate(source.sample(ARTISTS, 4), 1)
    ]


def _mixed(source: random.Random, rows: list[str], bad: tuple[str, ...]) -> list[str]:
    mixed = [*rows, *source.sample(bad, 2)]
    source.shuffle(mixed)
    return mixed
