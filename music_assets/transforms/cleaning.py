"""Cleaning: from the text of delivered rows to typed rows, each with the reason why it cannot be taken, if there is one.

The rules stand in `tables.py`; this module applies them, column by column, the first defect of a row counting.
"""

from datetime import datetime

import ibis
import ibis.expr.types as ir

from music_assets.tables import Column, Table

INTEGER = r"^[+-]?[0-9]+$"
NOT_AN_INTEGER = "not an integer"
LIMITS = {"int32": 2**31, "int64": 2**63}


def clean(raw: ir.Table, table: Table, source_file: str, ingested_at: datetime) -> ir.Table:
    """Return the rows typed, followed by `column_name` and `reason` of the first defect (both NULL: the row is good).

    `raw` has the table's delivered columns as text, empty or NULL where nothing was delivered, and perhaps others, which
    are kept behind them.
    """
    texts = {column.name: _text(raw[column.name], column) for column in table.delivered}
    values = {column.name: _value(texts[column.name], column) for column in table.delivered}
    defects = [
        (condition, column.name, reason)
        for column in table.delivered
        for condition, reason in _defects(texts[column.name], values[column.name], column)
    ]
    added = {"source_file": ibis.literal(source_file), "ingested_at": ibis.literal(ingested_at, "timestamp(6)")}
    extra = [name for name in raw.columns if name not in values]
    return raw.select(
        **values,
        **added,
        **{name: raw[name] for name in extra},
        column_name=ibis.cases(*((condition, name) for condition, name, _ in defects)),
        reason=ibis.cases(*((condition, reason) for condition, _, reason in defects)),
    )


def _text(delivered: ir.StringValue, column: Column) -> ir.StringValue:
    """Return the delivered text with what means unknown as NULL."""
    if column.type == "string" and not column.unknown_words:
        return delivered.nullif("") if column.nullable else delivered
    trimmed = delivered.strip().nullif("")
    if not column.unknown_words:
        return trimmed
    return ibis.ifelse(trimmed.lower().isin(column.unknown_words), ibis.null("string"), trimmed)


def _value(text: ir.StringValue, column: Column) -> ir.Value:
    return text if column.type == "string" else text.try_cast(column.type)


def _defects(text: ir.StringValue, value: ir.Value, column: Column) -> list[tuple[ir.BooleanValue, str]]:
    missing = (text.isnull(), column.missing_reason)
    if column.type == "string":
        blank = (text.strip() == "", column.missing_reason)
        return [] if column.nullable else [missing, blank]
    defects = [] if column.nullable else [missing]
    defects.append((~text.re_search(INTEGER), NOT_AN_INTEGER))
    defects.append((text.notnull() & value.isnull(), column.range_reason if column.maximum else "out of range"))
    if column.minimum is not None:
        defects.append((value < column.minimum, column.range_reason))
    if column.maximum is not None:
        defects.append((value > column.maximum, column.range_reason))
    return defects
