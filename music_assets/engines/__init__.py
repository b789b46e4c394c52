"""The engines that run Ibis expressions over the tables: DuckDB and Spark, behind the protocol in `base`.

An engine reads, caches and writes parquet files. CSV files are parsed in `ingest/`, commits belong to `storage/`, and
what is computed is in `transforms/`.
"""
