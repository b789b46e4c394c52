"""DuckDB, the embedded engine: reads and writes parquet, and runs Ibis expressions, in this process.

Flawless CSV is read by Polars (see `flawless.py`), any other by the reader that all engines share.
"""

from collections.abc import Sequence
from functools import cached_property
from glob import escape
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.duckdb import Backend
from ibis.util import gen_name

from music_assets.data_root import Scratch
from music_assets.engines.base import CsvFile, ParsedFile
from music_assets.ingest.cleaning import clean, is_flawed
from music_assets.ingest.exact_reader import read_exactly
from music_assets.ingest.fast_reader import DoubtError, parse_flawless
from music_assets.ingest.parser import (
    COMPRESSION,
    COMPRESSION_LEVEL,
    ROWS_IN_GROUP,
    account,
    good_and_rejected,
    without_empty,
)
from music_assets.tables import Table

PARQUET = {
    "compression": COMPRESSION,
    "compression_level": COMPRESSION_LEVEL,
    "row_group_size": ROWS_IN_GROUP,
    # They cost a tenth of the time and of the size, and nothing is looked up by them.
    "write_bloom_filter": False,
}


class DuckDBEngine:
    """One in-memory DuckDB for a run, spilling to a folder below `scratch` beyond `memory_limit`.

    Every path that is read is escaped: DuckDB takes brackets, stars and question marks in it for a pattern.
    """

    name = "duckdb"

    def __init__(self, scratch: Path, memory_limit: str = "800MB", threads: int | None = None) -> None:
        self.scratch = Scratch(scratch)
        self.memory_limit = memory_limit
        self.threads = threads

    @cached_property
    def backend(self) -> Backend:
        """The Ibis backend, started when it is first needed."""
        options: dict[str, object] = {
            "memory_limit": self.memory_limit,
            "temp_directory": str(self.scratch.folder),
            "preserve_insertion_order": False,
        }
        if self.threads:
            options["threads"] = self.threads
        return ibis.duckdb.connect(":memory:", **options)

    def parse(self, csv_file: CsvFile, folder: Path, reject_folder: Path) -> ParsedFile:
        """Parse the file fast, taking it to be flawless; at the first doubt start again, exactly."""
        target = folder / "rows.parquet"
        try:
            self._parse_flawless(csv_file, target)
        except DoubtError:
            return self._parse_exactly(csv_file, target, reject_folder)
        return account(self, csv_file, [target])

    def parse_texts(
        self, texts: pa.Table, table: Table, folder: Path, reject_folder: Path
    ) -> tuple[Sequence[Path], Sequence[Path]]:
        """Parse the rows of many small files at once."""
        target = folder / "rows.parquet"
        return [target], self._split(clean(ibis.memtable(texts), table), table, target, reject_folder)

    def read(self, table: Table, files: Sequence[str]) -> ir.Table:
        """Return the rows in these parquet files of the table."""
        if not files:
            return ibis.memtable(table.schema.to_pyarrow().empty_table(), schema=table.schema)
        return self.backend.read_parquet([escape(file) for file in files]).cast(table.schema).select(list(table.schema))

    def keep(self, rows: ir.Table) -> ir.Table:
        """Compute the rows into a table in memory, which spills to `scratch` as everything does."""
        return self.backend.create_table(gen_name("kept"), rows, temp=True)

    def write(self, rows: ir.Table, table: Table, folder: Path) -> list[Path]:
        """Write the rows as one parquet file, in the table's sort order."""
        target = folder / "rows.parquet"
        ordered = rows.select(list(table.schema)).cast(table.schema).order_by(list(table.sort_by))
        self._copy(ordered, target)
        return [target]

    def _parse_flawless(self, csv_file: CsvFile, target: Path) -> None:
        parse_flawless(csv_file, target, self.threads)
        rows = self.read(csv_file.table, [str(target)])
        if rows.filter(is_flawed(rows, csv_file.table)).count().to_pyarrow().as_py():
            raise DoubtError("a value is missing or out of range")

    def _parse_exactly(self, csv_file: CsvFile, target: Path, reject_folder: Path) -> ParsedFile:
        texts = self.scratch.folder / f"{target.parent.name}.parquet"
        try:
            read_exactly(csv_file.path, csv_file.header, texts)
            raw = self.backend.read_parquet(escape(str(texts)))
            cleaned = clean(raw, csv_file.table, csv_file.source_file, csv_file.ingested_at)
            reject_files = self._split(cleaned, csv_file.table, target, reject_folder)
            return account(self, csv_file, [target], reject_files)
        finally:
            texts.unlink(missing_ok=True)

    def _split(self, cleaned: ir.Table, table: Table, target: Path, reject_folder: Path) -> list[Path]:
        """Write good and rejected rows into a file each; return the latter, if there are any."""
        reject_target = reject_folder / "rows.parquet"
        good, rejected = good_and_rejected(cleaned, table)
        self._copy(good, target)
        self._copy(rejected, reject_target)
        return without_empty([reject_target])

    def _copy(self, rows: ir.Table, target: Path) -> None:
        self.backend.to_parquet(rows, target, **PARQUET)
