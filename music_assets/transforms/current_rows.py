"""Current rows: of all deliveries of a key, the one that counts. Later drops win; within one, the tie-break decides."""

import ibis
import ibis.expr.types as ir

from music_assets.tables import Table

LARGEST_BIT = 63


@ibis.udf.agg.builtin
def bit_or(bits: int) -> int:
    """Return the bitwise or of the integers. Both engines have it under this name, but Ibis only knows DuckDB's."""


@ibis.udf.scalar.builtin
def bit_count(bits: int) -> int:
    """Return the number of bits set. Both engines have it under this name."""


def current_rows(history: ir.Table, table: Table, repeated: ir.Table | None = None) -> ir.Table:
    """Return one row for each key of the table: that of the latest `ingested_at`, ties by the table's tie-break.

    `repeated` has the `user_id` of all users that have a key more than once, and perhaps of others; by default
    `repeated_users` computes it. Only these users are sorted. A column of the tie-break that `history` lacks is
    ignored.
    """
    if repeated is None:
        repeated = repeated_users(history, table)
    once = history.anti_join(repeated, "user_id")
    again = history.semi_join(repeated, "user_id")
    order = [again["ingested_at"].desc()]
    for name, descending in table.tie_break:
        if name in history.columns:
            order.append(again[name].desc(nulls_first=False) if descending else again[name].asc(nulls_first=False))
    place = ibis.row_number().over(group_by=[again[name] for name in table.key], order_by=order)
    latest = again.mutate(place=place).filter(lambda rows: rows["place"] == 0).drop("place")
    return once.union(latest)


def repeated_users(history: ir.Table, table: Table) -> ir.Table:
    """Return the `user_id` of each user that has a key of the table more than once, as a table in memory.

    The result is computed at once: knowing that it is small, mostly empty, engines plan what follows accordingly.

    A second key column is a small number (the rank, 1 to 50). Its values become the bits of one integer, so that this
    is an aggregate of integers per user instead of a hash of every key. Raises ValueError for any other key.
    """
    rest = [name for name in table.key if name != "user_id"]
    users = history.group_by("user_id")
    if rest:
        column = table.column(rest[0])
        if len(rest) > 1 or column.maximum is None or column.maximum >= LARGEST_BIT:
            raise ValueError(f"{table.name}: the key must be user_id and one column of at most {LARGEST_BIT - 1}")
        bit = ibis.literal(1, "int64") << history[rest[0]].cast("int64")
        counted = users.agg(rows=history.count(), keys=bit_count(bit_or(bit)))
    else:
        counted = users.agg(rows=history.count(), keys=ibis.literal(1))
    return ibis.memtable(counted.filter(counted["rows"] > counted["keys"]).select("user_id").to_pyarrow())
