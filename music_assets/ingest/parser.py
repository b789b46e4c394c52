"""What the engines share in parsing a CSV file: good rows are parted from rejected ones, and both are counted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq

from music_assets.engines.base import CsvFile, Engine, ParsedFile
from music_assets.tables import REJECTED_ROWS, Table
from music_assets.transforms.current_rows import repeated_keys

COMPRESSION: Final = "zstd"
COMPRESSION_LEVEL = 1
"""Writes a third faster than the default of 3, into files a seventh larger."""
ROWS_IN_GROUP = 245_760
"""Twice as large, row groups cost a tenth more CPU time and 80 MB more a thread: their dictionaries outgrow the caches.
Half as large, files grow a third. They are two of DuckDB's own (122,880 rows): of any other size, publishing would
write the rows of `music_db` twice.
"""


def good_and_rejected(cleaned: ir.Table, table: Table) -> tuple[ir.Table, ir.Table]:
    """Part cleaned rows into those that can be taken and those that cannot, with the columns of their tables.

    `cleaned` is what `clean` returns of rows that were read exactly: `line`, `raw_line` and `broken` stand behind.
    """
    verdict = cleaned.mutate(
        column_name=ibis.ifelse(cleaned["broken"].isnull(), cleaned["column_name"], ibis.null("string")),
        reason=cleaned["broken"].coalesce(cleaned["reason"]),
    )
    good = verdict.filter(verdict["reason"].isnull()).select(list(table.schema))
    rejected = verdict.filter(verdict["reason"].notnull()).mutate(table_name=ibis.literal(table.name))
    return good, rejected.select(list(REJECTED_ROWS.schema))


def account(reader: Engine, csv_file: CsvFile, files: Sequence[Path], reject_files: Sequence[Path] = ()) -> ParsedFile:
    """Count what an engine wrote."""
    reasons = _reasons(reader, reject_files) if reject_files else {}
    repeats = repeated_keys(reader.read(csv_file.table, [str(file) for file in files]), csv_file.table)
    return ParsedFile(
        files=tuple(files),
        rows=sum(pq.read_metadata(file).num_rows for file in files),
        duplicates=repeats.agg(surplus=(repeats["rows"] - 1).sum().fill_null(0)).to_pyarrow()["surplus"][0].as_py(),
        reject_files=tuple(reject_files),
        rejects=sum(reasons.values()),
        reasons=reasons,
    )


def without_empty(files: Sequence[Path]) -> list[Path]:
    """Remove the parquet files that hold no row; return the others."""
    rows = {file: pq.read_metadata(file).num_rows for file in files}
    for file in files:
        if not rows[file]:
            file.unlink()
    return [file for file in files if rows[file]]


def _reasons(reader: Engine, reject_files: Sequence[Path]) -> dict[str, int]:
    rejected = reader.read(REJECTED_ROWS, [str(file) for file in reject_files])
    counted = rejected.group_by("reason").agg(rows=rejected.count()).to_pyarrow().to_pydict()
    return dict(zip(counted["reason"], counted["rows"], strict=True))
