"""Current rows: of all deliveries of a key, the one that counts. Later drops win; within one, the tie-break decides.

A key is a user_id, or a user_id and a small number (the rank, 1 to 50). The keys of a user in one drop become the bits
of one integer, so that drops are compared by integers per user instead of by sorting all rows.
"""

from collections.abc import Mapping
from typing import NamedTuple, Self

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from music_assets.tables import USER_DATA, USER_TOP_ARTISTS, Table

LARGEST_BIT = 63
DROP = ["user_id", "ingested_at"]
"""Columns that identify the rows of a user in one drop: each dropped file has its own `ingested_at`."""


@ibis.udf.agg.builtin
def bit_or(bits: int) -> int:
    """Return the bitwise or of the integers. Both engines have it under this name, but Ibis only knows DuckDB's."""


@ibis.udf.scalar.builtin
def bit_count(bits: int) -> int:
    """Return the number of bits set. Both engines have it under this name."""


def current_rows(history: ir.Table, table: Table, repeated: pa.Table | None = None) -> ir.Table:
    """Return one row for each key of the table: that of the latest `ingested_at`, ties by the table's tie-break.

    `repeated` has the `user_id` of all users that have a key more than once, and perhaps of others; by default
    `repeated_users` computes it. A column of the tie-break that `history` lacks is ignored.
    """
    if repeated is None:
        repeated = repeated_users(history, table)
    if not repeated.num_rows:
        return history  # joins with no rows would take twice as long as most of what reads the history
    users = ibis.memtable(repeated)
    once = history.anti_join(users, "user_id")
    again = history.semi_join(users, "user_id")
    drops = drops_of_users(again, table)
    return once.union(newest_rows(again, table, replaced_keys(drops), tied_users(drops)))


class CurrentRows(NamedTuple):
    """The current rows of users, and of their lists of artists."""

    users: ir.Table
    top_artists: ir.Table

    @classmethod
    def of(cls, users: ir.Table, top_artists: ir.Table, repeated: Mapping[Table, pa.Table] | None = None) -> Self:
        """Return the current rows of these histories; `repeated` is by table what `current_rows` takes."""
        known = repeated or {}
        return cls(
            current_rows(users, USER_DATA, known.get(USER_DATA)),
            current_rows(top_artists, USER_TOP_ARTISTS, known.get(USER_TOP_ARTISTS)),
        )


def repeated_users(history: ir.Table, table: Table) -> pa.Table:
    """Return the `user_id` of each user that has a key of the table more than once. Mostly there are none.

    Raises ValueError if the key does not fit into bits.
    """
    return tied_users(_keys(history, table, ["user_id"])).to_pyarrow()


def drops_of_users(history: ir.Table, table: Table) -> ir.Table:
    """Return `user_id`, `ingested_at`, `rows` and `keys`: for each drop of a user, its row count and keys as bits."""
    return _keys(history, table, DROP)


def replaced_keys(drops: ir.Table) -> ir.Table:
    """Return `user_id`, `ingested_at` and `replaced`: for each drop of a user, the keys that later drops contain."""
    later = ibis.window(group_by="user_id", order_by=ibis.desc("ingested_at"), preceding=(None, 1))
    replaced = drops.select(*DROP, replaced=bit_or(drops["keys"]).over(later))
    return replaced.filter(replaced["replaced"].notnull())


def tied_users(drops: ir.Table) -> ir.Table:
    """Return the `user_id` of each user that has a key more than once in one drop."""
    return drops.filter(drops["rows"] > bit_count(drops["keys"])).select("user_id").distinct()


def newest_rows(history: ir.Table, table: Table, replaced: ir.Table | None, tied: ir.Table | None) -> ir.Table:
    """Return the current rows, given the replaced keys and the tied users; None: there are none."""
    rows = history
    if replaced is not None:
        is_replaced = (replaced["replaced"] & _bit(history, table)) != 0
        rows = history.anti_join(replaced, [*(history[name] == replaced[name] for name in DROP), is_replaced])
    if tied is None:
        return rows
    candidates = rows.semi_join(tied, "user_id")
    order = [
        candidates[name].desc(nulls_first=False) if descending else candidates[name].asc(nulls_first=False)
        for name, descending in table.tie_break
        if name in history.columns
    ]
    position = ibis.row_number().over(group_by=[candidates[name] for name in table.key], order_by=order)
    first = candidates.mutate(position=position).filter(lambda each: each["position"] == 0).drop("position")
    return rows.anti_join(tied, "user_id").union(first)


def _keys(history: ir.Table, table: Table, by: list[str]) -> ir.Table:
    return history.group_by(by).agg(rows=history.count(), keys=bit_or(_bit(history, table)))


def _bit(rows: ir.Table, table: Table) -> ir.Value:
    """Return the bit of each row's key among the keys of the user. Raises ValueError if it does not fit."""
    rest = [table.column(name) for name in table.key if name != "user_id"]
    if not rest:
        return ibis.literal(1, "int64")
    if len(rest) > 1 or rest[0].maximum is None or rest[0].maximum >= LARGEST_BIT:
        raise ValueError(f"{table.name}: the key must be user_id and one column of at most {LARGEST_BIT - 1}")
    # 1 << key, which Spark would compute with 32 bits: Ibis writes a small literal without its type.
    return ibis.literal(1 << LARGEST_BIT - 1, "int64") >> (LARGEST_BIT - 1 - rows[rest[0].name].cast("int64"))


def replaced_rows(history: ir.Table, table: Table) -> ir.Table:
    """Return the rows whose key has a row with a later `ingested_at`."""
    again = history.semi_join(ibis.memtable(repeated_users(history, table)), "user_id")
    latest = again["ingested_at"].max().over(group_by=[again[name] for name in table.key])
    return again.mutate(latest=latest).filter(lambda rows: rows["ingested_at"] < rows["latest"]).drop("latest")
