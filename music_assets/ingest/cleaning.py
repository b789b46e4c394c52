"""Cleaning: converts rows of text to typed rows, and finds the first defect of each row.

The rules for each column are declared in `tables.py`; this module applies them.
"""

import ibis
import ibis.expr.types as ir

from music_assets.ingest.characters import INVISIBLE
from music_assets.tables import REJECTED_ROWS, Column, Table

INTEGER = r"^[ \t\r\n]*[+-]?[0-9]+(\.0+)?[ \t\r\n]*\z"
INVISIBLE_ENDS = f"^[{INVISIBLE}]+|[{INVISIBLE}]+\\z"
VISIBLE = r"[^ \t\r\n]"
FIRST_VISIBLE = "!"
NOT_AN_INTEGER = "not an integer"


def clean(raw: ir.Table, table: Table) -> ir.Table:
    """Return typed rows, then `column_name` and `reason` of each row's first defect, or NULL if it has none.

    `raw` has the delivered columns of the table as text, for which NULL and empty text mean the same. Its further
    columns are returned unchanged.
    """
    further = [name for name in raw.columns if not any(name == column.name for column in table.delivered)]
    delivered = {column: f"{column.name}_text" for column in table.delivered}
    # In steps, so that the engine cleans a text only once, however often its value is used.
    texts = raw.select(*further, **{text: _text(raw[column.name], column) for column, text in delivered.items()})
    typed = texts.mutate(**{column.name: _value(texts[text], column) for column, text in delivered.items()})
    defects = [
        (condition, column.name, reason)
        for column, text in delivered.items()
        for condition, reason in _defects(typed[text], typed[column.name], column)
    ]
    return typed.select(
        *(column.name for column in delivered),
        *further,
        column_name=ibis.cases(*((condition, name) for condition, name, _ in defects)),
        reason=ibis.cases(*((condition, reason) for condition, _, reason in defects)),
    )


def split_rejects(cleaned: ir.Table, table: Table) -> tuple[ir.Table, ir.Table]:
    """Split cleaned rows of the exact reader into good rows and rejected ones, with the columns of their tables."""
    verdict = cleaned.mutate(
        column_name=ibis.ifelse(cleaned["broken"].isnull(), cleaned["column_name"], ibis.null("string")),
        reason=cleaned["broken"].coalesce(cleaned["reason"]),
    )
    good = verdict.filter(verdict["reason"].isnull()).select(list(table.schema))
    rejected = verdict.filter(verdict["reason"].notnull()).mutate(table_name=ibis.literal(table.name))
    return good, rejected.select(list(REJECTED_ROWS.schema))


def has_defect(rows: ir.Table, table: Table) -> ir.BooleanValue:
    """Return for each row of the fast reader whether `clean` would have found a defect in it."""
    defect = ibis.literal(False)
    for column in table.delivered:
        value = rows[column.name]
        if not column.nullable:
            defect |= ~_is_visible(value) if column.type == "string" else value.isnull()
        if column.type != "string":
            defect |= _is_out_of_range(value, column).fill_null(False)
    return defect


def _text(delivered: ir.StringValue, column: Column) -> ir.StringValue:
    """Return the delivered text, with NULL for unknown values."""
    if not column.unknown_words:
        return delivered.nullif("")
    if column.type == "string":
        text = delivered.re_replace(INVISIBLE_ENDS, "").nullif("")
        return ibis.ifelse(text.lower().isin(column.unknown_words), ibis.null("string"), text)
    # Only what is no number is compared with the words: trimming every text would take longer than casting it.
    is_unknown = delivered.strip().lower().isin(column.unknown_words)
    is_unknown = ibis.ifelse(delivered.try_cast(column.type).notnull(), False, is_unknown)
    return ibis.ifelse(is_unknown, ibis.null("string"), delivered.nullif(""))


def _value(text: ir.StringValue, column: Column) -> ir.Value:
    return text if column.type == "string" else text.try_cast(column.type)


def _defects(text: ir.StringValue, value: ir.Value, column: Column) -> list[tuple[ir.BooleanValue, ir.StringValue]]:
    """Return the conditions under which a value of the column is bad, each with its reason.

    A regular expression over every text of a file costs about as much as reading the file. So patterns are matched only
    where a comparison does not suffice, and nothing is trimmed.
    """
    if column.type == "string":
        return [] if column.nullable else [(~_is_visible(text), column.missing_reason)]
    is_number = ibis.ifelse(value.cast("string") == text, True, text.re_search(INTEGER))
    wrong = ~is_number | value.isnull() | _is_out_of_range(value, column)
    bad = text.notnull() & wrong if column.nullable else text.isnull() | wrong
    too_large = column.range_reason if column.maximum is not None else "out of range"
    reason = ibis.cases(
        (~_is_visible(text), NOT_AN_INTEGER if column.nullable else column.missing_reason),
        (~is_number, NOT_AN_INTEGER),
        (value.isnull(), too_large),
        else_=column.range_reason,
    )
    return [(bad, reason)]


def _is_out_of_range(value: ir.Value, column: Column) -> ir.BooleanValue:
    outside = ibis.literal(False)
    if column.minimum is not None:
        outside |= value < column.minimum
    if column.maximum is not None:
        outside |= value > column.maximum
    return outside


def _is_visible(text: ir.StringValue) -> ir.BooleanValue:
    """Return whether the text has more than blanks. Every text that begins with a visible character is >= "!"."""
    return ibis.ifelse(text >= FIRST_VISIBLE, True, text.re_search(VISIBLE)).fill_null(False)
