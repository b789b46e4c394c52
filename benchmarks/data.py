"""The generated CSV files that the cases load, cached in the working folder across runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from music_assets.sample_data.generator import generate

FIRST_LATER_ID = 1_000_000_000
ORDER = {"users": "user_id", "top_artists": "user_id, rank::INTEGER"}


@dataclass(frozen=True)
class Drop:
    """The two files of a drop."""

    users: Path
    top_artists: Path

    @property
    def first_user(self) -> int:
        """The id of the first user."""
        return int(self.users.read_text(encoding="utf-8").split("\n", 2)[1].split(",")[0])

    def rows(self, name: str, id_offset: object = 0) -> str:
        """Return a SELECT of the rows of `users` or `top_artists`, with an offset added to the user ids."""
        return f"""SELECT * REPLACE (user_id::INTEGER + {id_offset} AS user_id)
            FROM read_csv('{getattr(self, name)}', header = true, all_varchar = true, delim = ',', quote = '"')"""


def full_drop(work: Path, users: int, seed: int = 0) -> Drop:
    """Return generated users with 50 artists each."""
    folder = work / "data" / (f"{users}-users" if seed == 0 else f"{users}-users-{seed}")
    drop = Drop(folder / "users.csv", folder / "user_top_artists.csv")
    if not drop.users.exists() or not drop.top_artists.exists():
        generate(folder, users, seed)
    return drop


def small_drop(work: Path, users: int) -> Drop:
    """Return a drop of 1 % new users, and of 1 % of the known users, each with the data of the next known user."""
    known, new = full_drop(work, users), full_drop(work, max(1, users // 100), seed=1)
    last = f"(SELECT max(user_id) FROM ({known.rows('users')}))"
    again = f"""SELECT user_id AS known_id, lead(user_id) OVER ids AS source_id, row_number() OVER ids AS place
        FROM ({known.rows("users")}) WINDOW ids AS (ORDER BY user_id)"""
    return _write(
        work / "data" / f"{users}-users-small-drop",
        lambda name: (
            f"""{new.rows(name, last)} UNION ALL
            SELECT source.* REPLACE (known_id AS user_id)
            FROM ({known.rows(name)}) AS source JOIN ({again}) ON source.user_id = source_id
            WHERE place % 100 = 1"""
        ),
    )


def later_drop(work: Path, users: int, number: int, step: int = 10_000_000) -> Drop:
    """Return drop `number` (from 0) of users above any full drop; the ids of each begin `step` above the previous."""
    source, offset = full_drop(work, users, seed=1 + number), FIRST_LATER_ID + number * step
    return _write(work / "data" / f"{users}-users-later-{number}-{step}", lambda name: source.rows(name, offset))


def _write(folder: Path, rows: Callable[[str], str]) -> Drop:
    folder.mkdir(parents=True, exist_ok=True)
    drop = Drop(folder / "users.csv", folder / "user_top_artists.csv")
    for name, order in ORDER.items():
        target: Path = getattr(drop, name)
        partial = target.with_name(f".{target.name}.part")
        if not target.exists():
            duckdb.execute(f"COPY ({rows(name)} ORDER BY {order}) TO '{partial}' (FORMAT csv, HEADER)")
            partial.replace(target)
    return drop
