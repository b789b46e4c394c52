"""The made-up files that the cases work on, kept in the working folder from one run to the next."""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from music_assets.sample_data.generator import generate

ONE_IN = 100
"""A small drop brings a hundredth of the users anew, and a hundredth of those who are known again."""

FIRST_LATER_ID = 1_000_000_000
LATER_IDS = 10_000_000


@dataclass(frozen=True)
class Drop:
    """The two files of a drop."""

    users: Path
    top_artists: Path

    @classmethod
    def below(cls, folder: Path) -> "Drop":
        """Name the files of a folder, as `music-assets generate` does."""
        return cls(folder / "users.csv", folder / "user_top_artists.csv")

    def exists(self) -> bool:
        """Tell whether both files are there; each gets its name when it is whole."""
        return self.users.exists() and self.top_artists.exists()


def full_drop(work: Path, users: int, seed: int = 0) -> Drop:
    """Return made-up users with 50 artists each."""
    folder = work / "data" / (f"{users}-users" if seed == 0 else f"{users}-users-{seed}")
    drop = Drop.below(folder)
    if not drop.exists():
        generate(folder, users, seed)
    return drop


def small_drop(work: Path, users: int) -> Drop:
    """Return a drop onto that many users: new ones, and some known ones, each with what the next user had before."""
    folder = work / "data" / f"{users}-users-small-drop"
    drop = Drop.below(folder)
    if drop.exists():
        return drop
    with _connect(full_drop(work, users)) as connection:
        connection.execute(
            f"""CREATE TABLE again AS SELECT user_id, next_id FROM (
            SELECT user_id, row_number() OVER known AS place, lead(user_id) OVER known AS next_id
            FROM users WINDOW known AS (ORDER BY user_id)) WHERE place % {ONE_IN} = 1 AND next_id IS NOT NULL"""
        )
        with _connect(full_drop(work, max(1, users // ONE_IN), seed=1)) as new:
            last = connection.execute("SELECT max(user_id) FROM users").fetchall()[0][0]
            for name in ("users", "top_artists"):
                rows = new.sql(f"SELECT user_id + {last} AS user_id, * EXCLUDE (user_id) FROM {name}").to_arrow_table()
                connection.register(f"new_{name}", rows)
        folder.mkdir(parents=True, exist_ok=True)
        for name, path, order in (("users", drop.users, ""), ("top_artists", drop.top_artists, ", rank")):
            again = (
                f"SELECT again.user_id, {name}.* EXCLUDE (user_id) FROM {name} JOIN again ON {name}.user_id = next_id"
            )
            _write(connection, f"FROM new_{name} UNION ALL {again} ORDER BY user_id{order}", path)
    return drop


def later_drop(work: Path, users: int, number: int) -> Drop:
    """Return a drop of so many new users, others for each number from 0 on, with ids above those of any full drop."""
    above = FIRST_LATER_ID + number * LATER_IDS
    folder = work / "data" / f"{users}-users-later-{number}"
    drop = Drop.below(folder)
    if not drop.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with _connect(full_drop(work, users, seed=1 + number)) as connection:
            for name, path, order in (("users", drop.users, ""), ("top_artists", drop.top_artists, ", rank")):
                rows = f"SELECT user_id + {above} AS user_id, * EXCLUDE (user_id) FROM {name}"
                _write(connection, f"{rows} ORDER BY user_id{order}", path)
    return drop


def first_user(drop: Drop) -> int:
    """Return the id of the first user in a drop."""
    with drop.users.open() as lines:
        next(lines)
        return int(next(lines).split(",", 1)[0])


def _connect(drop: Drop) -> duckdb.DuckDBPyConnection:
    """Open the files of a drop as the views `users` and `top_artists`."""
    connection = duckdb.connect()
    users = "{'user_id': 'INTEGER', 'country': 'VARCHAR', 'total_scrobbles': 'BIGINT'}"
    artists = (
        "{'user_id': 'INTEGER', 'rank': 'INTEGER', 'artist_name': 'VARCHAR', 'playcount': 'BIGINT', 'mbid': 'VARCHAR'}"
    )
    for name, path, columns in (("users", drop.users, users), ("top_artists", drop.top_artists, artists)):
        connection.execute(f"CREATE VIEW {name} AS FROM read_csv('{path}', header = true, columns = {columns})")
    return connection


def _write(connection: duckdb.DuckDBPyConnection, rows: str, path: Path) -> None:
    aside = path.with_name(f".{path.name}.part")
    connection.execute(f"COPY ({rows}) TO '{aside}' (FORMAT csv, HEADER)")
    aside.replace(path)
