"""From CSV to sorted rankings in lazy Polars on its streaming engine.

    python polars_lazy.py FOLDER [--users CSV --top-artists CSV] [--later-wins]

The CSV files, if any, become the next raw parquet file of each table; then both rankings are computed from all raw
parquet files. With `--later-wins` a row counts only if no later file has its key; without, keys are taken to be unique.

Tuned by https://docs.pola.rs/user-guide/lazy/ and https://docs.pola.rs/user-guide/concepts/streaming/: scans and sinks
instead of reads and writes, the schema given instead of inferred, only the columns that are needed. Threads are set by
POLARS_MAX_THREADS.
"""

import argparse
from pathlib import Path

import polars as pl

SCHEMAS = {
    "user_data": {"user_id": pl.Int32, "country": pl.String, "total_scrobbles": pl.Int64},
    "user_top_artists": {
        "user_id": pl.Int32,
        "rank": pl.Int32,
        "artist_name": pl.String,
        "playcount": pl.Int64,
        "mbid": pl.String,
    },
}
KEYS = {"user_data": ["user_id"], "user_top_artists": ["user_id", "rank"]}


def add(raw: Path, name: str, csv: Path) -> None:
    """Write the CSV as the next raw parquet file of the table."""
    folder = raw / name
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{len(list(folder.iterdir())):04}.parquet"
    pl.scan_csv(csv, schema=SCHEMAS[name]).sink_parquet(target, maintain_order=False)


def rows(raw: Path, name: str, later_wins: bool) -> pl.LazyFrame:
    """Return the rows that count."""
    files = sorted((raw / name).iterdir())
    if not later_wins:
        return pl.scan_parquet(files)
    key = KEYS[name]
    parts = [
        pl.scan_parquet(file).join(pl.scan_parquet(files[place + 1 :]).select(key), on=key, how="anti")
        for place, file in enumerate(files[:-1])
    ]
    return pl.concat([*parts, pl.scan_parquet(files[-1])])


def rank_artists(users: pl.LazyFrame, top_artists: pl.LazyFrame) -> pl.LazyFrame:
    """Rank the artists of each country by plays."""
    located = users.filter(pl.col("country").is_not_null()).select("user_id", "country")
    return (
        top_artists.select("user_id", "artist_name", "playcount")
        .join(located, on="user_id")
        .group_by("country", "artist_name")
        .agg(pl.col("playcount").sum().cast(pl.Float64).alias("total_playcount"))
        .sort("country", "total_playcount", "artist_name", descending=[False, True, False])
        .with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("country").alias("rank"))
    )


def rank_countries(artists: pl.LazyFrame) -> pl.LazyFrame:
    """Rank the countries of each artist by the artist's share of the country's plays."""
    plays = artists.group_by("country").agg(pl.col("total_playcount").sum().alias("plays"))
    share = pl.when(pl.col("plays") > 0).then(pl.col("total_playcount") / pl.col("plays")).otherwise(0.0)
    return (
        artists.join(plays, on="country")
        .select("country", "artist_name", "total_playcount", share.alias("normalized_popularity"))
        .sort("artist_name", "normalized_popularity", "country", descending=[False, True, False])
        .with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("artist_name").alias("rank"))
    )


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=Path)
    parser.add_argument("--top-artists", type=Path)
    parser.add_argument("--later-wins", action="store_true")
    options = parser.parse_args()
    raw = options.folder / "raw"

    pl.Config.set_engine_affinity("streaming")
    if options.users:
        add(raw, "user_data", options.users)
        add(raw, "user_top_artists", options.top_artists)
    users, top_artists = (rows(raw, name, options.later_wins) for name in SCHEMAS)
    artists = options.folder / "artist_rank_in_country.parquet"
    rank_artists(users, top_artists).sink_parquet(artists)
    columns = ["country", "artist_name", "total_playcount"]
    rank_countries(pl.scan_parquet(artists).select(columns)).sink_parquet(
        options.folder / "country_rank_per_artist.parquet"
    )


if __name__ == "__main__":
    main()
