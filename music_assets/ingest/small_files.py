"""Small files, many at a time: parsing one by itself costs far more than its rows do.

Each is read exactly; then an engine parses the rows of all at once. `ingested_at`, of which each file has its own,
tells whose row is whose.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from music_assets.engines.base import CsvFile, Engine, ParsedFile
from music_assets.ingest.exact_reader import BadFileError, is_compressed, read_at_once
from music_assets.tables import INGESTED_AT, SOURCE_FILE

SMALL_BYTES = 1 << 20
FEWEST_TOGETHER = 20
"""Fewer are parsed one by one, which takes seconds at most."""
BYTES_TOGETHER = 1 << 24
"""Of CSV, whose rows stand in memory as text."""


def is_small(path: Path, size: int) -> bool:
    """Tell whether the file's rows fit into memory beside those of others; a compressed file may hold anything."""
    return size <= SMALL_BYTES and not is_compressed(path)


def parse_together(
    engine: Engine, files: Sequence[CsvFile], folder: Path, reject_folder: Path
) -> list[ParsedFile | BadFileError]:
    """Parse small files of one table into shared parquet files; return for each what became of it."""
    rows: list[pa.Table] = []
    bad: dict[CsvFile, BadFileError] = {}
    for file in files:
        try:
            rows.append(_stamped(file))
        except BadFileError as error:
            bad[file] = error
    good = [file for file in files if file not in bad]
    if not good:
        return list(bad.values())
    paths, reject_paths = engine.parse_texts(pa.concat_tables(rows), files[0].table, folder, reject_folder)
    parsed = _told_apart(good, paths, reject_paths)
    return [bad.get(file) or parsed[file] for file in files]


def _stamped(file: CsvFile) -> pa.Table:
    """Return the rows of the file as text: see `Engine.parse_texts`."""
    names = [column.name for column in file.table.delivered]
    rows = read_at_once(file.path, file.header).select([*names, "line", "raw_line", "broken"])
    source_file = pa.repeat(pa.scalar(file.source_file, pa.string()), len(rows))
    ingested_at = pa.repeat(pa.scalar(file.ingested_at, pa.timestamp("us")), len(rows))
    return rows.append_column(SOURCE_FILE.name, source_file).append_column(INGESTED_AT.name, ingested_at)


def _told_apart(
    files: Sequence[CsvFile], paths: Sequence[Path], reject_paths: Sequence[Path]
) -> dict[CsvFile, ParsedFile]:
    """Return what became of each file, going by the rows of all."""
    rows = _read(paths, [INGESTED_AT.name, *files[0].table.key])
    taken = _counted(rows)
    different = _counted(rows.group_by(rows.column_names).aggregate([]))
    reasons: dict[datetime, Counter[str]] = defaultdict(Counter)
    rejects = _read(reject_paths, [INGESTED_AT.name, "reason"])
    for group in rejects.group_by(rejects.column_names).aggregate([([], "count_all")]).to_pylist():
        reasons[group[INGESTED_AT.name]][group["reason"]] = group["count_all"]
    return {
        file: ParsedFile(
            files=tuple(paths),
            rows=taken[file.ingested_at],
            duplicates=taken[file.ingested_at] - different[file.ingested_at],
            reject_files=tuple(reject_paths),
            rejects=reasons[file.ingested_at].total(),
            reasons=reasons[file.ingested_at],
        )
        for file in files
    }


def _read(paths: Sequence[Path], names: list[str]) -> pa.Table:
    tables = [pq.read_table(path, columns=names, partitioning=None) for path in paths]
    return pa.concat_tables(tables) if tables else pa.table({name: [] for name in names})


def _counted(rows: pa.Table) -> Counter[datetime]:
    """Return how many of the rows are of which time."""
    return Counter({each["values"]: each["counts"] for each in pc.value_counts(rows[INGESTED_AT.name]).to_pylist()})
