"""The views of current rows return the rows of `transforms/current_rows.py`."""

from datetime import datetime

import duckdb
import ibis
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_assets.storage.current_views import create_current_view
from music_assets.tables import CURRENT_VIEWS, USER_DATA, USER_TOP_ARTISTS, Table
from music_assets.transforms.current_rows import current_rows
from music_assets_tests.support.properties import examples

COUNTS = st.none() | st.integers(0, 2)
FILES = st.sampled_from(["a", "b"])
TIMES = st.sampled_from([datetime(2024, 1, 1), datetime(2024, 1, 2)])
ROWS = {
    USER_DATA: st.tuples(st.integers(1, 5), st.sampled_from([None, "Chad", "Mali"]), COUNTS, FILES, TIMES),
    USER_TOP_ARTISTS: st.tuples(
        st.integers(1, 4),
        st.integers(1, 3) | st.just(50),
        st.sampled_from(["Moby", "Zaz"]),
        COUNTS,
        st.sampled_from([None, "m"]),
        FILES,
        TIMES,
    ),
}


@pytest.mark.parametrize(("view", "raw"), CURRENT_VIEWS.items(), ids=lambda table: table.name)
@examples(30)
@given(data=st.data())
def test_view_equals_current_rows(view: Table, raw: Table, data: st.DataObject) -> None:
    rows = data.draw(st.lists(ROWS[raw], max_size=12))
    with duckdb.connect() as connection:
        schema = raw.schema.to_pyarrow()
        columns = [pa.array([row[place] for row in rows], field.type) for place, field in enumerate(schema)]
        delivered = pa.table(columns, schema=schema)
        connection.register("delivered", delivered)
        connection.execute(f"CREATE TABLE {raw.full_name} AS FROM delivered")
        create_current_view(connection, view, raw)
        history = ibis.duckdb.from_connection(connection).table(raw.full_name)
        expected = current_rows(history, raw).select(list(view.schema)).to_pyarrow()
        found = connection.execute(f"FROM {view.full_name}").fetchall()
        assert sorted(found, key=repr) == sorted(map(tuple, map(dict.values, expected.to_pylist())), key=repr)


def test_view_without_repeated_keys_is_a_plain_projection() -> None:
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE {USER_DATA.full_name} (user_id INT, country TEXT, total_scrobbles BIGINT)")
        connection.execute(f"ALTER TABLE {USER_DATA.full_name} ADD COLUMN source_file TEXT")
        connection.execute(f"ALTER TABLE {USER_DATA.full_name} ADD COLUMN ingested_at TIMESTAMP")
        connection.execute(f"INSERT INTO {USER_DATA.full_name} VALUES (1, 'Chad', 2, 'f', '2024-01-01')")
        create_current_view(connection, next(iter(CURRENT_VIEWS)), USER_DATA)
        (((_, plan),)) = connection.execute("EXPLAIN SELECT country FROM current_user_data").fetchall()
        assert "WINDOW" not in plan
        assert "JOIN" not in plan
