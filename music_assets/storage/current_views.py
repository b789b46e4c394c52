"""The views `current_user_data` and `current_user_top_artists` of the published snapshot.

Their SQL is compiled from `transforms/current_rows.py`, which alone states the rule.
"""

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.duckdb import Backend

from music_assets.tables import Table
from music_assets.transforms.current_rows import drops_of_users, newest_rows, repeated_users, replaced_keys, tied_users

HELPERS = "internal"
"""Schema of the tables that only views read. Queries of the service cannot name it."""


def create_current_view(
    connection: duckdb.DuckDBPyConnection, view: Table, raw: Table, repeated: pa.Table | None = None
) -> None:
    """Create the view of the current rows of a raw table that the database holds under its full name.

    What has to be known about repeated keys is stored with it. Without any, the view only selects columns. `repeated`
    is the result of `repeated_users`, by default computed here.
    """
    backend = ibis.duckdb.from_connection(connection)
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {HELPERS}")
    history = backend.table(raw.full_name)
    users = repeated_users(history, raw) if repeated is None else repeated
    again = history.semi_join(ibis.memtable(users), "user_id")
    drops = backend.create_table(f"drops_of_{raw.name}", drops_of_users(again, raw), temp=True)
    replaced = _store(backend, f"replaced_{raw.name}", replaced_keys(drops))
    tied = _store(backend, f"tied_{raw.name}", tied_users(drops))
    # Unlike `backend.table`, this names no catalog: the service attaches the file under another.
    rows = newest_rows(ibis.table(raw.schema, name=raw.full_name), raw, replaced, tied)
    query = ibis.to_sql(rows.select(list(view.schema)), dialect="duckdb")
    connection.execute(f"CREATE VIEW {view.full_name} AS {query}")


def _store(backend: Backend, name: str, rows: ir.Table) -> ir.Table | None:
    """Store the rows for views to read; return None if there are none."""
    stored = backend.create_table(name, rows, database=HELPERS)
    return ibis.table(stored.schema(), name=name, database=HELPERS) if stored.count().to_pyarrow().as_py() else None
