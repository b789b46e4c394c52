"""The Spark engine: its configuration, shuffle partitions, failed jobs, and taking turns with DuckDB."""

from pathlib import Path

import ibis
import pytest

from music_assets.engines.duckdb import DuckDBEngine
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    COUNTRY_RANK_PER_ARTIST,
    REJECTED_ROWS,
    USER_DATA,
    USER_TOP_ARTISTS,
)
from music_assets_tests.support.ingest_harness import IngestHarness

DROPS = [
    ("1,Germany,5\n2,France,1\n", "1,1,Can,60,\n1,2,Air,7,m\n2,1,Air,40,\n"),
    ("2,Germany,9\n3,Chad,\n", '2,1,Neu!,4,\n3,1,"Can",9223372036854775807,\n3,51,Air,1,\n'),
    ("1,,6\nx,Peru,1\n", "3,1,Can,,\n3,2,Air,1,\n"),
    ("1,Peru,6\n", "1,1,Can,61,\n"),
]
TABLES = (USER_DATA, USER_TOP_ARTISTS, REJECTED_ROWS, ARTIST_RANK_IN_COUNTRY, COUNTRY_RANK_PER_ARTIST)


def test_engines_can_take_turns_on_one_data_root(tmp_path: Path, spark_engine: "SparkEngine") -> None:  # noqa: F821
    """After each drop the tables are the same as with DuckDB alone; both read the files that the parser wrote."""
    duckdb = DuckDBEngine(tmp_path / "scratch", threads=1)
    mixed, alone = IngestHarness(tmp_path / "mixed", duckdb), IngestHarness(tmp_path / "alone", duckdb)
    for number, (users, artists) in enumerate(DROPS):
        mixed = IngestHarness(mixed.root, duckdb if number % 2 else spark_engine)
        for harness in (mixed, alone):
            harness.drop(USER_DATA, f"{number}.csv", f"user_id,country,total_scrobbles\n{users}")
            harness.drop(USER_TOP_ARTISTS, f"{number}.csv", f"user_id,rank,artist_name,playcount,mbid\n{artists}")
            harness.load(USER_DATA)
            harness.load(USER_TOP_ARTISTS)
            harness.rank()
        for table in TABLES:
            columns = [column.name for column in table.columns if column.name != "ingested_at"]
            found, expected = (sorted(each.rows(table, *columns), key=repr) for each in (mixed, alone))
            assert found == expected, (table.name, number)


def test_failed_job_leaves_no_file(tmp_path: Path, spark_engine: "SparkEngine") -> None:  # noqa: F821
    names = ["1"] * 2000 + ["not a number"]
    rows = ibis.memtable([("Chad", name, 1.0) for name in names], columns=["country", "artist_name", "total_playcount"])
    broken = rows.mutate(rank=rows["artist_name"].cast("int32"), listeners=1)
    with pytest.raises(Exception, match="CAST_INVALID_INPUT"):
        spark_engine.write(broken, ARTIST_RANK_IN_COUNTRY, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_vacuum_removes_what_a_killed_driver_left(tmp_path: Path, spark_engine: "SparkEngine") -> None:  # noqa: F821
    store = IngestHarness(tmp_path, spark_engine).store
    rows = ibis.memtable([("Chad", "Air", 1.0, 1, 1)], schema=ARTIST_RANK_IN_COUNTRY.schema)
    folder = store.new_folder(ARTIST_RANK_IN_COUNTRY)
    store.replace(ARTIST_RANK_IN_COUNTRY, spark_engine.write(rows, ARTIST_RANK_IN_COUNTRY, folder))
    attempt = store.new_folder(ARTIST_RANK_IN_COUNTRY) / "_temporary" / "0" / "_temporary" / "attempt_0"
    attempt.mkdir(parents=True)
    (attempt / "part-00000.zstd.parquet").write_bytes(b"PAR1")
    store.vacuum(ARTIST_RANK_IN_COUNTRY, 0)
    (left,) = store.folder(ARTIST_RANK_IN_COUNTRY).glob("part-*")
    assert [str(path) for path in left.iterdir()] == list(store.table_version(ARTIST_RANK_IN_COUNTRY).files)


@pytest.mark.parametrize(("megabytes", "partitions"), [(1, 2), (100, 7), (1_000_000, 10_000)])
def test_shuffle_partitions_depend_on_the_size_of_the_input(
    tmp_path: Path,
    spark_engine: "SparkEngine",  # noqa: F821
    megabytes: int,
    partitions: int,
) -> None:
    from music_assets.engines.spark import SparkEngine

    file = tmp_path / "sparse.parquet"
    with file.open("wb") as sink:
        sink.truncate(megabytes << 20)
    before = spark_engine.session.conf.get("spark.sql.shuffle.partitions")
    try:
        SparkEngine(spark_engine.pyspark).read(USER_DATA, [str(file)])
        assert spark_engine.session.conf.get("spark.sql.shuffle.partitions") == str(partitions)
    finally:
        spark_engine.session.conf.set("spark.sql.shuffle.partitions", before)


def test_user_settings_win_except_for_fixed_ones() -> None:
    from music_assets.engines.spark import spark_config

    own = {"spark.ui.enabled": "true", "spark.sql.session.timeZone": "Europe/Berlin", "spark.executor.cores": "3"}
    config = spark_config("spark://far.example:7077", "2g", "3g", own)
    found = {name: config[name] for name in (*own, "spark.master", "spark.driver.memory", "spark.executor.memory")}
    assert found == {
        "spark.ui.enabled": "true",
        "spark.sql.session.timeZone": "UTC",
        "spark.executor.cores": "3",
        "spark.master": "spark://far.example:7077",
        "spark.driver.memory": "2g",
        "spark.executor.memory": "3g",
    }
    assert "spark.driver.host" not in config


def test_collector_of_the_user_is_the_only_one() -> None:
    from music_assets.engines.spark import spark_config

    own = {"spark.executor.extraJavaOptions": "-Xss4m -XX:+UseG1GC", "spark.driver.extraJavaOptions": "-Xss4m"}
    config = spark_config("local[*]", "1g", "1g", own)
    assert config["spark.driver.defaultJavaOptions"] == "-XX:+UseParallelGC"
    assert "spark.executor.defaultJavaOptions" not in config


@pytest.mark.parametrize(
    ("master", "cores", "driver", "executor"),
    [
        ("local[2]", None, "Parallel", "Parallel"),
        ("spark://far.example:7077", None, "Serial", "Parallel"),
        ("yarn", "1", "Serial", "Serial"),
        ("yarn", "4", "Serial", "Parallel"),
    ],
)
def test_default_collectors(master: str, cores: str | None, driver: str, executor: str) -> None:
    from music_assets.engines.spark import spark_config

    config = spark_config(master, "1g", "1g", {"spark.executor.cores": cores} if cores else {})
    assert f"-XX:+Use{driver}GC" in config["spark.driver.defaultJavaOptions"]
    assert f"-XX:+Use{executor}GC" in config["spark.executor.defaultJavaOptions"]
