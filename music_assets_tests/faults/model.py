"""A model of the project in plain dicts: the tables after any series of drops and refreshes."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from music_assets.tables import USER_DATA, USER_TOP_ARTISTS, Table

Row = tuple[Any, ...]


@dataclass(frozen=True)
class BadRow:
    """A row to be rejected: its text, the column with the defect (None: the whole row), and the reason."""

    text: str
    column: str | None
    reason: str


@dataclass(frozen=True)
class File:
    """A CSV file and its rows, good ones as parsed. `rows` is None for a bad file."""

    table: Table
    name: str
    content: bytes
    rows: tuple[Row | BadRow, ...] | None


@dataclass
class Model:
    """What was delivered, what waits, and what was published last."""

    waiting: list[File] = field(default_factory=list)
    delivered: dict[Table, list[File]] = field(default_factory=lambda: {USER_DATA: [], USER_TOP_ARTISTS: []})
    rejected_files: Counter[bytes] = field(default_factory=Counter)
    published: dict[str, Any] | None = None

    def deliver(self, table: Table) -> None:
        """Deliver what waits for the table, in order, and move the bad ones away."""
        files = [file for file in self.waiting if file.table is table]
        self.delivered[table] += [file for file in files if file.rows is not None]
        self.rejected_files.update(file.content for file in files if file.rows is None)
        self.waiting = [file for file in self.waiting if file.table is not table]

    def publish(self, raw: dict[str, Counter[Row]]) -> None:
        """Publish the rankings, and these rows of the raw tables."""
        self.published = {**raw, **self.rankings()}

    def rankings(self) -> dict[str, list[Row]]:
        """Return both rankings in their sort order."""
        countries = {key[0]: row[1] for key, row in self._current(USER_DATA, 1, (2, 1)).items()}
        plays: Counter[tuple[str, str]] = Counter()
        listeners: dict[tuple[str, str], set[int]] = defaultdict(set)
        for (user, _), row in self._current(USER_TOP_ARTISTS, 2, (3, 2, 4)).items():
            if countries.get(user) is not None:
                plays[countries[user], row[2]] += row[3] or 0
                listeners[countries[user], row[2]].add(user)
        totals: Counter[str] = Counter()
        for (country, _), count in plays.items():
            totals[country] += count
        shares = {key: count / totals[key[0]] if totals[key[0]] else 0.0 for key, count in plays.items()}
        artists = [
            (country, artist, float(-count), rank, len(listeners[country, artist]))
            for country in sorted(totals)
            for rank, (count, artist) in enumerate(sorted((-n, a) for (c, a), n in plays.items() if c == country), 1)
        ]
        by_artist = [
            (country, artist, float(plays[key]), shares[key], rank, len(listeners[key]))
            for artist in sorted({artist for _, artist in plays})
            for rank, (_, country) in enumerate(sorted((-s, c) for (c, a), s in shares.items() if a == artist), 1)
            for key in [(country, artist)]
        ]
        return {
            "processed_parquet_artist_rank_in_country": artists,
            "processed_parquet_country_rank_per_artist": by_artist,
        }

    def unranked_plays(self) -> dict[str, float]:
        """Return what `unranked_plays` counts."""
        countries = {key[0]: row[1] for key, row in self._current(USER_DATA, 1, (2, 1)).items()}
        plays: Counter[int] = Counter()
        for (user, _), row in self._current(USER_TOP_ARTISTS, 2, (3, 2, 4)).items():
            plays[user] += row[3] or 0
        groups = {
            "users": list(plays),
            "no_user": [user for user in plays if user not in countries],
            "no_country": [user for user in plays if user in countries and countries[user] is None],
        }
        counts = {name: float(len(users)) for name, users in groups.items()}
        sums = {"plays" if name == "users" else f"{name}_plays": users for name, users in groups.items()}
        return counts | {name: float(sum(plays[user] for user in users)) for name, users in sums.items()}

    def _current(self, table: Table, key: int, tie_break: tuple[int, ...]) -> dict[Row, Row]:
        """Return the current row of each key, which is the first `key` columns: that of the latest file.

        Within a file the largest first tie-break column wins, then the smallest of the others; NULL is last.
        """
        current: dict[Row, tuple[File, Row]] = {}
        delivered = [(file, row) for file in self.delivered[table] for row in good_rows(file)]
        for file, row in delivered:
            other = current.get(row[:key])
            if other is None or other[0] is not file or _order(row, tie_break) < _order(other[1], tie_break):
                current[row[:key]] = (file, row)
        return {key: row for key, (_, row) in current.items()}


def _order(row: Row, tie_break: tuple[int, ...]) -> Row:
    most, *others = (row[column] for column in tie_break)
    return (most is None, -(most or 0), *((value is None, value or "") for value in others))


def good_rows(file: File) -> list[Row]:
    """Return the rows that are loaded."""
    return [row for row in file.rows or () if not isinstance(row, BadRow)]


def rejects(file: File) -> list[Row]:
    """Return the rows of `rejected_rows`, without the time."""
    return [
        (file.table.name, file.name, line, row.column, row.reason, row.text)
        for line, row in enumerate(file.rows or (), 2)
        if isinstance(row, BadRow)
    ]
