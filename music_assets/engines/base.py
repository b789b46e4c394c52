"""The protocol that every engine implements, and what the engines share."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import ibis.expr.types as ir
import pyarrow as pa

from music_assets.tables import RAW_TABLES, Table
from music_assets.transforms.current_rows import repeated_users
from music_assets.transforms.rankings import number_column


class Engine(Protocol):
    """Reads and writes the parquet files of tables, and runs Ibis expressions over them."""

    name: str

    def __hash__(self) -> int: ...

    def read(self, table: Table, files: Sequence[str]) -> ir.Table:
        """Return the rows of these parquet files, with the declared columns of the table. Without files: no rows.

        A column that the files lack, as an older release wrote them, is NULL.
        """
        ...

    def cache(self, rows: ir.Table) -> ir.Table:
        """Compute the rows, now or when they are first read, and return them as a table."""
        ...

    def release(self, rows: ir.Table) -> None:
        """Drop cached rows, unless others that are still to be computed may depend on them."""
        ...

    def clear_cache(self) -> None:
        """Drop everything that was cached."""
        ...

    def write(self, rows: ir.Table, table: Table, folder: Path) -> list[Path]:
        """Write the rows as parquet files into `folder`, in the table's sort order, and return the files."""
        ...


def as_declared(rows: ir.Table, table: Table) -> ir.Table:
    """Return the declared columns of the table with their types, in its sort order if it has one.

    Where the rows have numbers in the order of a column, as `country_number`, they are sorted by these: it is faster.
    """
    order = [column if (column := number_column(name)) in rows.columns else name for name in table.sort_by]
    ordered = rows.order_by(order) if order else rows
    return ordered.select(list(table.schema)).cast(table.schema)


@lru_cache(maxsize=len(RAW_TABLES))
def repeated_users_in(reader: Engine, table: Table, files: tuple[str, ...]) -> pa.Table:
    """Return `repeated_users` of the rows of these parquet files.

    The files never change. The result is cached, as several steps of a refresh need it, and each time costs a pass over
    all rows.
    """
    return repeated_users(reader.read(table, files), table)
