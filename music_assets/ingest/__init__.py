"""The way of a CSV file from its drop folder into a raw table.

`landing` finds the files, `parser` converts them to parquet files, `ingest` commits these exactly once, `quarantine`
stores bad files. Delta commits belong to `storage/`, what is computed from raw tables to `transforms/`, and the assets
and sensors that start an ingest to `defs/`.
"""
