"""What the engines share in parsing a CSV file: good rows are parted from rejected ones, and both are counted."""

from collections.abc import Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq

from music_assets.engines.base import CsvFile, Engine, ParsedFile
from music_assets.tables import REJECTED_ROWS
from music_assets.transforms.cleaning import clean
from music_assets.transforms.current import repeated_keys


def good_and_rejected(texts: ir.Table, csv_file: CsvFile) -> tuple[ir.Table, ir.Table]:
    """Part the rows that `read_exactly` wrote into those that can be taken and those that cannot, both typed."""
    cleaned = clean(texts, csv_file.table, csv_file.source_file, csv_file.ingested_at)
    verdict = cleaned.mutate(
        column_name=ibis.ifelse(cleaned["broken"].isnull(), cleaned["column_name"], ibis.null("string")),
        reason=cleaned["broken"].coalesce(cleaned["reason"]),
    )
    good = verdict.filter(verdict["reason"].isnull()).select(list(csv_file.table.schema))
    rejected = verdict.filter(verdict["reason"].notnull()).mutate(table_name=ibis.literal(csv_file.table.name))
    return good, rejected.select(list(REJECTED_ROWS.schema))


def account(engine: Engine, csv_file: CsvFile, files: Sequence[Path], reject_files: Sequence[Path] = ()) -> ParsedFile:
    """Count what the engine wrote. Where no row was rejected, the empty files of rejects are removed."""
    reasons = _reasons(engine, reject_files) if reject_files else {}
    if not reasons:
        for file in reject_files:
            file.unlink()
    repeats = repeated_keys(engine.read(csv_file.table, [str(file) for file in files]), csv_file.table)
    return ParsedFile(
        files=tuple(files),
        rows=sum(pq.read_metadata(file).num_rows for file in files),
        duplicates=repeats.agg(surplus=(repeats["rows"] - 1).sum().fill_null(0)).to_pyarrow()["surplus"][0].as_py(),
        reject_files=tuple(reject_files) if reasons else (),
        rejects=sum(reasons.values()),
        reasons=reasons,
    )


def _reasons(engine: Engine, reject_files: Sequence[Path]) -> dict[str, int]:
    rejected = engine.read(REJECTED_ROWS, [str(file) for file in reject_files])
    counted = rejected.group_by("reason").agg(rows=rejected.count()).to_pyarrow().to_pydict()
    return dict(zip(counted["reason"], counted["rows"], strict=True))
