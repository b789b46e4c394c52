"""From CSV to sorted rankings in PySpark, in the steps of the Glue jobs this project replaces.

    python pyspark_job.py FOLDER [--users CSV --top-artists CSV] [--later-wins] [--threads N | --master URL]

The CSV files, if any, become the next raw parquet files of each table; then both rankings are computed from all raw
parquet files. With `--later-wins` a row counts only if no later drop has its key; without, keys are taken to be unique.

Tuned by https://spark.apache.org/docs/latest/sql-performance-tuning.html: the schema given instead of inferred, as many
shuffle partitions as suit one machine (adaptive execution merges small ones), the small side of a join broadcast,
memory for the driver, in whose process everything runs, no web UI.
"""

import argparse
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as sf

SCHEMAS = {
    "user_data": "user_id INT, country STRING, total_scrobbles BIGINT",
    "user_top_artists": "user_id INT, rank INT, artist_name STRING, playcount BIGINT, mbid STRING",
}
KEYS = {"user_data": ["user_id"], "user_top_artists": ["user_id", "rank"]}


def add(spark: SparkSession, raw: Path, name: str, csv: Path) -> None:
    """Write the CSV as the next raw parquet files of the table."""
    folder = raw / name
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{len(list(folder.iterdir())):04}.parquet"
    spark.read.csv(str(csv), SCHEMAS[name], header=True, escape='"').write.parquet(str(target))


def rows(spark: SparkSession, raw: Path, name: str, later_wins: bool) -> DataFrame:
    """Return the rows that count."""
    parts = [spark.read.parquet(str(part)) for part in sorted((raw / name).iterdir())]
    found = parts.pop()
    later = found.select(KEYS[name])
    while parts:
        part = parts.pop()
        kept = part.join(sf.broadcast(later), KEYS[name], "left_anti") if later_wins else part
        found, later = found.unionByName(kept), later.unionByName(part.select(KEYS[name]))
    return found


def rank_artists(users: DataFrame, top_artists: DataFrame) -> DataFrame:
    """Rank the artists of each country by plays."""
    located = users.where("country IS NOT NULL").select("user_id", "country")
    totals = (
        top_artists.select("user_id", "artist_name", "playcount")
        .join(sf.broadcast(located), "user_id")
        .groupBy("country", "artist_name")
        .agg(sf.coalesce(sf.sum("playcount"), sf.lit(0)).cast("double").alias("total_playcount"))
    )
    within = Window.partitionBy("country").orderBy(sf.desc("total_playcount"), "artist_name")
    return totals.withColumn("rank", sf.row_number().over(within)).sort("country", "rank")


def rank_countries(artists: DataFrame) -> DataFrame:
    """Rank the countries of each artist by the artist's share of the country's plays."""
    plays = artists.groupBy("country").agg(sf.sum("total_playcount").alias("plays"))
    shares = artists.join(sf.broadcast(plays), "country").select(
        "country",
        "artist_name",
        "total_playcount",
        sf.expr("if(plays > 0, total_playcount / plays, 0)").alias("normalized_popularity"),
    )
    within = Window.partitionBy("artist_name").orderBy(sf.desc("normalized_popularity"), "country")
    return shares.withColumn("rank", sf.row_number().over(within)).sort("artist_name", "rank")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=Path)
    parser.add_argument("--top-artists", type=Path)
    parser.add_argument("--later-wins", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--master", help="a cluster, instead of threads in this process")
    parser.add_argument("--driver-memory", default="8g")
    parser.add_argument("--executor-memory", default="1g")
    options = parser.parse_args()
    raw = options.folder / "raw"

    spark = (
        SparkSession.builder.master(options.master or f"local[{options.threads or '*'}]")
        .config("spark.driver.memory", options.driver_memory)
        .config("spark.executor.memory", options.executor_memory)
        .config("spark.sql.shuffle.partitions", "32")
        .config("spark.sql.autoBroadcastJoinThreshold", "256m")
        .config("spark.local.dir", str(options.folder / "spill"))
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    if options.users:
        add(spark, raw, "user_data", options.users)
        add(spark, raw, "user_top_artists", options.top_artists)
    users, top_artists = (rows(spark, raw, name, options.later_wins) for name in SCHEMAS)
    artists = str(options.folder / "artist_rank_in_country.parquet")
    rank_artists(users, top_artists).write.mode("overwrite").parquet(artists)
    columns = ["country", "artist_name", "total_playcount"]
    countries = rank_countries(spark.read.parquet(artists).select(columns))
    countries.write.mode("overwrite").parquet(str(options.folder / "country_rank_per_artist.parquet"))
    spark.stop()


if __name__ == "__main__":
    main()
