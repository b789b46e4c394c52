"""DuckDB, the embedded engine: runs in this process."""

from collections.abc import Sequence
from functools import cached_property
from glob import escape
from pathlib import Path

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend
from ibis.util import gen_name

from music_assets.data_root import Scratch
from music_assets.engines.base import as_declared
from music_assets.storage.parquet import COMPRESSION, COMPRESSION_LEVEL, ROW_GROUP_ROWS
from music_assets.tables import Table

PARQUET = {
    "compression": COMPRESSION,
    "compression_level": COMPRESSION_LEVEL,
    "row_group_size": ROW_GROUP_ROWS,
    # Bloom filters cost a tenth of the time and of the size, and no query uses them.
    "write_bloom_filter": False,
    # A dictionary of the artists of a row group takes a quarter of the time and saves no space.
    "dictionary_size_limit": 16_384,
}


class DuckDBEngine:
    """One in-memory DuckDB database, which spills to a folder below `scratch` beyond `memory_limit`.

    Without limits, DuckDB uses 80 % of the memory and all cores.
    """

    name = "duckdb"

    def __init__(self, scratch: Path, memory_limit: str | None = None, threads: int | None = None) -> None:
        self.scratch = Scratch(scratch)
        self.memory_limit = memory_limit
        self.threads = threads
        self._cached: list[str] = []

    @cached_property
    def backend(self) -> Backend:
        """The Ibis backend, started on first use."""
        limits = {"memory_limit": self.memory_limit, "threads": self.threads}
        return ibis.duckdb.connect(
            ":memory:",
            temp_directory=str(self.scratch.folder),
            preserve_insertion_order=False,
            **{name: value for name, value in limits.items() if value is not None},
        )

    def read(self, table: Table, files: Sequence[str]) -> ir.Table:
        """Return the rows of these parquet files of the table."""
        if not files:
            return ibis.memtable(table.schema.to_pyarrow().empty_table(), schema=table.schema)
        # DuckDB reads an unescaped path with brackets, stars or question marks as a pattern.
        rows = self.backend.read_parquet([escape(file) for file in files])
        missing = {name: ibis.null(kind) for name, kind in table.schema.items() if name not in rows.columns}
        return rows.mutate(**missing).cast(table.schema).select(list(table.schema))

    def cache(self, rows: ir.Table) -> ir.Table:
        """Compute the rows into a temporary table, which may spill to disk."""
        cached = self.backend.create_table(gen_name("cached"), rows, temp=True)
        self._cached.append(cached.get_name())
        return cached

    def release(self, rows: ir.Table) -> None:
        """Drop the temporary table."""
        self._cached.remove(rows.get_name())
        self.backend.raw_sql(f"DROP TABLE {rows.get_name()}")

    def clear_cache(self) -> None:
        """Drop the temporary tables."""
        while self._cached:
            self.backend.raw_sql(f"DROP TABLE {self._cached.pop()}")

    def write(self, rows: ir.Table, table: Table, folder: Path) -> list[Path]:
        """Write the rows as one parquet file, in the table's sort order."""
        target = folder / "rows.parquet"
        self.backend.to_parquet(as_declared(rows, table), target, **PARQUET)
        return [target]
