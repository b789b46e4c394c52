"""Spark, the distributed engine: the executors of a cluster read and write parquet files and run Ibis expressions.

Driver and executors see the data root as a folder at the same path. Only files of jobs that succeeded are returned:
what a failed or repeated task wrote stays in a temporary folder of Spark and is removed with it.
"""

import atexit
import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
from dagster_pyspark import LazyPySparkResource
from ibis.backends.pyspark import Backend
from ibis.backends.pyspark.datatypes import PySparkSchema
from ibis.expr.operations import InMemoryTable
from ibis.util import gen_name
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType, TimestampNTZType, TimestampType

from music_assets.engines.base import as_declared
from music_assets.storage.parquet import COMPRESSION, COMPRESSION_LEVEL
from music_assets.tables import Table

DEFAULTS = {
    "spark.app.name": "music-assets",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.parquet.compression.codec": COMPRESSION,
    "spark.hadoop.parquet.compression.codec.zstd.level": str(COMPRESSION_LEVEL),
}
"""Spark's settings unless the user sets others."""
LOCAL_DEFAULTS = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
"""Further defaults without a cluster: nothing listens beyond this machine."""
FIXED = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # Half-written files stay out of the folder until the whole job succeeds.
    "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version": "1",
    # Vacuum would not remove checksum files and success markers.
    "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
}
"""Settings that the content of the tables depends on; users cannot override them."""
PARALLEL_COLLECTOR = "-XX:+UseParallelGC"
"""For throughput: with the JVM's default collector a refresh takes a seventh longer."""
SERIAL_COLLECTOR = "-XX:+UseSerialGC -Xms32m"
"""For a JVM with one core or little to do: as fast there, with 100 MB less memory."""
ANY_COLLECTOR = re.compile(r"-XX:\+Use\w*GC\b")
BYTES_PER_PARTITION = 16 << 20
"""Bytes of compressed input for each shuffle partition."""
MAXIMUM_PARTITIONS = 10_000


def spark_config(
    master: str, driver_memory: str, executor_memory: str, user_config: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the configuration of the Spark session; `user_config` holds any further `spark.*` settings."""
    user = user_config or {}
    local = LOCAL_DEFAULTS if master.startswith("local") else {}
    memory = {"spark.driver.memory": driver_memory, "spark.executor.memory": executor_memory}
    return {**DEFAULTS, **_collectors(master, user), **local, **memory, "spark.master": master, **user, **FIXED}


def _collectors(master: str, user: Mapping[str, str]) -> dict[str, str]:
    """Return the garbage collector options, except where the user names a collector: a JVM accepts only one."""
    collectors = {
        "driver": PARALLEL_COLLECTOR if master.startswith("local") else SERIAL_COLLECTOR,
        "executor": SERIAL_COLLECTOR if user.get("spark.executor.cores") == "1" else PARALLEL_COLLECTOR,
    }
    return {
        f"spark.{process}.defaultJavaOptions": collector
        for process, collector in collectors.items()
        if not ANY_COLLECTOR.search(user.get(f"spark.{process}.extraJavaOptions", ""))
    }


class TunedBackend(Backend):
    """Ibis's Spark backend, with two changes that give Spark better plans."""

    def compile(self, *arguments: Any, **options: Any) -> str:
        """Compile each step into a select of its own: where Ibis merges steps, Spark repeats shared expressions."""
        merged = ibis.options.sql.fuse_selects
        ibis.options.sql.fuse_selects = False
        try:
            return super().compile(*arguments, **options)
        finally:
            ibis.options.sql.fuse_selects = merged

    def data_frame(self, rows: ir.Table) -> DataFrame:
        """Return the rows as Spark's own data frame."""
        self._run_pre_execute_hooks(rows)
        return self._session.sql(self.compile(rows))

    def _register_in_memory_table(self, op: InMemoryTable) -> None:
        """Register a table as Arrow, so that Spark knows its size when it plans joins.

        Through pandas, as Ibis does it, an empty table has an unknown size, and Spark shuffles what it is joined with.
        """
        rows = self._session.createDataFrame(op.data.to_pyarrow(op.schema), _spark_schema(op.schema))
        rows.createOrReplaceTempView(op.name)


class SparkEngine:
    """The engine over a Spark session, which starts on first use and stops with this process.

    Without `shuffle_partitions`, their number depends on the size of the input.
    """

    name = "spark"

    def __init__(self, pyspark: LazyPySparkResource, shuffle_partitions: int | None = None) -> None:
        self.pyspark = pyspark
        self.shuffle_partitions = shuffle_partitions
        self._largest_input = 0

    @cached_property
    def session(self) -> SparkSession:
        """The Spark session."""
        session = self.pyspark.spark_session
        if self.shuffle_partitions:
            session.conf.set("spark.sql.shuffle.partitions", self.shuffle_partitions)
        atexit.register(session.stop)
        return session

    @cached_property
    def backend(self) -> TunedBackend:
        """The Ibis backend over the session."""
        TunedBackend.register_options()
        return TunedBackend().connect(self.session)

    def read(self, table: Table, files: Sequence[str]) -> ir.Table:
        """Return the rows of these parquet files of the table."""
        if not files:
            return ibis.memtable(table.schema.to_pyarrow().empty_table(), schema=table.schema)
        self._adapt_shuffles(files)
        reader = self.session.read.schema(_spark_schema(table.schema))
        return self._as_ibis(reader.parquet(*(_uri(_escape(file)) for file in files))).cast(table.schema)

    def cache(self, rows: ir.Table) -> ir.Table:
        """Cache the rows on the executors when they are first computed, in memory or on disk."""
        return self._as_ibis(self.backend.data_frame(rows).cache())

    def release(self, rows: ir.Table) -> None:
        """Keep the rows: Spark computes what depends on them when it is first read."""

    def clear_cache(self) -> None:
        """Free the memory and the disk space of the executors."""
        if "session" in vars(self):  # else a JVM would start
            self.session.catalog.clearCache()

    def write(self, rows: ir.Table, table: Table, folder: Path) -> list[Path]:
        """Write the rows as parquet files; together, in order of their names, they are in the table's sort order."""
        self.backend.to_parquet(as_declared(rows, table), _uri(folder), mode="append")
        return sorted(folder.glob("*.parquet"))

    def _as_ibis(self, rows: DataFrame) -> ir.Table:
        name = gen_name("rows")
        rows.createTempView(name)
        return self.backend.table(name)

    def _adapt_shuffles(self, files: Sequence[str]) -> None:
        """Set the number of shuffle partitions for the largest input so far. Spark merges partitions that are small."""
        size = sum(Path(file).stat().st_size for file in files)
        if self.shuffle_partitions is None and size > self._largest_input:
            self._largest_input = size
            wanted = max(self.session.sparkContext.defaultParallelism, math.ceil(size / BYTES_PER_PARTITION))
            self.session.conf.set("spark.sql.shuffle.partitions", min(wanted, MAXIMUM_PARTITIONS))


def _spark_schema(schema: ibis.Schema) -> StructType:
    """Return Spark's schema with timestamps that have no time zone; Ibis would give each timestamp one."""
    spark = PySparkSchema.from_ibis(schema)
    for field in spark.fields:
        if isinstance(field.dataType, TimestampType):
            field.dataType = TimestampNTZType()
    return spark


def _uri(path: str | Path) -> str:
    return f"file://{path}"


def _escape(path: str) -> str:
    """Escape the characters that Spark reads as a pattern in a path."""
    return re.sub(r"([\\\[\]{}*?])", r"\\\1", path)
