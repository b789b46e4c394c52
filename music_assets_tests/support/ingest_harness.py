"""An empty data root for tests: drop files, load them, compute the rankings, read the tables.

Rows are read back with plain pyarrow, so that an engine cannot hide its own mistakes.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from music_assets.data_root import DataRoot
from music_assets.defs.assets.rankings import rank_artists
from music_assets.engines.base import Engine
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.ingest.csv_header import BadFileError, CsvFile
from music_assets.ingest.ingest import Ingest
from music_assets.ingest.object_landing import open_landing
from music_assets.ingest.parser import ParsedFile, Parser
from music_assets.ingest.report import IngestReport
from music_assets.storage.delta import DeltaStore
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    COUNTRY_RANK_PER_ARTIST,
    RAW_TABLES,
    REJECTED_ROWS,
    USER_DATA,
    USER_TOP_ARTISTS,
    Column,
    Table,
)
from music_assets.transforms.rankings import Numbered, country_rank_per_artist

LOG = logging.getLogger(__name__)
DROPPED_SECONDS_AGO = 10_000
RETENTION_HOURS = 168.0


def table_on(engine: Engine, folder: Path, schema: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> ir.Table:
    """Write the rows to a parquet file in the folder and read it through the engine; `schema` maps names to types."""
    table = Table("rows", "", "", tuple(Column(name, kind, "") for name, kind in schema.items()))
    kinds = table.schema.to_pyarrow()
    columns = [pa.array([row[place] for row in rows], field.type) for place, field in enumerate(kinds)]
    file = folder / f"{uuid4().hex}.parquet"
    pq.write_table(pa.table(columns, schema=kinds), file)
    return engine.read(table, [str(file)])


class ParserWithSideEffect(Parser):
    """A parser after which something happens to each file, before anything is committed."""

    def __init__(self, parser: Parser, side_effect: Callable[[Path], object]) -> None:
        super().__init__(parser.engine, parser.scratch.parent, parser.threads)
        self.side_effect = side_effect

    def parse(self, csv_files: Sequence[CsvFile], folder: Path, reject_folder: Path) -> list[ParsedFile | BadFileError]:
        try:
            return super().parse(csv_files, folder, reject_folder)
        finally:
            for csv_file in csv_files:
                self.side_effect(csv_file.path)


class IngestHarness:
    """A data root with everything that works on it. `engine` computes the rankings; DuckDB parses the files."""

    def __init__(self, root: DataRoot | Path, engine: Engine) -> None:
        self.root = root if isinstance(root, DataRoot) else DataRoot(root)
        self.engine = engine
        self.reader = engine if engine.name == "duckdb" else DuckDBEngine(self.root.scratch, threads=1)
        self.landing = open_landing(self.root)
        self.root.prepare()
        self.store = DeltaStore(self.root)
        self.parser = Parser(self.reader, self.root.scratch, threads=1)
        self.ingest = self.ingest_with()
        self.dropped = 0

    def ingest_with(
        self,
        store: DeltaStore | None = None,
        parser: Parser | None = None,
        retention_hours: float = RETENTION_HOURS,
    ) -> Ingest:
        """Return an ingest with some parts replaced."""
        return Ingest(self.landing, store or self.store, parser or self.parser, retention_hours)

    def drop(self, table: Table, name: str, content: str | bytes) -> Path:
        """Write a file into the table's drop folder; each is a second younger than the one before."""
        path = self.root.drop_folder(table) / name
        self.root.write(path, content.encode() if isinstance(content, str) else content)
        if self.root.store:
            return path
        self.dropped += 1
        moment = time.time() - DROPPED_SECONDS_AGO + self.dropped
        os.utime(path, (moment, moment))
        return path

    def load(self, table: Table) -> IngestReport:
        """Load the files that wait for the table."""
        return self.ingest.load(table, LOG)

    def waiting(self) -> list[str]:
        """Return the names of the files in the drop folders, including hidden ones."""
        return waiting_files(self.root)

    def rows(self, table: Table, *columns: str) -> list[tuple[Any, ...]]:
        """Return the rows of the newest version in file order, with these columns or all."""
        names = list(columns) or [column.name for column in table.columns]
        rows = [row for file in self.store.table_version(table).files for row in pq.read_table(file).to_pylist()]
        return [tuple(row[name] for name in names) for row in rows]

    def delivered(self, table: Table) -> list[tuple[Any, ...]]:
        """Return the delivered columns of a raw table, sorted."""
        return sorted(self.rows(table, *(column.name for column in table.delivered)), key=repr)

    def rejected(self) -> list[tuple[Any, ...]]:
        """Return line, column, reason and raw text of every rejected row, sorted."""
        return sorted(self.rows(REJECTED_ROWS, "line", "column_name", "reason", "raw_line"), key=repr)

    def rank(self) -> None:
        """Compute and commit both rankings as the assets do."""
        read = {
            table: self.engine.read(table, self.store.table_version(table).files)
            for table in (USER_DATA, USER_TOP_ARTISTS)
        }
        artists, _ = rank_artists(self.store, self.engine, self.reader, read[USER_DATA], read[USER_TOP_ARTISTS])
        self._write_ranking(ARTIST_RANK_IN_COUNTRY, artists)
        countries = country_rank_per_artist(artists, self.engine.cache, self.engine.release)
        self._write_ranking(COUNTRY_RANK_PER_ARTIST, countries)
        self.engine.clear_cache()

    def _write_ranking(self, table: Table, ranked: Numbered) -> None:
        self.store.replace(table, self.engine.write(ranked.named(), table, self.store.new_folder(table)))


def waiting_files(root: DataRoot) -> list[str]:
    """Return the names of the files in the drop folders, including hidden ones."""
    return sorted(path.name for table in RAW_TABLES for path in root.files_below(root.drop_folder(table)))
