"""The embedding assets: a vector per artist and per user, from one training. Only a user starts it, never a sensor."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

from music_assets.data_root import DataRoot
from music_assets.defs.assets import EMBEDDING_CODE, OWNERS
from music_assets.defs.metadata import markdown_table, picture
from music_assets.embedding.evaluation import ARTIST_TO_ARTIST, USER_TO_ARTIST, USER_TO_USER, Comparison
from music_assets.embedding.training import TrainingResult, load_interactions, train_and_evaluate, training_folder
from music_assets.embedding.word2vec import Hyperparameters, OnProgress, Progress, Trainer, TrainingError
from music_assets.engines.base import Engine
from music_assets.tables import (
    ARTIST_EMBEDDING,
    COUNTRY_RANK_PER_ARTIST,
    EMBEDDING_TABLES,
    USER_EMBEDDING,
    USER_TOP_ARTISTS,
)
from music_assets.transforms.current_rows import current_rows
from music_assets.transforms.interactions import weighted_interactions

PROGRESS_INTERVAL = 2.0
"""Minimum seconds between two progress lines in the run's log."""
BEATS_BASELINES = dg.AssetCheckSpec(
    "beats_baselines",
    asset=dg.AssetKey(USER_EMBEDDING.asset_key),
    description="The vectors find held-out artists better than baselines do that need no vectors.",
)
REQUIRED_RATIOS = {USER_TO_ARTIST: 1.25, ARTIST_TO_ARTIST: 0.4, USER_TO_USER: 1.25}
"""Minimum ratio of the vectors' recall to that of the baseline.

Counting who lists two artists favours the popular ones, as held-out artists do; a cosine does not.
"""


class TrainingConfig(dg.Config, Hyperparameters):
    """The hyperparameters as run config."""


@dg.multi_asset(
    name="embeddings",
    outs={
        table.name: dg.AssetOut(
            key=dg.AssetKey(table.asset_key),
            description=table.description,
            kinds={"python", "parquet", "deltalake"},
            owners=OWNERS,
            code_version=EMBEDDING_CODE,
        )
        for table in EMBEDDING_TABLES
    },
    ins={
        "user_top_artists": dg.AssetIn(dg.AssetKey(USER_TOP_ARTISTS.asset_key)),
        "country_rank_per_artist": dg.AssetIn(dg.AssetKey(COUNTRY_RANK_PER_ARTIST.asset_key)),
    },
    check_specs=[BEATS_BASELINES],
    group_name="embeddings",
)
def embeddings(
    context: dg.AssetExecutionContext,
    config: TrainingConfig,
    user_top_artists: ir.Table,
    country_rank_per_artist: ir.Table,
    engine: dg.ResourceParam[Engine],
    data_root: dg.ResourceParam[DataRoot],
    trainer: dg.ResourceParam[Trainer],
    threads: dg.ResourceParam[int],
) -> Iterator[Any]:
    """Train on the current rows; commit the vectors of the artists, then those of the users."""
    try:
        with training_folder(data_root) as folder:
            leading = _leading_countries(country_rank_per_artist)
            rows = weighted_interactions(current_rows(user_top_artists, USER_TOP_ARTISTS))
            interactions = load_interactions(rows, engine, folder)
            context.log.info(f"{len(interactions.user_ids):,} users, {len(interactions.artist_names):,} artists")
            on_progress = _progress_logger(context.log.info)
            result = train_and_evaluate(interactions, config, trainer, on_progress, folder, threads, context.log.info)
            facts, vectors = _facts(result), result.embeddings
            vectors.write_artists(artist_file := folder / "artists.parquet")
            shown = {**facts, **_pictures(result, leading)}
            yield dg.Output(engine.read(ARTIST_EMBEDDING, [str(artist_file)]), ARTIST_EMBEDDING.name, metadata=shown)
            vectors.write_users(user_file := folder / "users.parquet")
            yield dg.Output(engine.read(USER_EMBEDDING, [str(user_file)]), USER_EMBEDDING.name, metadata=facts)
            yield _check_baselines(result.comparisons)
    except TrainingError as error:
        raise dg.Failure(f"{error} No table was changed.", allow_retries=False) from None


def _progress_logger(log: Callable[[str], None]) -> OnProgress:
    last = -PROGRESS_INTERVAL

    def on_progress(progress: Progress) -> None:
        nonlocal last
        if progress.seconds_left and time.monotonic() - last < PROGRESS_INTERVAL:
            return
        last = time.monotonic()
        loss = "" if progress.loss is None else f"loss per word {progress.loss:.3f}, "
        log(
            f"{progress.passes_done:.1f} of {progress.passes} passes, {progress.words_per_second:,.0f} words/s, "
            f"{loss}{progress.seconds_left:.0f} s left"
        )

    return on_progress


def _facts(result: TrainingResult) -> dict[str, Any]:
    word_vectors = result.word_vectors
    return {
        "trained artists": len(word_vectors.artists),
        "minimum listeners of a trained artist": word_vectors.min_listeners,
        "passes": word_vectors.passes,
        "words per pass": word_vectors.words,
    }


def _leading_countries(country_rank_per_artist: ir.Table) -> pa.Table:
    """Load the country that leads for each artist: refreshes delete this version of the table during the training."""
    ranked = country_rank_per_artist
    return ranked.filter(ranked["rank"] == 1).select("artist_name", "country").to_pyarrow()


def _pictures(result: TrainingResult, leading: pa.Table) -> dict[str, Any]:
    from music_assets.embedding import plots  # imports matplotlib, which only this asset needs

    mapped = pc.is_in(leading["artist_name"], result.embeddings.artist_names[: plots.MAPPED_ARTISTS])
    countries = {row["artist_name"]: row["country"] for row in leading.filter(mapped).to_pylist()}
    title = "the artists with the most listeners, coloured by the country where each is most popular"
    return {
        "neighbours of the largest artists": markdown_table(plots.largest_artists_neighbours(result.embeddings)),
        "map": picture(plots.artist_map(result.embeddings, countries), title),
    }


def _check_baselines(comparisons: Mapping[str, Comparison]) -> dg.AssetCheckResult:
    found = {
        name: f"{name}: recall@20 {each.ours.recall_at_20:.3f}, expected at least {REQUIRED_RATIOS[name]} times "
        f"that of the baseline ({each.baseline.recall_at_20:.3f})"
        for name, each in comparisons.items()
    }
    unevaluated = "Not evaluated: no user has the five artists that it takes to hold one out."
    return dg.AssetCheckResult(
        asset_key=BEATS_BASELINES.asset_key,
        check_name=BEATS_BASELINES.name,
        passed=bool(comparisons) and all(_passes(name, each) for name, each in comparisons.items()),
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(found.values()) or unevaluated,
        metadata={key: value for name, each in comparisons.items() for key, value in _listed(name, each).items()},
    )


def _passes(name: str, comparison: Comparison) -> bool:
    recall = comparison.ours.recall_at_20
    return recall > 0 and recall >= REQUIRED_RATIOS[name] * comparison.baseline.recall_at_20


def _listed(name: str, comparison: Comparison) -> dict[str, float | int]:
    listed: dict[str, float | int] = {"users": comparison.ours.users}
    for prefix, metrics in ((name, comparison.ours), (f"{name}, baseline", comparison.baseline)):
        values = {"recall@20": metrics.recall_at_20, "HR@10": metrics.hit_rate_at_10, "NDCG@10": metrics.ndcg_at_10}
        listed |= {f"{prefix} {metric}": round(value, 4) for metric, value in values.items()}
    return listed
