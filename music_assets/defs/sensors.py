"""The sensors: `csv_drop_sensor` starts a refresh, `run_failure_alert` reports failed runs.

The pure function `decide` makes the decisions of `csv_drop_sensor`.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg

from music_assets.ingest.landing import DroppedFile, Landing
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import NothingPublishedError, newest_snapshot
from music_assets.tables import RAW_TABLES, REFRESH_RANKINGS, Table

DROP_SENSOR = "csv_drop_sensor"
WORK_TAG = "music_assets/work"
"""Run tag: a digest of the work that the run was started for, by which earlier attempts are found."""
WEBHOOK_SECONDS = 10
NAMED_FILES = 5
EARLY_SECONDS = 1
"""The daemon evaluates sensors every 5 s, often some milliseconds early. An interval of exactly 5 s would make it skip
every other tick."""
MAX_SETTLE_WAIT = 5.0
"""Seconds that a tick waits at most for new files to settle, instead of leaving them to the next tick."""
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
UNFINISHED = tuple(status for status in dg.DagsterRunStatus if status not in ENDED)


@dataclass(frozen=True)
class RetryPolicy:
    """Number of attempts for the same work, and seconds before the second one. Each further pause is twice as long."""

    max_attempts: int
    first_pause: float

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after that many failures."""
        return self.first_pause * 2 ** (failures - 1)


@dataclass(frozen=True)
class Work:
    """What a refresh would do: load waiting files, and publish raw tables that are newer than the published ones."""

    waiting: Mapping[Table, Sequence[DroppedFile]]
    unpublished: Mapping[Table, int]

    def __bool__(self) -> bool:
        return any(self.waiting.values()) or bool(self.unpublished)

    @property
    def digest(self) -> str:
        """A hash of this work, which changes when another file waits or another version is unpublished."""
        files = sorted(
            (table.name, file.name, file.size, file.modified_ns, file.inode)
            for table, files in self.waiting.items()
            for file in files
        )
        versions = sorted((table.name, version) for table, version in self.unpublished.items())
        return hashlib.sha256(json.dumps([files, versions]).encode()).hexdigest()[:16]

    @property
    def names(self) -> str:
        """The waiting files for a message: the first few names, and the number of the others."""
        names = [file.name for files in self.waiting.values() for file in files]
        more = f" and {len(names) - NAMED_FILES} more" if len(names) > NAMED_FILES else ""
        return ", ".join(names[:NAMED_FILES]) + more if names else "rows that are loaded but not published"


@dataclass(frozen=True)
class EndedRun:
    """A run for the same work: when it ended, in seconds since 1970, and whether it succeeded."""

    run_id: str
    ended: float
    succeeded: bool = False


def decide(
    work: Work,
    empty_tables: Mapping[Table, Path],
    unfinished_run: str | None,
    ended: Sequence[EndedRun],
    policy: RetryPolicy,
    now: float,
    ignored: Sequence[str] = (),
) -> dg.RunRequest | dg.SkipReason:
    """Decide whether a refresh starts now. A skip gives the reason and lists `ignored` files.

    `empty_tables` are the raw tables without rows and their drop folders; `ended` are the runs that ended for the same
    work, latest first.
    """
    more = f"; and {len(ignored) - NAMED_FILES} more" if len(ignored) > NAMED_FILES else ""
    listed = f" Ignored: {'; '.join(ignored[:NAMED_FILES])}{more}." if ignored else ""
    missing = [str(folder) for table, folder in empty_tables.items() if not work.waiting.get(table)]
    if missing:
        return dg.SkipReason(f"Waiting for the first complete CSV file in {' and '.join(missing)}.{listed}")
    if not work:
        return dg.SkipReason(f"No CSV file is waiting.{listed}")
    if unfinished_run:
        return dg.SkipReason(f"Run {unfinished_run} of {REFRESH_RANKINGS} has not ended yet.")
    reason = _reason_to_pause(work, ended, policy, now)
    if reason:
        return dg.SkipReason(reason)
    return dg.RunRequest(run_key=f"{work.digest}-{len(ended) + 1}", tags={WORK_TAG: work.digest})


def _reason_to_pause(work: Work, ended: Sequence[EndedRun], policy: RetryPolicy, now: float) -> str | None:
    """Return why the same work is not tried again yet, or None.

    Only failures since the last success count: a file that was loaded can return with the same name, size,
    modification time and inode.
    """
    if not ended:
        return None
    last = ended[0]
    same = len(list(takewhile(lambda run: run.succeeded == last.succeeded, ended)))
    if not last.succeeded and same >= policy.max_attempts:
        return (
            f"{REFRESH_RANKINGS} failed {same} times for {work.names} and will not be retried automatically. See run "
            f"{last.run_id} for the cause and fix it. Then launch {REFRESH_RANKINGS} by hand, or drop a corrected file."
        )
    wait = last.ended + policy.pause(min(same, policy.max_attempts)) - now
    if wait <= 0:
        return None
    if last.succeeded:
        return (
            f"Run {last.run_id} succeeded, but {work.names} is still waiting, or waiting again. The next run starts in "
            f"{wait:.0f} s. See the log of that run for files that could not be deleted."
        )
    attempt = f"Attempt {same + 1} of {policy.max_attempts}"
    return f"Run {last.run_id} failed for {work.names}. {attempt} starts in {wait:.0f} s."


def csv_drop_sensor(
    landing: Landing, store: DeltaStore, policy: RetryPolicy, interval_seconds: int
) -> dg.SensorDefinition:
    """Return the sensor that starts a refresh when CSV files are waiting."""

    @dg.sensor(
        name=DROP_SENSOR,
        job_name=REFRESH_RANKINGS,
        minimum_interval_seconds=interval_seconds - EARLY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Starts {REFRESH_RANKINGS} when complete CSV files are waiting in the drop folders.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        landing.root.prepare()
        work = Work(landing.complete_files(MAX_SETTLE_WAIT), _unpublished(store))
        return decide(
            work,
            {table: landing.root.drop_folder(table) for table in RAW_TABLES if not store.table_version(table).rows},
            _unfinished_run(context.instance),
            _ended_runs(context.instance, work.digest),
            policy,
            time.time(),
            [f"{table.name}/{entry}" for table in RAW_TABLES for entry in landing.ignored(table)],
        )

    return sensor


def _unpublished(store: DeltaStore) -> dict[Table, int]:
    try:
        shown = newest_snapshot(store.root).tables
    except NothingPublishedError:
        shown = {}
    versions = {table: store.table_version(table).version for table in RAW_TABLES}
    return {
        table: version
        for table, version in versions.items()
        if version > (shown[table.full_name].version if table.full_name in shown else -1)
    }


def _unfinished_run(instance: dg.DagsterInstance) -> str | None:
    runs = instance.get_runs(dg.RunsFilter(job_name=REFRESH_RANKINGS, statuses=list(UNFINISHED)), limit=1)
    return runs[0].run_id if runs else None


def _ended_runs(instance: dg.DagsterInstance, digest: str) -> list[EndedRun]:
    records = instance.get_run_records(dg.RunsFilter(tags={WORK_TAG: digest}, statuses=list(ENDED)))
    runs = [
        EndedRun(run.run_id, record.end_time or 0.0, run.status is dg.DagsterRunStatus.SUCCESS)
        for record in records
        for run in [record.dagster_run]
    ]
    return sorted(runs, key=lambda run: run.ended, reverse=True)


def run_failure_alert(webhook: str | None) -> dg.SensorDefinition:
    """Return the sensor that logs an alert for each failed run, and posts it to the webhook if one is set."""

    @dg.run_failure_sensor(
        name="run_failure_alert",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Logs a line that starts with ALERT: for each failed run; posts it to MUSIC_ASSETS_ALERT_WEBHOOK.",
    )
    def alert(context: dg.RunFailureSensorContext) -> None:
        line = alert_line(context.dagster_run, _causes(context) or context.failure_event.message or "no message")
        context.log.error(line)
        if webhook:
            _post(webhook, {"text": line, "job": context.dagster_run.job_name, "run_id": context.dagster_run.run_id})

    return alert


class AlertError(Exception):
    """The alert could not be posted. It is in the log."""


def _post(webhook: str, content: dict[str, str]) -> None:
    """Post to the webhook. Raises AlertError, without the address, since anyone who knows it can post there."""
    import httpx  # slow to import, and every run loads this module

    try:
        httpx.post(webhook, json=content, timeout=WEBHOOK_SECONDS, follow_redirects=True).raise_for_status()
    except httpx.HTTPStatusError as error:
        raise AlertError(f"The webhook answered with status {error.response.status_code}.") from None
    except httpx.HTTPError as error:
        raise AlertError(f"The webhook at {urlsplit(webhook).hostname} failed: {type(error).__name__}.") from None


def _causes(context: dg.RunFailureSensorContext) -> str:
    """Return the error of each failed step."""
    failed = [(event.step_key, event.step_failure_data.error) for event in context.get_step_failure_events()]
    return "; ".join(f"{step}: {(error.cause or error).message.strip()}" for step, error in failed if error)


def alert_line(run: dg.DagsterRun, message: str) -> str:
    """Return one line with the job, the run and the cause."""
    return f"ALERT: job {run.job_name} failed, run {run.run_id}: {' '.join(message.split())[:500]}"
