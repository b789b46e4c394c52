"""The Engine protocol and the engines: the only modules that know DuckDB or Spark."""
