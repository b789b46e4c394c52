"""Makes everything anew that is computed from the raw tables, also where it is damaged or gone; never touches those.

The work is Dagster's: a run of refresh_rankings without the raw tables, which stands in the history like any other.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from music_assets.data_root import DataRoot
from music_assets.defs.build import build_definitions
from music_assets.defs.sensors import UNFINISHED
from music_assets.maintenance.doctor import how_to_mend
from music_assets.runtime.dagster_home import prepare_dagster_home
from music_assets.settings import Settings
from music_assets.storage.delta import DeltaStore
from music_assets.storage.integrity import damaged_files
from music_assets.storage.published_snapshot import newest_snapshot
from music_assets.tables import (
    EMBEDDING_TABLES,
    RANKING_TABLES,
    RAW_TABLES,
    REFRESH_RANKINGS,
    REJECTED_ROWS,
    TRAIN_EMBEDDINGS,
    Table,
)

Say = Callable[[str], None]
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


class RebuildError(Exception):
    """Nothing was published. The message says why, and what to do."""


def rebuild(settings: Settings, say: Say) -> None:
    """Compute the rankings anew and publish; say each step. Damaged tables are moved aside first, never removed.

    Raises RebuildError where a raw table is damaged or empty, a run is under way, or the run fails.
    """
    root = DataRoot(settings.data)
    store = DeltaStore(root)
    _check_raw(store)
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(root))) as instance:
        _check_idle(instance)
        for group in (RANKING_TABLES, EMBEDDING_TABLES, (REJECTED_ROWS,)):
            _move_damaged(store, group, say)
        _run(settings, instance, say)
    say(f"Published {newest_snapshot(root).path}")


def _check_raw(store: DeltaStore) -> None:
    for table in RAW_TABLES:
        found = damaged_files(store, table)
        if found:
            told = [f"{damage}. {how_to_mend(store, table, damage)}" for damage in found]
            raise RebuildError(f"{table.full_name}, from which all is computed, is damaged. " + "\n".join(told))
        if not store.table_version(table).rows:
            raise RebuildError(f"{table.full_name} has no rows to compute from. Drop its CSV files first.")


def _check_idle(instance: dg.DagsterInstance) -> None:
    unfinished = instance.get_runs(dg.RunsFilter(statuses=list(UNFINISHED)), limit=1)
    if unfinished:
        run = unfinished[0]
        raise RebuildError(f"Run {run.run_id} of {run.job_name} has not ended yet. Wait for it, or cancel it.")


def _move_damaged(store: DeltaStore, group: tuple[Table, ...], say: Say) -> None:
    """Move tables aside that belong together, where one of them is damaged: they name each other's versions."""
    found = [damage for table in group for damage in damaged_files(store, table)]
    for damage in found:
        say(f"Damaged: {damage}")
    for table in group if found else ():
        if store.folder(table).exists():
            say(f"Moved aside: {store.folder(table)} to {_move_aside(store, table)}")
    if found and group is EMBEDDING_TABLES:
        say(f"The embeddings are gone until they are trained anew: run the job {TRAIN_EMBEDDINGS}.")
    if found and group == (REJECTED_ROWS,):
        say("The list of rejected rows begins anew.")


def _move_aside(store: DeltaStore, table: Table) -> Path:
    target = store.root.damaged / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}" / table.folder
    target.parent.mkdir(parents=True)
    return store.folder(table).rename(target)


def _run(settings: Settings, instance: dg.DagsterInstance, say: Say) -> None:
    keys = [dg.AssetKey(table.asset_key) for table in RANKING_TABLES] + [dg.AssetKey("music_db")]
    say(f"Computing {', '.join(key.to_user_string() for key in keys)}")
    job = build_definitions(settings).resolve_job_def(REFRESH_RANKINGS)
    run = job.execute_in_process(run_config=QUIET, instance=instance, raise_on_error=False, asset_selection=keys)
    if not run.success:
        errors = [event.step_failure_data.error for event in run.get_step_failure_events()]
        causes = [(error.cause or error).message.strip() for error in errors if error]
        raise RebuildError(f"Run {run.run_id} failed: {'; '.join(causes) or 'see it in the web UI'}")
    say(f"Run {run.run_id} succeeded")
