"""The CSV parser: from CSV files to parquet files of good rows and of rejected rows, which are not committed yet."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from music_assets.data_root import Scratch
from music_assets.engines.base import Engine
from music_assets.ingest.cleaning import clean, has_defect, split_rejects
from music_assets.ingest.csv_header import BadFileError, CsvFile
from music_assets.ingest.exact_reader import read_text, text_table, write_text
from music_assets.ingest.fast_reader import PossibleDefectError, convert
from music_assets.tables import INGESTED_AT, REJECTED_ROWS, Table
from music_assets.transforms.current_rows import repeated_users


@dataclass(frozen=True)
class ParsedFile:
    """The parquet files with the rows of a CSV file, which may contain rows of other CSV files as well, and counts.

    `duplicates` is the number of rows whose key an earlier row of the same CSV file has.
    """

    files: tuple[Path, ...]
    rows: int
    duplicates: int = 0
    reject_files: tuple[Path, ...] = ()
    reject_reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def rejects(self) -> int:
        """The number of rejected rows."""
        return sum(self.reject_reasons.values())


class Parser:
    """Parses CSV files on this machine, whichever engine computes: with Polars, or exactly and with `engine`.

    `engine` must be embedded in this process. `scratch` is the parent of the parser's scratch folder, and `threads` the
    number of threads of Polars.
    """

    def __init__(self, engine: Engine, scratch: Path, threads: int | None = None) -> None:
        self.engine = engine
        self.scratch = Scratch(scratch)
        self.threads = threads

    def parse(self, csv_files: Sequence[CsvFile], folder: Path, reject_folder: Path) -> list[ParsedFile | BadFileError]:
        """Parse one file, or many small ones of the same table, and return the result for each.

        Good rows are written into `folder`, rejected ones, if there are any, into `reject_folder`. The result is a
        BadFileError if the file cannot be read to its end.
        """
        if len(csv_files) > 1:
            return self._parse_together(csv_files, folder, reject_folder)
        try:
            return [self._parse_one(csv_files[0], folder, reject_folder)]
        except BadFileError as error:
            return [error]

    def _parse_one(self, csv_file: CsvFile, folder: Path, reject_folder: Path) -> ParsedFile:
        try:
            files, reject_files = self._parse_fast(csv_file, folder)
        except PossibleDefectError:
            files, reject_files = self._parse_exactly(csv_file, folder, reject_folder)
        return self._summarize([csv_file], files, reject_files)[0]

    def _parse_together(
        self, csv_files: Sequence[CsvFile], folder: Path, reject_folder: Path
    ) -> list[ParsedFile | BadFileError]:
        """Parse files exactly into shared parquet files: parsed one by one they would take far longer.

        The rows of all files are in memory as text, then in a file: Ibis keeps a memtable until the process ends.
        """
        texts: dict[CsvFile, pa.Table] = {}
        bad: dict[CsvFile, BadFileError] = {}
        for csv_file in csv_files:
            try:
                texts[csv_file] = pa.concat_tables(read_text(csv_file))
            except BadFileError as error:
                bad[csv_file] = error
        if not texts:
            return list(bad.values())
        with self._text(folder) as text:
            pq.write_table(pa.concat_tables(texts.values()), text)
            written = self._write(text, csv_files[0].table, folder, reject_folder)
        parsed = dict(zip(texts, self._summarize(list(texts), *written), strict=True))
        return [bad.get(csv_file) or parsed[csv_file] for csv_file in csv_files]

    def _parse_fast(self, csv_file: CsvFile, folder: Path) -> tuple[list[Path], list[Path]]:
        target = folder / "rows.parquet"
        convert(csv_file, target, self.threads)
        rows = self.engine.read(csv_file.table, [str(target)])
        if rows.filter(has_defect(rows, csv_file.table)).count().to_pyarrow().as_py():
            raise PossibleDefectError("a value is missing or out of range")
        return [target], []

    def _parse_exactly(self, csv_file: CsvFile, folder: Path, reject_folder: Path) -> tuple[list[Path], list[Path]]:
        with self._text(folder) as text:
            write_text(csv_file, text)
            return self._write(text, csv_file.table, folder, reject_folder)

    @contextmanager
    def _text(self, folder: Path) -> Iterator[Path]:
        """Yield where to write the rows as text, for a folder of parquet files, and delete them in the end."""
        text = self.scratch.folder / f"{folder.name}.parquet"
        try:
            yield text
        finally:
            text.unlink(missing_ok=True)

    def _write(self, text: Path, table: Table, folder: Path, reject_folder: Path) -> tuple[list[Path], list[Path]]:
        """Clean the rows of a file of text, and write the good and the rejected ones; return the files of each."""
        raw = self.engine.read(text_table(table), [str(text)])
        good, rejected = split_rejects(clean(raw, table), table)
        files = self.engine.write(good, table, folder)
        reject_files = self.engine.write(rejected, REJECTED_ROWS, reject_folder)
        if _count_rows(reject_files):
            return files, reject_files
        for file in reject_files:
            file.unlink()
        return files, []

    def _summarize(
        self, csv_files: Sequence[CsvFile], files: Sequence[Path], reject_files: Sequence[Path]
    ) -> list[ParsedFile]:
        """Count the rows of each CSV file in parquet files. A row's `ingested_at` identifies its CSV file."""
        table = csv_files[0].table
        rows = self.engine.read(table, [str(file) for file in files])
        if len(csv_files) == 1:
            counts = {csv_files[0].ingested_at: _count_rows(files)}
        else:
            counts = _by_file(rows.group_by(INGESTED_AT.name).agg(number=rows.count()))
        duplicates = self._duplicates(rows, table)
        reasons = self._reject_reasons(reject_files)
        return [
            ParsedFile(
                files=tuple(files),
                rows=counts.get(csv_file.ingested_at, 0),
                duplicates=duplicates.get(csv_file.ingested_at, 0),
                reject_files=tuple(reject_files),
                reject_reasons=reasons.get(csv_file.ingested_at, Counter()),
            )
            for csv_file in csv_files
        ]

    def _duplicates(self, rows: ir.Table, table: Table) -> dict[datetime, int]:
        # Few users have a key twice, and finding them is far cheaper than counting all keys.
        candidates = rows.semi_join(ibis.memtable(repeated_users(rows, table)), "user_id")
        keys = candidates.group_by([INGESTED_AT.name, *table.key]).agg(rows=candidates.count())
        return _by_file(keys.group_by(INGESTED_AT.name).agg(number=(keys["rows"] - 1).sum()))

    def _reject_reasons(self, reject_files: Sequence[Path]) -> dict[datetime, Counter[str]]:
        if not reject_files:
            return {}
        rejected = self.engine.read(REJECTED_ROWS, [str(file) for file in reject_files])
        counted = rejected.group_by([INGESTED_AT.name, "reason"]).agg(number=rejected.count())
        reasons: dict[datetime, Counter[str]] = {}
        for row in counted.to_pyarrow().to_pylist():
            reasons.setdefault(row[INGESTED_AT.name], Counter())[row["reason"]] = row["number"]
        return reasons


def _count_rows(files: Sequence[Path]) -> int:
    return sum(pq.read_metadata(file).num_rows for file in files)


def _by_file(counted: ir.Table) -> dict[datetime, int]:
    return {row[INGESTED_AT.name]: row["number"] for row in counted.to_pyarrow().to_pylist()}
