"""The project in memory: what the tables hold after any series of drops and refreshes, computed with plain dicts."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from music_assets.tables import USER_DATA, USER_TOP_ARTISTS, Table

Row = tuple[Any, ...]


@dataclass(frozen=True)
class BadRow:
    """A row that is rejected: its text, the column at fault (None: the row as a whole), and the reason."""

    text: str
    column: str | None
    reason: str


@dataclass(frozen=True)
class File:
    """A CSV file: its rows as they should be understood, and the bad ones; no rows at all: a bad file."""

    table: Table
    name: str
    content: bytes
    rows: tuple[Row | BadRow, ...] | None


@dataclass
class Model:
    """What is in, what waits, and what was published last."""

    waiting: list[File] = field(default_factory=list)
    seen: dict[Table, set[bytes]] = field(default_factory=lambda: {USER_DATA: set(), USER_TOP_ARTISTS: set()})
    history: dict[Table, list[tuple[File, Row]]] = field(default_factory=lambda: {USER_DATA: [], USER_TOP_ARTISTS: []})
    rejects: Counter[Row] = field(default_factory=Counter)
    rejects_of: set[tuple[Table, bytes]] = field(default_factory=set)
    aside: Counter[bytes] = field(default_factory=Counter)
    published: dict[str, Any] | None = None

    def commit_rejects(self, table: Table) -> None:
        """Take the bad rows of the files that wait for the table, once for each content."""
        for file in self._fresh(table):
            if (table, file.content) not in self.rejects_of:
                self.rejects_of.add((table, file.content))
                self.rejects.update(_rejects(file))

    def commit_rows(self, table: Table) -> None:
        """Take the good rows of the files that wait for the table, once for each content."""
        for file in self._fresh(table):
            self.seen[table].add(file.content)
            self.history[table] += [(file, row) for row in file.rows or () if not isinstance(row, BadRow)]

    def empty_folder(self, table: Table) -> None:
        """Remove what waits for the table: taken files for good, bad ones to the side."""
        self.aside.update(file.content for file in self.waiting if file.table is table and file.rows is None)
        self.waiting = [file for file in self.waiting if file.table is not table]

    def publish(self) -> None:
        """Publish everything."""
        self.published = {**self.tables(), **self.rankings()}

    def tables(self) -> dict[str, Counter[Row]]:
        """The rows of the raw tables with their files, and the rejected rows."""
        return {
            **{
                table.full_name: Counter((*row, file.name) for file, row in history)
                for table, history in self.history.items()
            },
            "rejected_rows": Counter(self.rejects),
        }

    def rankings(self) -> dict[str, list[Row]]:
        """Both rankings, sorted."""
        countries = {key[0]: row[1] for key, row in self._current(USER_DATA, 1, (2, 1)).items()}
        plays: Counter[tuple[str, str]] = Counter()
        for (user, _), row in self._current(USER_TOP_ARTISTS, 2, (3, 2, 4)).items():
            if countries.get(user) is not None:
                plays[countries[user], row[2]] += row[3] or 0
        totals: Counter[str] = Counter()
        for (country, _), count in plays.items():
            totals[country] += count
        shares = {key: count / totals[key[0]] if totals[key[0]] else 0.0 for key, count in plays.items()}
        artists = [
            (country, artist, float(-count), rank)
            for country in sorted(totals)
            for rank, (count, artist) in enumerate(sorted((-n, a) for (c, a), n in plays.items() if c == country), 1)
        ]
        loved = [
            (country, artist, float(plays[country, artist]), shares[country, artist], rank)
            for artist in sorted({artist for _, artist in plays})
            for rank, (_, country) in enumerate(sorted((-s, c) for (c, a), s in shares.items() if a == artist), 1)
        ]
        return {
            "processed_parquet_artist_rank_in_country": artists,
            "processed_parquet_country_rank_per_artist": loved,
        }

    def _fresh(self, table: Table) -> list[File]:
        """The first file of each content that waits and is not in."""
        first: dict[bytes, File] = {}
        for file in self.waiting:
            if file.table is table and file.rows is not None and file.content not in self.seen[table]:
                first.setdefault(file.content, file)
        return list(first.values())

    def _current(self, table: Table, key: int, tie_break: tuple[int, ...]) -> dict[Row, Row]:
        """Of each key, the first columns, the row of the latest file; in one file the best by these columns.

        The first of them descending, the others ascending, NULL last.
        """
        current: dict[Row, tuple[File, Row]] = {}
        for file, row in self.history[table]:
            held = current.get(row[:key])
            if held is None or held[0] is not file or _place(row, tie_break) < _place(held[1], tie_break):
                current[row[:key]] = (file, row)
        return {key: row for key, (_, row) in current.items()}


def _place(row: Row, tie_break: tuple[int, ...]) -> Row:
    most, *others = (row[column] for column in tie_break)
    return (most is None, -(most or 0), *((value is None, value or "") for value in others))


def _rejects(file: File) -> list[Row]:
    return [
        (file.table.name, file.name, line, row.column, row.reason, row.text)
        for line, row in enumerate(file.rows or (), 2)
        if isinstance(row, BadRow)
    ]
