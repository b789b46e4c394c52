"""Spark, the distributed engine: the executors of a cluster parse CSV, read and write parquet, run Ibis expressions.

Driver and executors see the data root as a folder at the same path. Only files of a job that succeeded are returned:
what a task that failed, or ran twice, has written stays in Spark's own temporary folder, and goes with it.
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
import pyarrow as pa
import pyspark.sql.functions as sf
from dagster_pyspark import LazyPySparkResource
from ibis.backends.pyspark import Backend
from ibis.backends.pyspark.datatypes import PySparkSchema
from ibis.expr.operations import InMemoryTable
from ibis.util import gen_name
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql.types import StructType, TimestampNTZType, TimestampType

from music_assets.data_root import Scratch
from music_assets.engines.base import CsvFile, Engine, ParsedFile
from music_assets.ingest.cleaning import clean
from music_assets.ingest.exact_reader import LONGEST_RECORD, header_record, may_hold_long_line, read_exactly, size_of
from music_assets.ingest.parser import account, good_and_rejected, without_empty
from music_assets.tables import REJECTED_ROWS, Table

DEFAULTS = {
    "spark.app.name": "music-assets",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.hadoop.parquet.compression.codec.zstd.level": "1",
}
"""What Spark is told unless a setting says otherwise."""
PARALLEL = "-XX:+UseParallelGC"
"""For throughput. The JVM's own choice, made for short pauses, takes a seventh more of the time of a refresh."""
SERIAL = "-XX:+UseSerialGC -Xms32m"
"""For a JVM of one core, or with little to do: the same on one thread, in 100 MB less, from a small heap."""
ANY_COLLECTOR = re.compile(r"-XX:\+Use\w*GC\b")
LOCAL_DEFAULTS = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
"""The same without a cluster: nothing listens beyond this machine."""
FIXED = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # Half-written files stay out of the folder until the whole job succeeds.
    "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version": "1",
    # No checksum file and no mark beside the parquet files: nobody would remove them with these.
    "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
}
"""What makes the tables the same whichever engine writes them; no setting overrules it."""

BYTES_PER_PARTITION = 16 << 20
"""Of the largest input, as it lies on the disk; packed a few times tighter than what is shuffled."""
MOST_PARTITIONS = 10_000

FIELD = r'(?:"(?:[^"]++|"")*+"|[^",]*+)'
"""A field by RFC 4180 inside one line. Possessive, so that Java matches it without recursion, however long it is."""
ROW = rf"^{FIELD}(?:,{FIELD})*+\z"
IN_HEADER = "in_header"
WHOLE = "whole"


def spark_config(
    master: str, driver_memory: str, executor_memory: str, further: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the configuration of the Spark session; `further` are any `spark.*` settings."""
    own = further or {}
    local = LOCAL_DEFAULTS if master.startswith("local") else {}
    memory = {"spark.driver.memory": driver_memory, "spark.executor.memory": executor_memory}
    return {**DEFAULTS, **_collectors(master, own), **local, **memory, "spark.master": master, **own, **FIXED}


def _collectors(master: str, own: Mapping[str, str]) -> dict[str, str]:
    """Return the options that name a collector where one's own options name none: a JVM told of two does not start."""
    chosen = {
        "driver": PARALLEL if master.startswith("local") else SERIAL,
        "executor": SERIAL if own.get("spark.executor.cores") == "1" else PARALLEL,
    }
    return {
        f"spark.{process}.defaultJavaOptions": collector
        for process, collector in chosen.items()
        if not ANY_COLLECTOR.search(own.get(f"spark.{process}.extraJavaOptions", ""))
    }


class FittedBackend(Backend):
    """Ibis's backend, fitted to what Spark is good at, and bad at, in planning."""

    def compile(self, *arguments: Any, **options: Any) -> str:
        """Compile each step into a select of its own: merged, Spark computes again what a step uses several times."""
        merged = ibis.options.sql.fuse_selects
        ibis.options.sql.fuse_selects = False
        try:
            return super().compile(*arguments, **options)
        finally:
            ibis.options.sql.fuse_selects = merged

    def _register_in_memory_table(self, op: InMemoryTable) -> None:
        """Hand a table over as Arrow: Spark knows in planning how small it is.

        Through pandas an empty one is of unknown size, and what is joined with it, such as all history, is shuffled.
        """
        rows = self._session.createDataFrame(op.data.to_pyarrow(op.schema), _spark_schema(op.schema))
        rows.createOrReplaceTempView(op.name)


class SparkEngine:
    """The engine over a Spark session that starts when it is first needed, and stops with this process.

    A folder below `scratch` holds the texts of files that are not flawless while they are parted; executors read there.
    `reader` counts what they wrote, which costs the driver less than the hash of the CSV file, and Spark seconds. It
    also parses what it has parsed before Spark would have: CSV files of at most `driver_bytes`, and many small ones.
    `shuffle_partitions` None: as many as the size of the data on the disk asks for.
    """

    name = "spark"

    def __init__(
        self,
        pyspark: LazyPySparkResource,
        scratch: Path,
        reader: Engine,
        driver_bytes: int,
        shuffle_partitions: int | None = None,
    ) -> None:
        self.pyspark = pyspark
        self.scratch = Scratch(scratch)
        self.reader = reader
        self.driver_bytes = driver_bytes
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
    def backend(self) -> Backend:
        """The Ibis backend over the session."""
        FittedBackend.register_options()
        return FittedBackend().connect(self.session)

    def parse(self, csv_file: CsvFile, folder: Path, reject_folder: Path) -> ParsedFile:
        """Parse the file in parallel, taking it to be flawless; where it is not, start again, exactly."""
        if size_of(csv_file.path) <= self.driver_bytes:
            return self.reader.parse(csv_file, folder, reject_folder)
        long_line = may_hold_long_line(csv_file.path)  # Spark would hold it whole, several times.
        if not long_line and self._parse_flawless(csv_file, folder):
            return account(self.reader, csv_file, _parquet_files(folder))
        for file in _parquet_files(folder):
            file.unlink()
        return self._parse_exactly(csv_file, folder, reject_folder)

    def parse_texts(
        self, texts: pa.Table, table: Table, folder: Path, reject_folder: Path
    ) -> tuple[Sequence[Path], Sequence[Path]]:
        """Have the rows of many small files parsed at once."""
        return self.reader.parse_texts(texts, table, folder, reject_folder)

    def read(self, table: Table, files: Sequence[str]) -> ir.Table:
        """Return the rows in these parquet files of the table."""
        if not files:
            return ibis.memtable(table.schema.to_pyarrow().empty_table(), schema=table.schema)
        self._fit_shuffles(files)
        return self._read(_spark_schema(table.schema), files).cast(table.schema)

    def keep(self, rows: ir.Table) -> ir.Table:
        """Have the executors hold the rows once they are computed, in memory or on their disks."""
        return self._as_ibis(self.session.sql(self.backend.compile(rows)).cache())

    def write(self, rows: ir.Table, table: Table, folder: Path) -> list[Path]:
        """Write the rows as parquet files, which follow one another in the table's sort order."""
        typed = rows.select(list(table.schema)).cast(table.schema)
        ordered = typed.order_by(list(table.sort_by)) if table.sort_by else typed
        self.backend.to_parquet(ordered, _uri(folder), mode="append")
        return _parquet_files(folder)

    def _parse_flawless(self, csv_file: CsvFile, folder: Path) -> bool:
        """Write the rows of a file in which each line is a row that can be taken; tell whether it is such a file."""
        cleaned = clean(
            self._as_ibis(self._texts(csv_file)), csv_file.table, csv_file.source_file, csv_file.ingested_at
        )
        rows = self.session.sql(self.backend.compile(cleaned))
        seen = Observation()
        defect = ~sf.col(IN_HEADER) & (sf.col("column_name").isNotNull() | ~sf.col(WHOLE))
        observed = rows.observe(seen, sf.count_if(IN_HEADER).alias("headers"), sf.count_if(defect).alias("defects"))
        taken = observed.filter(~sf.col(IN_HEADER)).select(list(csv_file.table.schema))
        taken.write.parquet(_uri(folder), mode="append")
        return seen.get == {"headers": 1, "defects": 0}

    def _texts(self, csv_file: CsvFile) -> DataFrame:
        """Read the file line by line: the delivered columns as text, whether the line is the header, and is whole.

        Quoted fields are unquoted where the line as a whole keeps to RFC 4180; any other line with a quote, such as one
        of a field that goes on in the next, is not whole.
        """
        lines = self.session.read.text(_uri(_escape(str(csv_file.path))))
        width = len(csv_file.header.columns)
        line = sf.col("value")
        quoted = line.contains('"')
        fields = sf.when(quoted, _quoted_fields(line)).otherwise(sf.split(line, ",", -1))
        short = sf.octet_length(line) <= LONGEST_RECORD
        whole = sf.is_valid_utf8(line) & short & (~quoted | line.rlike(ROW)) & (sf.size("fields") == width)
        places = {name: place for place, name in enumerate(csv_file.header.columns) if name is not None}
        return (
            lines.filter(line != "")
            .withColumn("fields", fields)
            .select(
                *(_unquoted(sf.get("fields", sf.lit(place))).alias(name) for name, place in places.items()),
                (line == header_record(csv_file.path).raw_line).alias(IN_HEADER),
                whole.alias(WHOLE),
            )
        )

    def _parse_exactly(self, csv_file: CsvFile, folder: Path, reject_folder: Path) -> ParsedFile:
        texts = self.scratch.folder / f"{folder.name}.parquet"
        try:
            read_exactly(csv_file.path, csv_file.header, texts)
            raw = self._read(None, [str(texts)])
            cleaned = clean(raw, csv_file.table, csv_file.source_file, csv_file.ingested_at)
            files, reject_files = self._split(cleaned, csv_file.table, folder, reject_folder)
            return account(self.reader, csv_file, files, reject_files)
        finally:
            texts.unlink(missing_ok=True)

    def _split(
        self, cleaned: ir.Table, table: Table, folder: Path, reject_folder: Path
    ) -> tuple[list[Path], list[Path]]:
        good, rejected = good_and_rejected(cleaned, table)
        return self.write(good, table, folder), without_empty(self.write(rejected, REJECTED_ROWS, reject_folder))

    def _read(self, schema: StructType | None, files: Sequence[str]) -> ir.Table:
        reader = self.session.read if schema is None else self.session.read.schema(schema)
        return self._as_ibis(reader.parquet(*(_uri(_escape(file)) for file in files)))

    def _as_ibis(self, rows: DataFrame) -> ir.Table:
        name = gen_name("rows")
        rows.createTempView(name)
        return self.backend.table(name)

    def _fit_shuffles(self, files: Sequence[str | Path]) -> None:
        """Have as many partitions in a shuffle as the largest input so far asks for; Spark merges those too small."""
        size = sum(Path(file).stat().st_size for file in files)
        if self.shuffle_partitions is None and size > self._largest_input:
            self._largest_input = size
            wanted = max(self.session.sparkContext.defaultParallelism, math.ceil(size / BYTES_PER_PARTITION))
            self.session.conf.set("spark.sql.shuffle.partitions", min(wanted, MOST_PARTITIONS))


def _quoted_fields(line: Column) -> Column:
    """Return the fields of a line that keeps to RFC 4180, with their quotes."""
    return sf.regexp_extract_all(sf.concat(sf.lit(","), line), sf.lit(f",({FIELD})"), sf.lit(1))


def _unquoted(field: Column) -> Column:
    """Return a field without its quotes, if it has any."""
    inner = field.substr(sf.lit(2), sf.length(field) - 2)
    return sf.when(field.startswith('"'), sf.replace(inner, sf.lit('""'), sf.lit('"'))).otherwise(field)


def _spark_schema(schema: ibis.Schema) -> StructType:
    """Return the schema as Spark's, times without time zone: Ibis takes every time for one with a zone."""
    spark = PySparkSchema.from_ibis(schema)
    for field in spark.fields:
        if isinstance(field.dataType, TimestampType):
            field.dataType = TimestampNTZType()
    return spark


def _parquet_files(folder: Path) -> list[Path]:
    """Return the files that jobs left in the folder, in the order of their rows."""
    return sorted(folder.glob("*.parquet"))


def _uri(path: str | Path) -> str:
    return f"file://{path}"


def _escape(path: str) -> str:
    """Return the path with the signs escaped that Spark takes for a pattern where it reads."""
    return re.sub(r"([\\\[\]{}*?])", r"\\\1", path)
