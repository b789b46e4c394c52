"""The exact reader: splits any CSV file into rows of text, and says on which line each begins and which are broken.

It reads the files in which the fast reader found a possible defect, and small files. Types belong to `cleaning`.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from music_assets.ingest.csv_header import CsvFile, open_csv
from music_assets.ingest.csv_records import (
    LONG_LINE_MARK,
    MAXIMUM_ROW_LENGTH,
    SURROGATE,
    WRONG_NUMBER_OF_FIELDS,
    split_records,
)
from music_assets.tables import INGESTED_AT, SOURCE_FILE, Column, Table

KEPT_CHARACTERS = 1_000
"""Characters that `rejected_rows` shows of a line that is too long."""
BLOCK_CHARACTERS = 1 << 22
"""Characters read and split at a time: more than HEADER_BYTES, so that the header is in the first block."""
RECORDS = pa.schema(
    [("line", pa.int64()), ("raw_line", pa.string()), ("fields", pa.list_(pa.string())), ("reason", pa.string())]
)


def text_table(table: Table) -> Table:
    """Declare what this reader returns of a file for the table.

    That is the delivered columns as text, `source_file` and `ingested_at`, then `line`, `raw_line`, and `broken`: why
    the row has no fields, or NULL.
    """
    text = [Column(column.name, "string", "") for column in table.delivered]
    origin = [Column("line", "int64", ""), Column("raw_line", "string", ""), Column("broken", "string", "")]
    return Table(f"{table.name} as text", "", "", (*text, SOURCE_FILE, INGESTED_AT, *origin))


def read_text(csv_file: CsvFile) -> Iterator[pa.Table]:
    """Read the rows of the file in parts, each in no particular order; the columns are those of `text_table`.

    Raises BadFileError if the file cannot be read to its end.
    """
    schema = text_table(csv_file.table).schema.to_pyarrow()
    columns = csv_file.header.columns
    places = [columns.index(column.name) for column in csv_file.table.delivered]
    yield schema.empty_table()
    for rows in _rows(_blocks(csv_file.path), len(columns)):
        fields = [pc.list_element(rows["fields"], place) for place in places]
        stamps = [pa.repeat(stamp, len(rows)) for stamp in (csv_file.source_file, csv_file.ingested_at)]
        yield pa.table([*fields, *stamps, rows["line"], rows["raw_line"], rows["reason"]], schema=schema)


def write_text(csv_file: CsvFile, target: Path) -> None:
    """Write the rows of the file, as `read_text` returns them, to the parquet file `target`."""
    schema = text_table(csv_file.table).schema.to_pyarrow()
    names = [*(column.name for column in csv_file.table.delivered), SOURCE_FILE.name, INGESTED_AT.name]
    with pq.ParquetWriter(target, schema, compression="zstd", use_dictionary=names) as writer:
        for rows in read_text(csv_file):
            writer.write_table(rows)


def _rows(blocks: Iterator[list[str]], width: int) -> Iterator[pa.Table]:
    """Split blocks of lines into the rows below the header, as tables of RECORDS.

    Only lines with quotes, or with bytes that are not UTF-8, are split one by one.
    """
    lines = next(blocks, [])
    next(split_records(lines, range(len(lines)), blocks), None)
    first_line = 1
    while lines:
        length = len(lines)
        positions = [
            position
            for position, line in enumerate(lines)
            if '"' in line or (not line.isascii() and SURROGATE.search(line) is not None)
        ]
        records = list(split_records(lines, positions, blocks, first_line, width))
        columns = [pa.array([row[place] for row in records], field.type) for place, field in enumerate(RECORDS)]
        yield pa.concat_tables([_plain_rows(lines[:length], first_line, width), pa.table(columns, schema=RECORDS)])
        first_line += length
        lines = lines[length:] or next(blocks, [])


def _plain_rows(lines: list[str], first_line: int, width: int) -> pa.Table:
    """Split lines without quotes in bulk, as `split_records` would."""
    texts = pc.ascii_rtrim(pa.array(lines, pa.string()), "\r\n")
    filled = pc.not_equal(pc.ascii_trim(texts, ","), "")
    numbers = pa.arange(first_line, first_line + len(lines)).filter(filled)
    texts = texts.filter(filled)
    fields = pc.split_pattern(texts, ",")
    whole = pc.equal(pc.list_value_length(fields), width)
    columns = [numbers, texts, pc.if_else(whole, fields, None), pc.if_else(whole, None, WRONG_NUMBER_OF_FIELDS)]
    return pa.table(columns, schema=RECORDS)


def _blocks(path: Path) -> Iterator[list[str]]:
    """Read the file's lines, with their ends, in blocks; memory is bounded however long a line is."""
    with open_csv(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        rest, cut = "", 0
        ended = False
        while not ended:
            block = text.read(BLOCK_CHARACTERS)
            ended = len(block) < BLOCK_CHARACTERS
            lines = io.StringIO(rest + block, newline="").readlines()
            rest = "" if ended else lines.pop()
            if lines:
                yield _shorten_long_lines(lines, cut)
                cut = 0
            if len(rest) > MAXIMUM_ROW_LENGTH and not rest.endswith(("\r", "\n")):
                cut += len(rest) - MAXIMUM_ROW_LENGTH - 1
                rest = rest[: MAXIMUM_ROW_LENGTH + 1]


def _shorten_long_lines(lines: list[str], cut: int) -> list[str]:
    """Shorten the lines that are too long; `cut` characters of the first line were removed before."""
    if max(map(len, lines)) <= MAXIMUM_ROW_LENGTH:
        return lines
    lengths = [len(line.rstrip("\r\n")) for line in lines]
    lengths[0] += cut
    return [
        f"{LONG_LINE_MARK}{line[:KEPT_CHARACTERS]} … ({length:,} characters)\n" if length > MAXIMUM_ROW_LENGTH else line
        for line, length in zip(lines, lengths, strict=True)
    ]
