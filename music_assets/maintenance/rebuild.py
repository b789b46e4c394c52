"""Recompute what is derived from the raw tables, even if it is damaged or missing. The raw tables are not changed.

The rebuild is a run of refresh_rankings without the raw tables, recorded in Dagster's run history.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import dagster as dg
from dagster._core.launcher import WorkerStatus
from sqlalchemy.exc import SQLAlchemyError

from music_assets.data_root import DataRoot
from music_assets.defs.build import build_definitions
from music_assets.defs.sensors import UNFINISHED
from music_assets.maintenance.doctor import recovery
from music_assets.runtime.dagster_home import DatabaseError, prepare_dagster_home, reason
from music_assets.settings import Settings
from music_assets.storage.delta import DeltaStore
from music_assets.storage.integrity import damaged_files
from music_assets.storage.lineage import removed_rows
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

Report = Callable[[str], None]
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


class RebuildError(Exception):
    """The rebuild failed, and nothing was published."""


def rebuild(settings: Settings, report: Report) -> None:
    """Recompute and publish the rankings, and report each step. Damaged tables are moved to the folder `damaged` first.

    Raises RebuildError if a raw table is damaged or empty, if a run is in progress, or if the run fails; and
    LayoutError.
    """
    root = DataRoot.of(settings)
    root.check_exists()
    store = DeltaStore(root)
    check_raw(store)
    with run_history(root) as instance:
        check_idle(instance)
        for group in (RANKING_TABLES, EMBEDDING_TABLES, (REJECTED_ROWS,)):
            _move_damaged(store, group, report)
        recompute(settings, instance, report)
    report(f"Published {root.address(newest_snapshot(root).path)}")


@contextmanager
def run_history(root: DataRoot) -> Iterator[dg.DagsterInstance]:
    """Yield the Dagster instance of a data root. Raises LayoutError, and DatabaseError if its databases fail."""
    home = prepare_dagster_home(root)
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield instance
    except SQLAlchemyError as error:
        raise DatabaseError(
            f"The run history of {home} cannot be used: {reason(error)}. Fix this, then run the command again."
        ) from None


def check_raw(store: DeltaStore) -> None:
    """Raise RebuildError if a raw table is damaged or empty."""
    for table in RAW_TABLES:
        found = damaged_files(store, table)
        if found:
            details = "\n".join(f"{damage}. {recovery(store, table, damage)}" for damage in found)
            raise RebuildError(f"The raw table {table.full_name} is damaged. {details}")
        if not store.table_version(table).rows and not removed_rows(store, table):
            raise RebuildError(f"{table.full_name} has no rows. Drop its CSV files first.")


def check_idle(instance: dg.DagsterInstance) -> None:
    """Raise RebuildError if a run is in progress. Runs whose process has died are marked as failed."""
    launcher = instance.run_launcher
    for run in instance.get_runs(dg.RunsFilter(statuses=list(UNFINISHED))):
        if run.status is dg.DagsterRunStatus.STARTED and launcher.supports_check_run_worker_health:
            health = launcher.check_run_worker_health(run)
            if health.status is WorkerStatus.NOT_FOUND:
                instance.report_run_failed(run, health.msg)
                continue
        if run.status is not dg.DagsterRunStatus.NOT_STARTED:  # a process that dies while it creates a run leaves this
            raise RebuildError(f"Run {run.run_id} of {run.job_name} is in progress. Wait until it ends, or cancel it.")


def _move_damaged(store: DeltaStore, group: tuple[Table, ...], report: Report) -> None:
    """Move a group of tables, which refer to each other's versions, to `damaged` if one of them is damaged."""
    found = [damage for table in group for damage in damaged_files(store, table)]
    for damage in found:
        report(f"Damaged: {damage}")
    for table in group if found else ():
        if store.root.files_below(store.folder(table)):
            report(f"Moved {store.root.address(store.folder(table))} to {_move(store, table)}")
    if found and group is EMBEDDING_TABLES:
        report(f"The embeddings are missing until you run the job {TRAIN_EMBEDDINGS}.")
    if found and group == (REJECTED_ROWS,):
        report("The table of rejected rows starts empty.")


def _move(store: DeltaStore, table: Table) -> str:
    target = store.root.damaged / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}" / table.folder
    store.root.move_folder(store.folder(table), target)
    return store.root.address(target)


def recompute(settings: Settings, instance: dg.DagsterInstance, report: Report) -> None:
    """Compute and publish the rankings in a run. Raises RebuildError if it fails."""
    keys = [dg.AssetKey(table.asset_key) for table in RANKING_TABLES] + [dg.AssetKey("music_db")]
    report(f"Computing {', '.join(key.to_user_string() for key in keys)}")
    job = build_definitions(settings).resolve_job_def(REFRESH_RANKINGS)
    run = job.execute_in_process(run_config=QUIET, instance=instance, raise_on_error=False, asset_selection=keys)
    if not run.success:
        errors = [event.step_failure_data.error for event in run.get_step_failure_events()]
        causes = [(error.cause or error).message.strip() for error in errors if error]
        raise RebuildError(f"Run {run.run_id} failed: {'; '.join(causes) or 'see the web UI'}")
    report(f"Run {run.run_id} succeeded")
