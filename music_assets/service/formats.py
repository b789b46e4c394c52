"""The formats of a query result: which one a request asks for, and how rows are encoded, batch by batch.

Arrow and Parquet use the columns' own types, except that Parquet stores intervals as text. JSON and NDJSON encode a
number as a number if every reader can represent it: integers beyond ±(2^53-1) and decimals with a scale become strings
of digits, NaN and the infinities the strings `NaN`, `Infinity` and `-Infinity`. Times are ISO 8601 (`Z` if they have a
time zone), intervals ISO 8601 durations, blobs Base64, maps lists of {"key", "value"}. CSV contains the same text; NULL
is an empty field, an empty string is "", and nested values are JSON.
"""

import base64
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import count, islice
from math import isfinite
from typing import Any

import duckdb
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

SAFE_INTEGER = 2**53 - 1
MEDIA_TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
"""The formats of `?format=` and their media types."""

PLAIN_TYPES = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
}
"""DuckDB types whose values are the same as Python objects and as Arrow data."""
_PLAIN_NAMES = {kind: name for name, kind in PLAIN_TYPES.items()}
PIECE_BYTES = 4 * 2**20
"""Arrow bytes that are encoded at a time, which bounds the memory that encoding takes."""
_INFINITE_DATES = {2**31 - 1: "infinity", -(2**31 - 1): "-infinity"}
_INFINITE_TIMES = {2**63 - 1: "infinity", -(2**63 - 1): "-infinity"}
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_FORMULA = "^[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
"""The start of a text that a spreadsheet takes for a formula; it also accepts the wide forms of the characters."""
_NOT_IN_ARROW = re.compile(r"\b(BIGNUM|BIT|GEOMETRY|TIME WITH TIME ZONE|UHUGEINT|UNION|VARIANT)\b")
"""DuckDB types without an exact Arrow counterpart."""


class UnsupportedTypeError(Exception):
    """A column has a type that no format can represent exactly."""


@dataclass(frozen=True)
class Result:
    """A query result. `columns` are the names and DuckDB types, `metadata` is what JSON, Arrow and Parquet add."""

    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]
    columns: list[dict[str, str]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)

    def head(self, rows: int) -> "Result":
        """Return the result with at most that many rows."""
        return replace(self, batches=_head(self.batches, rows))


def _head(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.slice(0, rows)
        rows -= batch.num_rows
        if rows <= 0:
            return


def columns_of(relation: duckdb.DuckDBPyRelation) -> list[dict[str, str]]:
    """Return name and type of each column. Raises UnsupportedTypeError."""
    columns = [{"name": name, "type": str(kind)} for name, kind in zip(relation.columns, relation.types, strict=True)]
    for column in columns:
        if _NOT_IN_ARROW.search(_QUOTED.sub("", column["type"])):
            raise UnsupportedTypeError(f"Column {column['name']!r} is {column['type']}: cast it to VARCHAR.")
    return columns


def result_of(rows: pa.RecordBatch) -> Result:
    """Return rows, whose types must be plain, as the result of a query."""
    columns = [{"name": field.name, "type": _PLAIN_NAMES[field.type]} for field in rows.schema]
    return Result(rows.schema, [rows], columns)


def negotiate(accept: str) -> str | None:
    """Return the format that matches an Accept header best; None if no format does."""
    offers = {media_type.partition(";")[0]: name for name, media_type in MEDIA_TYPES.items()}
    best: tuple[float, str | None] = (0.0, None)
    for part in accept.lower().split(",") if accept.strip() else ["*/*"]:
        media_range, *parameters = (piece.strip() for piece in part.split(";"))
        name = offers.get(media_range) or ("json" if media_range in ("*/*", "application/*") else None)
        quality = _quality(parameters)
        if name and quality > best[0]:
            best = (quality, name)
    return best[1]


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return min(float(parameter[2:]), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def encode(result: Result, form: str) -> Iterator[bytes]:
    """Yield the encoded result piece by piece."""
    return _ENCODERS[form](replace(result, batches=_pieces(result.batches)))


def _pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the batches, those of many bytes in slices."""
    for batch in batches:
        rows = max(1, batch.num_rows * PIECE_BYTES // max(batch.nbytes, PIECE_BYTES))
        yield batch.slice(0, rows)
        yield from (batch.slice(start, rows) for start in range(rows, batch.num_rows, rows))


def _json(result: Result) -> Iterator[bytes]:
    yield b'{"columns":' + orjson.dumps(result.columns) + b',"rows":['
    separator = b""
    for batch in result.batches:
        if batch.num_rows:
            rows = list(zip(*(values(column) for column in batch.columns), strict=True))
            yield separator + _dumps(rows, batch.nbytes)[1:-1]
            separator = b","
    yield b"]," + orjson.dumps(result.metadata)[1:]


def _dumps(content: Any, nbytes: int) -> bytes:
    """Return the JSON of a value of this size.

    orjson reserves eight times the length of a text, and crashes if it cannot.
    """
    if nbytes <= 2 * PIECE_BYTES:
        return orjson.dumps(content)
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _ndjson(result: Result) -> Iterator[bytes]:
    names = unique_names(result.schema.names)
    for batch in result.batches:
        rows = zip(*(values(column) for column in batch.columns), strict=True)
        yield b"".join(_dumps(dict(zip(names, row, strict=True)), batch.nbytes) + b"\n" for row in rows)


def _objects(result: Result) -> Iterator[bytes]:
    """Yield one JSON array with an object per line."""
    separator = b"["
    for lines in _ndjson(result):
        if lines:
            yield separator + lines[:-1].replace(b"\n", b",\n")
            separator = b",\n"
    yield b"]" if separator != b"[" else b"[]"


def _csv(result: Result) -> Iterator[bytes]:
    names = unique_names(result.schema.names)
    yield _csv_table([pa.array([name]) for name in names], names)
    for batch in result.batches:
        yield _csv_table([_csv_column(column) for column in batch.columns], names)


def _spreadsheet(result: Result) -> Iterator[bytes]:
    """Yield CSV whose cells no spreadsheet takes for formulas: an apostrophe in front makes them text."""
    names = unique_names(result.schema.names)
    yield _csv_table([_without_formulas(pa.array([name])) for name in names], names)
    for batch in result.batches:
        columns = [
            _without_formulas(_csv_column(column)) if _holds_text(column.type) else _csv_column(column)
            for column in batch.columns
        ]
        yield _csv_table(columns, names)


def _holds_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_dictionary(kind) or pa.types.is_binary(kind)


def _without_formulas(column: pa.Array) -> pa.Array:
    is_formula = pc.match_substring_regex(column, _FORMULA)
    return pc.if_else(is_formula, pc.binary_join_element_wise("'", column, ""), column)


def _csv_table(columns: Sequence[pa.Array], names: Sequence[str]) -> bytes:
    sink = io.BytesIO()
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
    pyarrow.csv.write_csv(pa.RecordBatch.from_arrays(columns, names=list(names)), sink, options)
    return sink.getvalue()


def _csv_column(column: pa.Array) -> pa.Array:
    if pa.types.is_string(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return column
    if pa.types.is_floating(column.type) and _all_finite(column):
        return column
    return pa.array(texts(column), pa.string())


def _arrow(result: Result) -> Iterator[bytes]:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, result.schema.with_metadata(_metadata(result))) as writer:
        for batch in result.batches:
            writer.write_batch(batch.replace_schema_metadata(_metadata(result)))
            yield _drain(sink)
    yield _drain(sink)


def _parquet(result: Result) -> Iterator[bytes]:
    sink = io.BytesIO()
    names = unique_names(result.schema.names)
    kinds = [_parquet_type(field.type) for field in result.schema]
    schema = pa.schema(list(zip(names, kinds, strict=True)), metadata=_metadata(result))
    with pyarrow.parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        for batch in result.batches:
            columns = [_parquet_column(column, kind) for column, kind in zip(batch.columns, kinds, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            yield _drain(sink)
    yield _drain(sink)


def _parquet_type(kind: pa.DataType) -> pa.DataType:
    if kind == pa.timestamp("s"):
        return pa.timestamp("ms")
    return pa.string() if _unknown_to_parquet(kind) else kind


def _unknown_to_parquet(kind: pa.DataType) -> bool:
    """Return whether Parquet cannot store the type, or, inside of others, some of its values."""
    if not pa.types.is_nested(kind):
        return pa.types.is_null(kind) or pa.types.is_interval(kind) or kind == pa.timestamp("s")
    return any(_unknown_to_parquet(kind.field(index).type) for index in range(kind.num_fields))


def _parquet_column(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    if kind == pa.string():
        return pa.array(texts(column), kind)
    seconds = column.view(pa.int64()).to_pylist()
    milliseconds = [n if n is None or n in _INFINITE_TIMES else n * 1000 for n in seconds]
    return pa.array(milliseconds, pa.int64()).view(kind)


def _metadata(result: Result) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else orjson.dumps(value).decode()
        for name, value in result.metadata.items()
    }


def _drain(sink: io.BytesIO) -> bytes:
    data = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return data


_ENCODERS = {
    "json": _json,
    "ndjson": _ndjson,
    "csv": _csv,
    "spreadsheet": _spreadsheet,
    "arrow": _arrow,
    "parquet": _parquet,
    "objects": _objects,
}


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the column names with a number appended to repeated ones: `a, a` becomes `a, a_1`."""
    result: dict[str, None] = {}
    numbers: dict[str, Iterator[int]] = {}
    for name in names:
        unique = name
        while unique in result:
            unique = f"{name}_{next(numbers.setdefault(name, count(1)))}"
        result[unique] = None
    return list(result)


def texts(column: pa.Array) -> list[str | None]:
    """Return the column's values as CSV contains them, None for NULL."""
    return [
        value if value is None or isinstance(value, str) else _dumps(value, column.nbytes).decode()
        for value in values(column)
    ]


def values(column: pa.Array) -> list[Any]:
    """Return the column's values as JSON contains them; the module's docstring says how each type is represented."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return column.to_pylist()
    if pa.types.is_integer(kind):
        return _integers(column)
    if pa.types.is_floating(kind):
        return _floats(column)
    if pa.types.is_nested(kind):
        return _nested(column)
    return _scalars(column)


def _integers(column: pa.Array) -> list[Any]:
    numbers = column.to_pylist()
    if column.type.bit_width < 64:
        return numbers
    return [None if number is None else _integer(number) for number in numbers]


def _integer(number: int) -> int | str:
    return number if -SAFE_INTEGER <= number <= SAFE_INTEGER else str(number)


def _all_finite(column: pa.Array) -> bool:
    return pc.all(pc.is_finite(column)).as_py() is not False


def _floats(column: pa.Array) -> list[Any]:
    if _all_finite(column):
        return column.to_pylist()
    return [number if number is None or isfinite(number) else _float_name(number) for number in column.to_pylist()]


def _float_name(number: float) -> str:
    return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"


def _nested(column: pa.Array) -> list[Any]:
    kind = column.type
    present = column.is_valid().to_pylist()
    if pa.types.is_struct(kind):
        names = [kind.field(index).name for index in range(kind.num_fields)]
        rows = zip(*(values(child) for child in column.flatten()), strict=True)
        pairs = zip(rows, present, strict=True)
        return [dict(zip(names, row, strict=True)) if is_valid else None for row, is_valid in pairs]
    if pa.types.is_map(kind):
        entries = pa.StructArray.from_arrays([column.keys, column.items], names=["key", "value"])
        first, lengths = column.offsets[0].as_py(), pc.subtract(column.offsets[1:], column.offsets[:-1]).to_pylist()
        items = iter(values(entries.slice(first, column.offsets[-1].as_py() - first)))
    else:
        lengths = pc.list_value_length(column).to_pylist()
        items = iter(values(column.flatten()))
    return [
        list(islice(items, length)) if is_valid else None for length, is_valid in zip(lengths, present, strict=True)
    ]


def _scalars(column: pa.Array) -> list[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.dictionary_decode().to_pylist()
    if pa.types.is_binary(kind):
        return [None if value is None else base64.b64encode(value).decode() for value in column.to_pylist()]
    if pa.types.is_date32(kind):
        return _iso_times(column, pa.int32(), _INFINITE_DATES)
    if pa.types.is_timestamp(kind):
        return _iso_times(column, pa.int64(), _INFINITE_TIMES)
    if pa.types.is_interval(kind):
        return [None if value is None else _duration(*value) for value in column.to_pylist()]
    if pa.types.is_decimal(kind) and kind.scale == 0:
        return [None if value is None else _integer(int(value)) for value in column.to_pylist()]
    texts = column.cast(pa.string()).to_pylist()
    if pa.types.is_decimal(kind):
        return [text if text is None or "E" not in text else f"{Decimal(text):f}" for text in texts]
    if pa.types.is_time(kind):
        end_of_day = "24:00:00." + "0" * (9 if kind == pa.time64("ns") else 6)
        return [end_of_day if text and text.startswith("<") else text for text in texts]
    return texts


def _iso_times(column: pa.Array, bits: pa.DataType, infinite: dict[int, str]) -> list[str | None]:
    unit: Any = "D" if pa.types.is_date32(column.type) else column.type.unit
    zone = "Z" if getattr(column.type, "tz", None) else ""
    plain = column.cast(pa.timestamp(unit)) if zone else column
    texts = [None if text is None else text.replace(" ", "T") + zone for text in plain.cast(pa.string()).to_pylist()]
    numbers = column.view(bits).to_pylist()
    return [
        text if number is None or text is None or not (number in infinite or text.startswith("<"))
        else infinite.get(number) or str(np.datetime64(number, unit))
        for number, text in zip(numbers, texts, strict=True)
    ]  # fmt: skip


def _duration(months: int, days: int, nanoseconds: int) -> str:
    """Return the interval as an ISO 8601 duration: `P1M2DT3S`."""
    sign = "-" if nanoseconds < 0 else ""
    seconds, fraction = divmod(abs(nanoseconds), 10**9)
    exact = f"{seconds}.{fraction:09}".rstrip("0").rstrip(".")
    parts = (f"{months}M" if months else "", f"{days}D" if days else "", f"T{sign}{exact}S" if nanoseconds else "")
    return "P" + ("".join(parts) or "T0S")
