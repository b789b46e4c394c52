"""A model of the project in plain dicts: the tables after any series of drops and refreshes."""

from collections import Counter
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
    """The waiting files, the rows that were loaded, and the last snapshot."""

    waiting: list[File] = field(default_factory=list)
    loaded: dict[Table, set[bytes]] = field(default_factory=lambda: {USER_DATA: set(), USER_TOP_ARTISTS: set()})
    history: dict[Table, list[tuple[File, Row]]] = field(default_factory=lambda: {USER_DATA: [], USER_TOP_ARTISTS: []})
    rejects: Counter[Row] = field(default_factory=Counter)
    rejects_loaded: set[tuple[Table, bytes]] = field(default_factory=set)
    rejected_files: Counter[bytes] = field(default_factory=Counter)
    published: dict[str, Any] | None = None

    def commit_rejects(self, table: Table) -> None:
        """Commit the bad rows of the waiting files of a table, once for each content."""
        for file in self._fresh(table):
            if (table, file.content) not in self.rejects_loaded:
                self.rejects_loaded.add((table, file.content))
                self.rejects.update(_rejects(file))

    def commit_rows(self, table: Table) -> None:
        """Commit the good rows of the waiting files of a table, once for each content."""
        for file in self._fresh(table):
            self.loaded[table].add(file.content)
            self.history[table] += [(file, row) for row in file.rows or () if not isinstance(row, BadRow)]

    def clear(self, table: Table) -> None:
        """Delete the loaded files of a table and move the bad ones away."""
        self.rejected_files.update(file.content for file in self.waiting if file.table is table and file.rows is None)
        self.waiting = [file for file in self.waiting if file.table is not table]

    def publish(self) -> None:
        """Publish everything."""
        self.published = {**self.tables(), **self.rankings()}

    def tables(self) -> dict[str, Counter[Row]]:
        """Return the rows of the raw tables with their source files, and the rejected rows."""
        return {
            **{
                table.full_name: Counter((*row, file.name) for file, row in history)
                for table, history in self.history.items()
            },
            "rejected_rows": Counter(self.rejects),
        }

    def rankings(self) -> dict[str, list[Row]]:
        """Return both rankings in their sort order."""
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
        by_artist = [
            (country, artist, float(plays[country, artist]), shares[country, artist], rank)
            for artist in sorted({artist for _, artist in plays})
            for rank, (_, country) in enumerate(sorted((-s, c) for (c, a), s in shares.items() if a == artist), 1)
        ]
        return {
            "processed_parquet_artist_rank_in_country": artists,
            "processed_parquet_country_rank_per_artist": by_artist,
        }

    def _fresh(self, table: Table) -> list[File]:
        """Return the waiting files that are not loaded, the first of each content."""
        first: dict[bytes, File] = {}
        for file in self.waiting:
            if file.table is table and file.rows is not None and file.content not in self.loaded[table]:
                first.setdefault(file.content, file)
        return list(first.values())

    def _current(self, table: Table, key: int, tie_break: tuple[int, ...]) -> dict[Row, Row]:
        """Return the current row of each key, which is the first `key` columns: that of the latest file.

        Within a file the largest first tie-break column wins, then the smallest of the others; NULL is last.
        """
        current: dict[Row, tuple[File, Row]] = {}
        for file, row in self.history[table]:
            other = current.get(row[:key])
            if other is None or other[0] is not file or _order(row, tie_break) < _order(other[1], tie_break):
                current[row[:key]] = (file, row)
        return {key: row for key, (_, row) in current.items()}


def _order(row: Row, tie_break: tuple[int, ...]) -> Row:
    most, *others = (row[column] for column in tie_break)
    return (most is None, -(most or 0), *((value is None, value or "") for value in others))


def _rejects(file: File) -> list[Row]:
    return [
        (file.table.name, file.name, line, row.column, row.reason, row.text)
        for line, row in enumerate(file.rows or (), 2)
        if isinstance(row, BadRow)
    ]
