"""From CSV files to sorted rankings in PySpark, as the old Glue jobs did.

    python pyspark_job.py FOLDER [USERS TOP_ARTISTS]

The CSV files become the next raw parquet file of each table. Both rankings are computed from all raw parquet files; of
the rows with the same key, those of the latest file count.

Tuned by https://spark.apache.org/docs/latest/sql-performance-tuning.html: the schema is given, as many shuffle
partitions as suit one machine (adaptive execution merges small ones), the small side of a join is broadcast, memory for
the driver, in whose process everything runs, no web UI. SPARK_MASTER and SPARK_MEMORY choose a cluster.
"""

import os
import sys
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

SCHEMAS = {
    "user_data": "user_id INT, country STRING, total_scrobbles BIGINT",
    "user_top_artists": "user_id INT, rank INT, artist_name STRING, playcount BIGINT, mbid STRING",
}
KEYS = {"user_data": ["user_id"], "user_top_artists": ["user_id", "rank"]}
RANKINGS = ("artist_rank_in_country", "country_rank_per_artist")


if __name__ == "__main__":
    folder, *files = map(Path, sys.argv[1:])
    conf = {
        "spark.driver.memory": os.environ.get("SPARK_MEMORY", "8g"),
        "spark.executor.memory": os.environ.get("SPARK_MEMORY", "1g"),
        "spark.sql.shuffle.partitions": "32",
        "spark.sql.autoBroadcastJoinThreshold": "256m",
        "spark.local.dir": str(folder / "spill"),
        "spark.ui.enabled": "false",
    }
    spark = SparkSession.builder.master(os.environ.get("SPARK_MASTER", "local[*]")).config(map=conf).getOrCreate()
    for name, file in zip(SCHEMAS, files, strict=False):
        raw = folder / "raw" / name
        raw.mkdir(parents=True, exist_ok=True)
        rows = spark.read.csv(str(file), SCHEMAS[name], header=True, escape='"')
        rows.write.parquet(f"{raw}/{len(list(raw.iterdir())):04}.parquet")
    for name, key in KEYS.items():
        *earlier, last = (spark.read.parquet(str(part)) for part in sorted((folder / "raw" / name).iterdir()))
        for part in reversed(earlier):
            last = last.unionByName(part.join(sf.broadcast(last.select(key)), key, "left_anti"))
        last.createOrReplaceTempView(name)
    for name, sql in zip(RANKINGS, Path(__file__).with_suffix(".sql").read_text().split(";"), strict=True):
        target = f"{folder}/{name}.parquet"
        spark.sql(sql).write.mode("overwrite").parquet(target)
        spark.read.parquet(target).createOrReplaceTempView(name)
    spark.stop()
