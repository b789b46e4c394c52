"""Every engine reads declared columns, writes in the sort order of the table, and caches."""

from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_assets.engines.base import Engine
from music_assets.tables import ARTIST_RANK_IN_COUNTRY, COUNTRY_RANK_PER_ARTIST, TABLES, Table

MOBY = ("Chad", "Moby", 1.0, 1, 1)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_reading_no_files_returns_no_rows(engine: Engine, table: Table) -> None:
    rows = engine.read(table, [])
    assert rows.schema() == table.schema
    assert rows.count().to_pyarrow().as_py() == 0


def test_declared_columns_are_written_in_the_sort_order(engine: Engine, tmp_path: Path) -> None:
    names = ["Ａ", "Zaz", "abba", "𝔘", "Éa", "abba b", "Abba", ""]
    rows = [(rank, 1.0, name, country) for name in names for country in ("b", "a") for rank in (2, 1)]
    unsorted = ibis.memtable(rows, columns=["rank", "total_playcount", "artist_name", "country"])
    files = engine.write(unsorted.mutate(more=1, listeners=2), ARTIST_RANK_IN_COUNTRY, tmp_path)
    written = pa.concat_tables(pq.read_table(file) for file in files)
    assert written.column_names == ["country", "artist_name", "total_playcount", "rank", "listeners"]
    assert [str(kind) for kind in written.schema.types] == ["string", "string", "double", "int32", "int64"]
    order = [(row["country"], row["rank"]) for row in written.to_pylist()]
    assert order == sorted(order)
    assert len(order) == len(rows)


def test_names_are_sorted_by_their_utf8_bytes(engine: Engine, tmp_path: Path) -> None:
    names = ["Ａ", "Zaz", "abba", "𝔘", "Éa", "abba b", "Abba", "\ue000"]
    rows = ibis.memtable(
        [(name, "Chad", 1.0, 0.5, 1, 1) for name in names],
        columns=["artist_name", "country", "total_playcount", "normalized_popularity", "rank", "listeners"],
    )
    files = engine.write(rows, COUNTRY_RANK_PER_ARTIST, tmp_path)
    found = [row["artist_name"] for file in files for row in pq.read_table(file).to_pylist()]
    assert found == sorted(names, key=lambda name: name.encode())


def test_paths_with_special_characters(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "a [b]* 'c' 100%"
    folder.mkdir()
    rows = ibis.memtable([MOBY], schema=ARTIST_RANK_IN_COUNTRY.schema)
    (file,) = engine.write(rows, ARTIST_RANK_IN_COUNTRY, folder)
    assert engine.read(ARTIST_RANK_IN_COUNTRY, [str(file)]).to_pyarrow().num_rows == 1


def test_columns_that_an_older_release_did_not_write_are_null(engine: Engine, tmp_path: Path) -> None:
    older = pa.table({"artist_name": ["Moby"], "country": ["Chad"], "rank": pa.array([1], pa.int32())})
    pq.write_table(older, tmp_path / "older.parquet")
    rows = engine.read(ARTIST_RANK_IN_COUNTRY, [str(tmp_path / "older.parquet")])
    assert rows.to_pyarrow().to_pylist() == [dict(zip(rows.columns, ("Chad", "Moby", None, 1, None), strict=True))]


def test_cached_rows_outlive_their_file(engine: Engine, tmp_path: Path) -> None:
    rows = ibis.memtable([MOBY], schema=ARTIST_RANK_IN_COUNTRY.schema)
    (file,) = engine.write(rows, ARTIST_RANK_IN_COUNTRY, tmp_path)
    cached = engine.cache(engine.read(ARTIST_RANK_IN_COUNTRY, [str(file)]))
    expected = cached.to_pyarrow()
    file.unlink()
    assert cached.to_pyarrow() == expected
