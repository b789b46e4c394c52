"""The embedding assets: a vector for each artist and each user. One training makes both; only a person starts it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from music_assets.defs.assets import OWNERS
from music_assets.defs.metadata import markdown_table, picture
from music_assets.embedding.evaluation import Figures
from music_assets.embedding.interactions import Listening, read_listening
from music_assets.embedding.training import Training, train_and_evaluate
from music_assets.embedding.training_folder import TrainingFolder, TrainingUnderwayError
from music_assets.embedding.word2vec import Hyperparameters, Progress, Trainer, TrainingError
from music_assets.engines.base import Engine
from music_assets.tables import (
    ARTIST_EMBEDDING,
    COUNTRY_RANK_PER_ARTIST,
    EMBEDDING_TABLES,
    USER_EMBEDDING,
    USER_TOP_ARTISTS,
    Column,
    Table,
)
from music_assets.transforms.current_rows import current_rows
from music_assets.transforms.interactions import sentences

PROGRESS_SECONDS = 2.0
"""Seconds between two lines of progress in the run's log, at least."""
CLEARLY_BETTER = 1.25
"""By how much the recall must exceed that of popularity."""

SENTENCES = Table(
    name="sentences",
    folder="",
    description="What a training reads: which artist weighs how much with which user.",
    columns=(
        USER_TOP_ARTISTS.column("user_id"),
        USER_TOP_ARTISTS.column("artist_name"),
        Column("weight", "int32", "round(1 + log10(plays)), 0 without plays.", nullable=False),
    ),
    sort_by=("user_id", "artist_name"),
)


class TrainingConfig(dg.Config, Hyperparameters):
    """The settings of the training, as the launchpad shows them."""


@dg.multi_asset(
    name="embeddings",
    outs={
        table.name: dg.AssetOut(
            key=dg.AssetKey(table.asset_key), description=table.description, kinds={"python", "parquet", "deltalake"},
            owners=OWNERS,
        )
        for table in EMBEDDING_TABLES
    },
    ins={
        "user_top_artists": dg.AssetIn(dg.AssetKey(USER_TOP_ARTISTS.asset_key)),
        "country_rank_per_artist": dg.AssetIn(dg.AssetKey(COUNTRY_RANK_PER_ARTIST.asset_key)),
    },
    check_specs=[
        dg.AssetCheckSpec(
            "foretells_better_than_popularity",
            asset=dg.AssetKey(USER_EMBEDDING.asset_key),
            description="Artists held out of users' lists are found by the vectors, far better than by popularity.",
        )
    ],
    group_name="embeddings",
)  # fmt: skip
def embeddings(
    context: dg.AssetExecutionContext,
    config: TrainingConfig,
    user_top_artists: ir.Table,
    country_rank_per_artist: ir.Table,
    engine: dg.ResourceParam[Engine],
    training_folder: dg.ResourceParam[TrainingFolder],
    trainer: dg.ResourceParam[Trainer],
) -> Iterator[Any]:
    """Train word2vec on the current rows; commit the vectors of the artists, then those of the users."""
    try:
        with training_folder.occupied() as folder:
            listening = _read(sentences(current_rows(user_top_artists, USER_TOP_ARTISTS)), engine, folder)
            context.log.info(f"{len(listening.user_ids):,} users listen to {len(listening.artist_names):,} artists")
            training = train_and_evaluate(listening, config, _progress_into(context.log.info), folder, trainer)
            shown = {**_facts(training), **_pictures(training, country_rank_per_artist)}
            for table, reader in _vectors(training):
                rows = engine.read(table, [str(_written(reader, folder / f"{table.name}.parquet"))])
                yield dg.Output(rows, table.name, metadata=shown if table is ARTIST_EMBEDDING else _facts(training))
            yield _verdict(training)
    except (TrainingError, TrainingUnderwayError) as error:
        raise dg.Failure(f"{error} Nothing was changed.", allow_retries=False) from None


def _read(rows: ir.Table, engine: Engine, folder: Path) -> Listening:
    """Read the sentences through parquet files, so that they never stand in memory whole."""
    target = folder / SENTENCES.name
    target.mkdir()
    files = engine.write(rows, SENTENCES, target)
    try:
        return read_listening(batch for file in files for batch in pq.ParquetFile(file).iter_batches())
    except ValueError as error:
        raise TrainingError(str(error)) from None


def _progress_into(tell: Callable[[str], None]) -> Callable[[Progress], None]:
    last = -PROGRESS_SECONDS

    def on_progress(progress: Progress) -> None:
        nonlocal last
        if progress.seconds_left and time.monotonic() - last < PROGRESS_SECONDS:
            return
        last = time.monotonic()
        loss = "" if progress.loss is None else f"loss {progress.loss:.3f} a word, "
        tell(
            f"{progress.passes_done:.1f} of {progress.passes} passes, {progress.words_per_second:,.0f} words/s, "
            f"{loss}{progress.seconds_left:.0f} s left"
        )

    return on_progress


def _vectors(training: Training) -> Iterator[tuple[Table, pa.RecordBatchReader]]:
    yield ARTIST_EMBEDDING, training.embeddings.artist_table()
    yield USER_EMBEDDING, training.embeddings.user_table()


def _written(reader: pa.RecordBatchReader, path: Path) -> Path:
    with pq.ParquetWriter(path, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
    return path


def _facts(training: Training) -> dict[str, Any]:
    learned = training.word_vectors
    return {
        "artists trained": len(learned.artists),
        "fewest listeners of a trained artist": learned.min_listeners,
        "passes": learned.passes,
        "words in a pass": learned.words,
    }


def _pictures(training: Training, country_rank_per_artist: ir.Table) -> dict[str, Any]:
    from music_assets.embedding import plots as display  # draws and indexes, which only a run should pay for

    largest = training.embeddings.artist_names[: display.MAPPED_ARTISTS].to_pylist()
    ranked = country_rank_per_artist
    first = ranked.filter((ranked["rank"] == 1) & ranked["artist_name"].isin(largest)).select("artist_name", "country")
    homes = first.to_pyarrow()
    countries = dict(zip(homes["artist_name"].to_pylist(), homes["country"].to_pylist(), strict=True))
    title = "the artists with most listeners, by the country that loves each most"
    return {
        "nearest to the artists with most listeners": markdown_table(
            display.neighbours_of_largest(training.embeddings)
        ),
        "map": picture(display.map_of_largest(training.embeddings, countries), title),
    }


def _verdict(training: Training) -> dg.AssetCheckResult:
    ours, popular = training.figures, training.popularity
    key = dg.AssetKey(USER_EMBEDDING.asset_key)
    if ours is None or popular is None:
        return dg.AssetCheckResult(
            asset_key=key,
            check_name="foretells_better_than_popularity",
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description="No user has the five artists it takes to hold one out, so nothing was measured.",
        )
    return dg.AssetCheckResult(
        asset_key=key,
        check_name="foretells_better_than_popularity",
        passed=ours.recall_at_20 >= CLEARLY_BETTER * popular.recall_at_20 and ours.recall_at_20 > 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"Expected a recall@20 of at least {CLEARLY_BETTER} times that of popularity ({popular.recall_at_20:.3f}); "
            f"found {ours.recall_at_20:.3f} over {ours.users} users"
        ),
        metadata={**_listed("", ours), **_listed("popularity's ", popular), "users": ours.users},
    )


def _listed(prefix: str, figures: Figures) -> dict[str, float]:
    names = {"recall_at_20": "recall@20", "hit_rate_at_10": "HR@10", "ndcg_at_10": "NDCG@10"}
    values = asdict(figures)
    return {f"{prefix}{name}": round(values[field], 4) for field, name in names.items()}
