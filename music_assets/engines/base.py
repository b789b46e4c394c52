"""The Engine protocol: what an engine has to do. Everything else in the project is the same for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

import ibis.expr.types as ir
import pyarrow as pa

from music_assets.ingest.exact_reader import Header
from music_assets.tables import Table


@dataclass(frozen=True)
class ParsedFile:
    """What became of a CSV file: parquet files of its good rows and of its rejected ones, not committed yet.

    `duplicates` counts the rows whose key another row of the same file has.
    """

    files: tuple[Path, ...]
    rows: int
    duplicates: int
    reject_files: tuple[Path, ...] = ()
    rejects: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CsvFile:
    """A CSV file to parse, with what its rows are stamped with."""

    path: Path
    table: Table
    header: Header
    source_file: str
    ingested_at: datetime


class Engine(Protocol):
    """Reads and writes parquet, parses CSV, runs Ibis expressions."""

    name: str

    def parse(self, csv_file: CsvFile, folder: Path, reject_folder: Path) -> ParsedFile:
        """Write the file's good rows into `folder` and its rejected ones into `reject_folder`, as parquet.

        Raises BadFileError where the file cannot be read to its end.
        """
        ...

    def parse_texts(
        self, texts: pa.Table, table: Table, folder: Path, reject_folder: Path
    ) -> tuple[Sequence[Path], Sequence[Path]]:
        """Parse the rows of many small files at once; return the parquet files of good rows, and of rejected ones.

        `texts` holds what `csv_file.texts` returns of each file, with `source_file` and `ingested_at` beside it. No
        rejected rows: no file of them.
        """
        ...

    def read(self, table: Table, files: Sequence[str]) -> ir.Table:
        """Return the rows in these parquet files of the table, with its declared columns; no files: no rows."""
        ...

    def keep(self, rows: ir.Table) -> ir.Table:
        """Compute the rows now, and return them as a table to read repeatedly; it lasts as long as the engine."""
        ...

    def write(self, rows: ir.Table, table: Table, folder: Path) -> list[Path]:
        """Write the rows as parquet into `folder`, in the table's sort order, and return the files."""
        ...
