"""From CSV files to sorted rankings in lazy Polars: `python polars_lazy.py FOLDER [USERS TOP_ARTISTS]`.

The CSV files become the next raw parquet file of each table. Both rankings are computed from all raw parquet files; of
the rows with the same key, those of the latest file count.

Tuned by https://docs.pola.rs/user-guide/lazy/ and https://docs.pola.rs/user-guide/concepts/streaming/: scans and sinks
instead of reads and writes, the streaming engine, the schema given, only the columns that are needed.
"""

import sys
from itertools import zip_longest
from pathlib import Path

import polars as pl

USERS = {"user_id": pl.Int32, "country": pl.String, "total_scrobbles": pl.Int64}
ARTISTS = {"user_id": pl.Int32, "rank": pl.Int32, "artist_name": pl.String, "playcount": pl.Int64, "mbid": pl.String}
SCHEMAS = {"user_data": USERS, "user_top_artists": ARTISTS}
KEYS = {"user_data": ["user_id"], "user_top_artists": ["user_id", "rank"]}


if __name__ == "__main__":
    folder, *files = map(Path, sys.argv[1:])
    pl.Config.set_engine_affinity("streaming")
    current = {}
    for name, file in zip_longest(SCHEMAS, files):
        raw = folder / "raw" / name
        raw.mkdir(parents=True, exist_ok=True)
        if file:
            target = raw / f"{len(list(raw.iterdir())):04}.parquet"
            pl.scan_csv(file, schema=SCHEMAS[name]).sink_parquet(target, maintain_order=False)
        *earlier, last = (pl.scan_parquet(part) for part in sorted(raw.iterdir()))
        for part in reversed(earlier):
            last = pl.concat([part.join(last.select(KEYS[name]), on=KEYS[name], how="anti"), last])
        current[name] = last
    users, top_artists = current.values()
    artists, countries = (folder / f"{name}.parquet" for name in ("artist_rank_in_country", "country_rank_per_artist"))
    located = users.filter(pl.col("country").is_not_null()).select("user_id", "country")
    (
        top_artists.select("user_id", "artist_name", "playcount")
        .join(located, on="user_id")
        .group_by("country", "artist_name")
        .agg(
            pl.col("playcount").sum().cast(pl.Float64).alias("total_playcount"),
            pl.col("user_id").n_unique().cast(pl.Int64).alias("listeners"),
        )
        .sort("country", "total_playcount", "artist_name", descending=[False, True, False])
        .with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("country").alias("rank"))
        .sink_parquet(artists)
    )
    totals = pl.scan_parquet(artists).select("country", "artist_name", "total_playcount", "listeners")
    plays = totals.group_by("country").agg(pl.col("total_playcount").sum().alias("plays"))
    share = pl.when(pl.col("plays") > 0).then(pl.col("total_playcount") / pl.col("plays")).otherwise(0.0)
    (
        totals.join(plays, on="country")
        .select("country", "artist_name", "total_playcount", "listeners", share.alias("normalized_popularity"))
        .sort("artist_name", "normalized_popularity", "country", descending=[False, True, False])
        .with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("artist_name").alias("rank"))
        .sink_parquet(countries)
    )
