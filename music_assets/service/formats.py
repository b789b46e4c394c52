"""The forms an answer comes in: which one a caller wants, and the bytes of each, batch by batch.

How values are written. Arrow and Parquet carry the columns' own types (Parquet knows no intervals: they are text). In
JSON and NDJSON a number is a number while every reader gets it whole; integers beyond ±(2^53-1) and decimals with a
scale are strings of digits, NaN and the infinities are the strings `NaN`, `Infinity`, `-Infinity`, times are ISO 8601
strings (`Z`: with time zone), intervals ISO 8601 durations, blobs Base64, maps lists of {"key", "value"}. CSV writes
the same text; there NULL is an empty field and an empty text is "", and nested values are JSON.
"""

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import Any

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
"""The format names of `?format=`, and the media type each is sent as."""

_INFINITE_DATES = (2**31 - 1, "infinity"), (-(2**31 - 1), "-infinity")
_INFINITE_TIMES = (2**63 - 1, "infinity"), (-(2**63 - 1), "-infinity")


@dataclass(frozen=True)
class Answer:
    """A whole answer in memory: its columns, its rows in batches, and what JSON tells beside them."""

    columns: list[dict[str, str]]
    schema: pa.Schema
    batches: list[pa.RecordBatch]
    told: dict[str, Any]


def chosen(wanted: str | None, accept: str) -> str | None:
    """Return the format to answer in: the one named, else the best that the Accept header takes; None if none fits."""
    if wanted is not None:
        return wanted if wanted in MEDIA_TYPES else None
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


def written(form: str, answer: Answer) -> Iterator[bytes]:
    """Yield the bytes of the answer in that format, a batch at a time."""
    return _WRITERS[form](answer)


def _json(answer: Answer) -> Iterator[bytes]:
    yield b'{"columns":' + orjson.dumps(answer.columns) + b',"rows":['
    separator = b""
    for batch in answer.batches:
        if batch.num_rows:
            rows = list(zip(*(values(column) for column in batch.columns), strict=True))
            yield separator + orjson.dumps(rows)[1:-1]
            separator = b","
    yield b"]," + orjson.dumps(answer.told)[1:]


def _records(answer: Answer) -> Iterator[list[dict[str, Any]]]:
    names = unique([column["name"] for column in answer.columns])
    for batch in answer.batches:
        rows = zip(*(values(column) for column in batch.columns), strict=True)
        yield [dict(zip(names, row, strict=True)) for row in rows]


def _ndjson(answer: Answer) -> Iterator[bytes]:
    for records in _records(answer):
        yield b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)


def _objects(answer: Answer) -> Iterator[bytes]:
    yield b"["
    separator = b""
    for records in _records(answer):
        if records:
            yield separator + orjson.dumps(records)[1:-1]
            separator = b","
    yield b"]"


def _csv(answer: Answer) -> Iterator[bytes]:
    names = unique([column["name"] for column in answer.columns])
    yield _csv_table([pa.array([name]) for name in names], names)
    for batch in answer.batches:
        yield _csv_table([_csv_column(column) for column in batch.columns], names)


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
    return pa.array([_csv_text(value) for value in values(column)], pa.string())


def _csv_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def _arrow(answer: Answer) -> Iterator[bytes]:
    sink = _Chunks()
    with pa.ipc.new_stream(sink, answer.schema.with_metadata(_metadata(answer))) as writer:
        for batch in answer.batches:
            writer.write_batch(batch.replace_schema_metadata(_metadata(answer)))
            yield sink.taken()
    yield sink.taken()


def _parquet(answer: Answer) -> Iterator[bytes]:
    sink = _Chunks()
    names = unique(answer.schema.names)
    kinds = [pa.string() if _unknown_to_parquet(field.type) else field.type for field in answer.schema]
    schema = pa.schema(list(zip(names, kinds, strict=True)), metadata=_metadata(answer))
    with pyarrow.parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        for batch in answer.batches:
            columns = [
                pa.array(values(column), kind) if _unknown_to_parquet(column.type) else column
                for column, kind in zip(batch.columns, kinds, strict=True)
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            yield sink.taken()
    yield sink.taken()


def _unknown_to_parquet(kind: pa.DataType) -> bool:
    return pa.types.is_null(kind) or pa.types.is_interval(kind)


def _metadata(answer: Answer) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in answer.told.items()
    }


class _Chunks(io.RawIOBase):
    """A file that writers write to, and that hands on what came in since the last time."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def taken(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


_WRITERS = {
    "json": _json,
    "ndjson": _ndjson,
    "csv": _csv,
    "arrow": _arrow,
    "parquet": _parquet,
    "objects": _objects,
}


def unique(names: Sequence[str]) -> list[str]:
    """Return the column names, a number added where one stands twice: forms that go by name need them apart."""
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 1
        while candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        taken.add(candidate)
        result.append(candidate)
    return result


def values(column: pa.Array) -> list[Any]:
    """Return the column's values as JSON can hold them; what becomes of each type stands at the top of the module."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return column.to_pylist()
    if pa.types.is_integer(kind):
        return _integers(column)
    if pa.types.is_floating(kind):
        return _floats(column)
    if pa.types.is_nested(kind):
        return _nested(column)
    return _texts(column)


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
        return [dict(zip(names, row, strict=True)) if there else None for row, there in zip(rows, present, strict=True)]
    if pa.types.is_map(kind):
        entries = pa.StructArray.from_arrays([column.keys, column.items], names=["key", "value"])
        first, lengths = column.offsets[0].as_py(), pc.subtract(column.offsets[1:], column.offsets[:-1]).to_pylist()
        items = iter(values(entries)[first:])
    else:
        lengths = pc.list_value_length(column).to_pylist()
        items = iter(values(column.flatten()))
    return [list(islice(items, length)) if there else None for length, there in zip(lengths, present, strict=True)]


def _texts(column: pa.Array) -> list[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.dictionary_decode().to_pylist()
    if pa.types.is_binary(kind):
        return [None if value is None else base64.b64encode(value).decode() for value in column.to_pylist()]
    if pa.types.is_date32(kind):
        return _dated(column, pa.int32(), _INFINITE_DATES)
    if pa.types.is_timestamp(kind):
        return _dated(column, pa.int64(), _INFINITE_TIMES)
    if pa.types.is_interval(kind):
        return [None if value is None else _duration(*value) for value in column.to_pylist()]
    if pa.types.is_decimal(kind) and kind.scale == 0:
        return [None if value is None else _integer(int(value)) for value in column.to_pylist()]
    return column.cast(pa.string()).to_pylist()


def _dated(column: pa.Array, bits: pa.DataType, infinite: Any) -> list[str | None]:
    unit: Any = "D" if pa.types.is_date32(column.type) else column.type.unit
    zone = "Z" if getattr(column.type, "tz", None) else ""
    plain = column.cast(pa.timestamp(unit)) if zone else column
    texts = [None if text is None else text.replace(" ", "T") + zone for text in plain.cast(pa.string()).to_pylist()]
    names = dict(infinite)
    numbers = column.view(bits).to_pylist()
    return [
        text if number is None or text is None or not (number in names or text.startswith("<"))
        else names.get(number) or str(np.datetime64(number, unit))
        for number, text in zip(numbers, texts, strict=True)
    ]  # fmt: skip


def _duration(months: int, days: int, nanoseconds: int) -> str:
    """Return the interval as an ISO 8601 duration: `P1M2DT3S`."""
    sign = "-" if nanoseconds < 0 else ""
    seconds, fraction = divmod(abs(nanoseconds), 10**9)
    exact = f"{seconds}.{fraction:09}".rstrip("0").rstrip(".")
    parts = (f"{months}M" if months else "", f"{days}D" if days else "", f"T{sign}{exact}S" if nanoseconds else "")
    return "P" + ("".join(parts) or "T0S")
