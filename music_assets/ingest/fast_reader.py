"""Flawless CSV files, read fast: by Polars, which types and writes them in half the time that DuckDB takes.

Polars stops at most defects by itself. What it lets pass is looked for apart. In the bytes of the file before: broken
quoting, rows that are too short, doubtful line ends. In the rows that were written: values missing or out of range.
Whoever is in doubt about a file reads it exactly (`lake/csv_file.py`), so a doubt costs time and nothing else.
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from music_assets.engines.base import CsvFile
from music_assets.ingest.cleaning import BLANKS
from music_assets.ingest.exact_reader import LONGEST_RECORD, opened
from music_assets.ingest.parser import COMPRESSION, COMPRESSION_LEVEL, ROWS_IN_GROUP
from music_assets.ingest.threads import begin
from music_assets.tables import INGESTED_AT, SOURCE_FILE, Column

if TYPE_CHECKING:
    import polars as pl

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]
READ_AT_ONCE = LONGEST_RECORD // 2
"""Bytes. Each line that is too long holds as many, from one multiple of them to the next, without a line end."""
LONGEST_QUOTED = LONGEST_RECORD // 2
"""Bytes from one quote to the next; a quote that stays open for longer may be broken."""
CHUNK_BYTES = 4_000_000
"""What Polars reads at once. By its own measure it takes 190 MB more, and is no faster."""
BYTES_FOR_A_COMMA = 250
"""On average. Polars holds a whole row group in memory, whatever its rows take."""
BOM = b"\xef\xbb\xbf"
COMMA, QUOTE = np.frombuffer(b',"', np.uint8)
BEFORE_A_QUOTE = np.isin(np.arange(256), np.frombuffer(b',\n"', np.uint8))
AFTER_A_QUOTE = np.isin(np.arange(256), np.frombuffer(b',\n\r"', np.uint8))
"""For each byte, whether it may stand there: around a quoted field, or as the other half of a doubled quote."""


class DoubtError(Exception):
    """The file may hold a defect. Nothing is known of where, or whether it does."""


def parse_flawless(csv_file: CsvFile, target: Path, threads: int | None = None) -> None:
    """Write the typed rows of the file to the parquet file `target`, with what they are stamped with.

    Raises DoubtError where the file may hold a defect, other than of a value: what is written may then be wrong. Raises
    BadFileError where it cannot be read to its end.
    """
    _check_second_line(csv_file.path)
    separators = _count_separators(csv_file.path)
    # In a thread, as Polars does not look for an interruption before it is done.
    begin(partial(_convert, csv_file, target, threads)).result()
    lines = pq.read_metadata(target).num_rows + 1
    if separators != lines * (len(csv_file.header.columns) - 1):
        raise DoubtError("a row may be too short: Polars fills it up")


def _check_second_line(path: Path) -> None:
    """Raise DoubtError where it begins with a byte order mark: once the header is skipped, Polars passes over it."""
    with opened(path) as file:
        file.readline()
        if file.read(len(BOM)) == BOM:
            raise DoubtError("a byte order mark stands within the file")


def _count_separators(path: Path) -> int:
    """Return the number of commas between fields, those of the header among them.

    Raises DoubtError unless quotes enclose whole fields, and double within, and lines end with \\n or \\r\\n, at a
    bearable length, one by one and on average. Raises BadFileError where the file cannot be read to its end.
    """
    return sum(_separators(rows, quotes) for rows, quotes in _blocks(path))


def _blocks(path: Path) -> Iterator[tuple[Bytes, Places]]:
    """Yield the file in blocks of whole rows, each of which ends with a line end, with the places of their quotes.

    A block lasts until the next is asked for. Raises DoubtError where a line or a quoted field is too long for one.
    """
    buffer = bytearray(2 * READ_AT_ONCE + 1)
    content = np.frombuffer(buffer, np.uint8)
    begun = 0
    with opened(path) as file:
        if file.read(len(BOM)) != BOM:
            file.seek(0)
        while read := file.readinto(memoryview(buffer)[begun : begun + READ_AT_ONCE]):
            filled = begun + read
            length = buffer.rfind(b"\n", 0, filled) + 1
            quotes = np.flatnonzero(content[:length] == QUOTE)
            while len(quotes) % 2:  # That line end stands within a quoted field, of a row that begins before the quote.
                length = buffer.rfind(b"\n", 0, int(quotes[-1])) + 1
                quotes = quotes[: np.searchsorted(quotes, length)]
            if length:
                _check_line_ends(buffer, length)
                yield content[:length], quotes
            begun = filled - length
            if begun > READ_AT_ONCE:
                raise DoubtError("a line, or a quoted field, may be too long")
            buffer[:begun] = buffer[length:filled]
    if begun:
        buffer[begun : begun + 1] = b"\n"
        _check_line_ends(buffer, begun + 1)
        yield content[: begun + 1], np.flatnonzero(content[:begun] == QUOTE)


def _check_line_ends(buffer: bytearray, length: int) -> None:
    if buffer.find(b"\r", 0, length) >= 0 and buffer.count(b"\r", 0, length) != buffer.count(b"\r\n", 0, length):
        raise DoubtError("\\r may be a line end or text")


def _separators(rows: Bytes, quotes: Places) -> int:
    """Count the commas between fields. Raises DoubtError where a quote is out of place, or there are too few commas."""
    commas = int(np.count_nonzero(rows == COMMA))
    if len(rows) - commas * BYTES_FOR_A_COMMA > READ_AT_ONCE // 2:
        raise DoubtError("the rows may be too large to hold many of them in memory")
    if not len(quotes):
        return commas
    if len(quotes) % 2:
        raise DoubtError("a quote is not closed")
    opening, closing = quotes[0::2], quotes[1::2]
    # Where the first byte is a quote, the one "before" it is the last: a line end, as it should be.
    if not (BEFORE_A_QUOTE[rows[opening - 1]].all() and AFTER_A_QUOTE[rows[closing + 1]].all()):
        raise DoubtError("a quote stands within a field")
    lengths = closing - opening
    if lengths.max() > LONGEST_QUOTED:
        raise DoubtError("a quoted field may be too long")
    ends = np.cumsum(lengths)
    quoted = np.arange(ends[-1]) + np.repeat(opening - ends + lengths, lengths)
    return commas - int(np.count_nonzero(rows[quoted] == COMMA))


def _convert(csv_file: CsvFile, target: Path, threads: int | None) -> None:
    """Let Polars type and write the rows. Raises DoubtError where it meets a defect."""
    os.environ.setdefault("POLARS_CSV_CHUNK_SIZE", str(CHUNK_BYTES))
    if threads:
        os.environ.setdefault("POLARS_MAX_THREADS", str(threads))
    import polars as pl  # 0.2 s, which runs without new rows need not spend

    types = csv_file.table.schema.to_polars()
    values = {column.name: _value(column, types[column.name]) for column in csv_file.table.delivered}
    stamps = {SOURCE_FILE.name: pl.lit(csv_file.source_file), INGESTED_AT.name: pl.lit(csv_file.ingested_at)}
    delivered = {
        name or f"unknown {place}": types[name] if name and _is_typed(csv_file.table.column(name)) else pl.String()
        for place, name in enumerate(csv_file.header.columns)
    }
    raw = pl.scan_csv(csv_file.path, has_header=False, skip_lines=1, schema=delivered, glob=False, raise_if_empty=False)
    try:
        raw.select(**values, **stamps).select(list(types)).sink_parquet(
            target, compression=COMPRESSION, compression_level=COMPRESSION_LEVEL, row_group_size=ROWS_IN_GROUP
        )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DoubtError(f"Polars met a defect: {error}") from error


def _is_typed(column: Column) -> bool:
    """Tell whether Polars may type the column: where NULL may stand, it would put it for blanks too."""
    return column.type != "string" and not column.nullable


def _value(column: Column, type_: "pl.DataType") -> "pl.Expr":
    """Return the value of a column, with what means unknown as NULL, as `clean` does."""
    import polars as pl

    value = pl.col(column.name)
    if not column.nullable:
        return value
    unknown = value == ""
    if column.unknown_words:
        value = value.str.strip_chars(BLANKS)
        unknown = value.str.to_lowercase().is_in(["", *column.unknown_words])
    return pl.when(~unknown).then(value).cast(type_)
