"""The views `current_user_data` and `current_user_top_artists` of the published snapshot.

Their SQL is compiled from `transforms/current_rows.py`, which alone states the rule.
"""

import duckdb
import ibis

from music_assets.tables import Table
from music_assets.transforms.current_rows import current_rows, repeated_users

HELPERS = "internal"
"""Schema of the tables that only views read. Queries of the service cannot name it."""


def create_current_view(connection: duckdb.DuckDBPyConnection, view: Table, raw: Table) -> None:
    """Create the view of the current rows of a raw table that the database holds under its full name.

    Which users have a key twice is computed here and stored. Without any, the view selects columns of the raw table.
    """
    backend = ibis.duckdb.from_connection(connection)
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {HELPERS}")
    helper = f"repeated_{raw.name}"
    stored = backend.create_table(helper, repeated_users(backend.table(raw.full_name), raw), database=HELPERS)
    # Unlike `backend.table`, this names no catalog: the service attaches the file under another.
    rows = ibis.table(raw.schema, name=raw.full_name)
    if stored.count().to_pyarrow().as_py():
        rows = current_rows(rows, raw, ibis.table(stored.schema(), name=helper, database=HELPERS))
    query = ibis.to_sql(rows.select(list(view.schema)), dialect="duckdb")
    connection.execute(f"CREATE VIEW {view.full_name} AS {query}")
