"""Cleaning: from the text of delivered rows to typed rows, each with the reason why it cannot be taken, if any.

The rules stand in `tables.py`; this module applies them, column by column, the first defect of a row counting.
"""

from datetime import datetime

import ibis
import ibis.expr.types as ir

from music_assets.tables import Column, Table

INTEGER = r"^[ \t\r\n]*[+-]?[0-9]+[ \t\r\n]*\z"
"""`\\z` and not `$`, before which Java lets a line separator of Unicode pass."""
VISIBLE = r"[^ \t\r\n]"
FIRST_VISIBLE = "!"
NOT_AN_INTEGER = "not an integer"
BLANKS = " \t\n\r\v\f"
"""What `strip` takes off, on each engine."""
TEXT = "{}_text"
"""The name of a delivered column while it is text."""


def clean(raw: ir.Table, table: Table, source_file: str | None = None, ingested_at: datetime | None = None) -> ir.Table:
    """Return the rows typed, followed by `column_name` and `reason` of the first defect (both NULL: the row is good).

    `raw` has the table's delivered columns as text, empty or NULL where nothing was delivered; also `source_file` and
    `ingested_at`, if the rows of several files stand in it. Further columns are kept behind them.
    """
    added = {
        "source_file": ibis.literal(source_file) if source_file is not None else raw["source_file"],
        "ingested_at": ibis.literal(ingested_at, "timestamp(6)") if ingested_at is not None else raw["ingested_at"],
    }
    extra = [name for name in raw.columns if name not in table.schema]
    delivered = {column: TEXT.format(column.name) for column in table.delivered}
    # Step by step, so that an engine need not clean a text again wherever its value is used.
    texts = raw.select(*extra, **added, **{text: _text(raw[column.name], column) for column, text in delivered.items()})
    typed = texts.mutate(**{column.name: _value(texts[text], column) for column, text in delivered.items()})
    defects = [
        (condition, column.name, reason)
        for column, text in delivered.items()
        for condition, reason in _defects(typed[text], typed[column.name], column)
    ]
    return typed.select(
        *(column.name for column in delivered),
        *added,
        *extra,
        column_name=ibis.cases(*((condition, name) for condition, name, _ in defects)),
        reason=ibis.cases(*((condition, reason) for condition, _, reason in defects)),
    )


def is_flawed(rows: ir.Table, table: Table) -> ir.BooleanValue:
    """Tell whether a row, typed by someone else, holds a value that `clean` would have rejected."""
    flawed = ibis.literal(False)
    for column in table.delivered:
        value = rows[column.name]
        if not column.nullable:
            flawed |= ~_visible(value) if column.type == "string" else value.isnull()
        if column.type != "string":
            flawed |= _outside(value, column).fill_null(False)
    return flawed


def _text(delivered: ir.StringValue, column: Column) -> ir.StringValue:
    """Return the delivered text with what means unknown as NULL."""
    if not column.unknown_words:
        return delivered.nullif("")
    trimmed = delivered.strip().nullif("")
    return ibis.ifelse(trimmed.lower().isin(column.unknown_words), ibis.null("string"), trimmed)


def _value(text: ir.StringValue, column: Column) -> ir.Value:
    return text if column.type == "string" else text.try_cast(column.type)


def _defects(text: ir.StringValue, value: ir.Value, column: Column) -> list[tuple[ir.BooleanValue, ir.StringValue]]:
    """Return when a column is bad, and what is wrong with it then.

    Every row pays for the condition. So a pattern is matched only where a comparison cannot tell, and nothing is
    trimmed: on all texts of a file either costs about as much as reading it.
    """
    if column.type == "string":
        return [] if column.nullable else [(~_visible(text), column.missing_reason)]
    number = ibis.ifelse(value.cast("string") == text, True, text.re_search(INTEGER))
    wrong = ~number | value.isnull() | _outside(value, column)
    bad = text.notnull() & wrong if column.nullable else text.isnull() | wrong
    missing = ~_visible(text)
    too_large = column.range_reason if column.maximum is not None else "out of range"
    reason = ibis.cases(
        (missing, NOT_AN_INTEGER if column.nullable else column.missing_reason),
        (~number, NOT_AN_INTEGER),
        (value.isnull(), too_large),
        else_=column.range_reason,
    )
    return [(bad, reason)]


def _outside(value: ir.Value, column: Column) -> ir.BooleanValue:
    outside = ibis.literal(False)
    if column.minimum is not None:
        outside |= value < column.minimum
    if column.maximum is not None:
        outside |= value > column.maximum
    return outside


def _visible(text: ir.StringValue) -> ir.BooleanValue:
    """Tell whether there is more than blanks in the text; what begins with a visible character sorts after them."""
    return ibis.ifelse(text >= FIRST_VISIBLE, True, text.re_search(VISIBLE)).fill_null(False)
