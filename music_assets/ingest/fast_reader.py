"""The fast reader: converts CSV files without defects to parquet with Polars, in half the CPU time DuckDB needs.

Polars itself stops at most defects. The others are checked here: in the bytes of the file, broken quoting, rows that
are too short and ambiguous line ends; in the rows written, values that are missing or out of range (see `Parser`). On a
possible defect the file is read by the exact reader instead, so that a false alarm only costs time.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from music_assets.ingest.characters import INVISIBLE
from music_assets.ingest.csv_header import HEADER_BYTES, CsvFile, open_csv
from music_assets.ingest.csv_records import MAXIMUM_ROW_LENGTH
from music_assets.ingest.daemon_thread import run_in_thread
from music_assets.settings import set_variables_unless_set
from music_assets.storage.parquet import COMPRESSION, COMPRESSION_LEVEL, ROW_GROUP_ROWS
from music_assets.tables import INGESTED_AT, SOURCE_FILE, Column

if TYPE_CHECKING:
    import polars as pl

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.intp]
BLOCK_BYTES = MAXIMUM_ROW_LENGTH // 2
"""Each line that is too long fills at least one block, from one multiple of it to the next."""
MAXIMUM_QUOTED_BYTES = MAXIMUM_ROW_LENGTH // 2
"""Bytes between an opening and a closing quote; a quote that stays open for longer may be a defect."""
CHUNK_BYTES = 4_000_000
"""Bytes that Polars reads at a time. With its own default it uses 190 MB more and is no faster."""
BYTES_PER_COMMA = 250
"""Average above which rows are too large: Polars needs a whole row group in memory."""
BOM = b"\xef\xbb\xbf"
COMMA, QUOTE = np.frombuffer(b',"', np.uint8)
BEFORE_QUOTE = np.isin(np.arange(256), np.frombuffer(b',\n"', np.uint8))
AFTER_QUOTE = np.isin(np.arange(256), np.frombuffer(b',\n\r"', np.uint8))
"""For each byte, whether it may be there: around a quoted field, or as the other half of a doubled quote."""


class PossibleDefectError(Exception):
    """The file may have a defect. Only the exact reader can say whether, and where."""


def convert(csv_file: CsvFile, target: Path, threads: int | None = None) -> None:
    """Write the typed rows of the file to the parquet file `target`.

    Raises PossibleDefectError, after which the content of `target` is undefined, and BadFileError if the file cannot be
    read to its end. Missing values and values out of range are not detected.
    """
    _check_byte_order_mark(csv_file.path)
    separators = sum(_count_separators(rows, quotes) for rows, quotes in _row_blocks(csv_file.path))
    # Polars does not react to an interrupt before it is done.
    run_in_thread(partial(_convert, csv_file, target, threads)).result()
    lines = pq.read_metadata(target).num_rows + 1
    if separators != lines * (len(csv_file.header.columns) - 1):
        raise PossibleDefectError("a row may have too few fields, which Polars fills up")


def _check_byte_order_mark(path: Path) -> None:
    """Raise PossibleDefectError if the second line has a byte order mark: Polars would ignore it after the header."""
    with open_csv(path) as file:
        file.readline(HEADER_BYTES)  # a file with carriage returns for line ends is one line
        if file.read(len(BOM)) == BOM:
            raise PossibleDefectError("a byte order mark inside the file")


def _row_blocks(path: Path) -> Iterator[tuple[Bytes, Positions]]:
    """Read the file in blocks of whole rows, each with the positions of its quotes.

    A block is valid until the next one is read. Raises PossibleDefectError if a row does not fit into a block, or if a
    carriage return is not part of a line end.
    """
    buffer = bytearray(2 * BLOCK_BYTES + 1)
    content = np.frombuffer(buffer, np.uint8)
    rest = 0
    with open_csv(path) as file:
        if file.read(len(BOM)) != BOM:
            file.seek(0)
        while read := file.readinto(memoryview(buffer)[rest : rest + BLOCK_BYTES]):
            filled = rest + read
            length, quotes = _whole_rows(buffer, content, filled)
            if length:
                _check_line_ends(buffer, length)
                yield content[:length], quotes
            rest = filled - length
            if rest > BLOCK_BYTES:
                raise PossibleDefectError("a line or a quoted field may be too long")
            buffer[:rest] = buffer[length:filled]
    if rest:
        buffer[rest : rest + 1] = b"\n"
        _check_line_ends(buffer, rest + 1)
        yield content[: rest + 1], np.flatnonzero(content[:rest] == QUOTE)


def _whole_rows(buffer: bytearray, content: Bytes, filled: int) -> tuple[int, Positions]:
    """Return the length of the whole rows at the start of the buffer, and the positions of the quotes in them."""
    length = buffer.rfind(b"\n", 0, filled) + 1
    quotes = np.flatnonzero(content[:length] == QUOTE)
    while len(quotes) % 2:  # The line end is inside a quoted field, whose row begins before the quote.
        length = buffer.rfind(b"\n", 0, int(quotes[-1])) + 1
        quotes = quotes[: np.searchsorted(quotes, length)]
    return length, quotes


def _check_line_ends(buffer: bytearray, length: int) -> None:
    if buffer.find(b"\r", 0, length) >= 0 and buffer.count(b"\r", 0, length) != buffer.count(b"\r\n", 0, length):
        raise PossibleDefectError("\\r may be a line end or text")


def _count_separators(rows: Bytes, quotes: Positions) -> int:
    """Count the commas between fields.

    Raises PossibleDefectError if a quote is out of place, a quoted field too long, or if there are too few commas.
    """
    commas = int(np.count_nonzero(rows == COMMA))
    if len(rows) - commas * BYTES_PER_COMMA > BLOCK_BYTES // 2:
        raise PossibleDefectError("the rows may be too large for a row group in memory")
    if not len(quotes):
        return commas
    if len(quotes) % 2:
        raise PossibleDefectError("a quote is not closed")
    opening, closing = quotes[0::2], quotes[1::2]
    # If the first byte is a quote, index -1 is the last byte, which is a line end, as it should be.
    if not (BEFORE_QUOTE[rows[opening - 1]].all() and AFTER_QUOTE[rows[closing + 1]].all()):
        raise PossibleDefectError("a quote inside a field")
    lengths = closing - opening
    if lengths.max() > MAXIMUM_QUOTED_BYTES:
        raise PossibleDefectError("a quoted field may be too long")
    ends = np.cumsum(lengths)
    quoted = np.arange(ends[-1]) + np.repeat(opening - ends + lengths, lengths)
    return commas - int(np.count_nonzero(rows[quoted] == COMMA))


def _convert(csv_file: CsvFile, target: Path, threads: int | None) -> None:
    set_variables_unless_set(POLARS_CSV_CHUNK_SIZE=str(CHUNK_BYTES))
    if threads:
        set_variables_unless_set(POLARS_MAX_THREADS=str(threads))
    import polars as pl  # takes 0.2 s, which runs without new files save

    types = csv_file.table.schema.to_polars()
    values = {column.name: _value(column, types[column.name]) for column in csv_file.table.delivered}
    stamps = {SOURCE_FILE.name: pl.lit(csv_file.source_file), INGESTED_AT.name: pl.lit(csv_file.ingested_at)}
    schema = {
        name or f"unknown {place}": types[name] if name and _is_typed(csv_file.table.column(name)) else pl.String()
        for place, name in enumerate(csv_file.header.columns)
    }
    raw = pl.scan_csv(csv_file.path, has_header=False, skip_lines=1, schema=schema, glob=False, raise_if_empty=False)
    try:
        raw.select(**values, **stamps).select(list(types)).sink_parquet(
            target, compression=COMPRESSION, compression_level=COMPRESSION_LEVEL, row_group_size=ROW_GROUP_ROWS
        )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise PossibleDefectError(f"Polars stopped: {error}") from error


def _is_typed(column: Column) -> bool:
    """Return whether Polars may parse the type: in a nullable column it would also read blanks as NULL."""
    return column.type != "string" and not column.nullable


def _value(column: Column, type_: "pl.DataType") -> "pl.Expr":
    """Return the value of a column, with NULL for unknown values, as `clean` does.

    Numbers spelled otherwise than as digits stop the conversion: only the exact reader compares them with words.
    """
    import polars as pl

    value = pl.col(column.name)
    if not column.nullable:
        return value
    unknown = value == ""
    if column.unknown_words and column.type == "string":
        value = value.str.strip_chars(INVISIBLE)
        unknown = value.str.to_lowercase().is_in(["", *column.unknown_words])
    return pl.when(~unknown).then(value).cast(type_)
