"""The sensors: when a refresh starts, and who hears of a run that failed.

What `csv_drop_sensor` decides is a pure function of what it sees: `decide`.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from urllib.parse import urlsplit

import dagster as dg

from music_assets.ingest.landing import DroppedFile, Landing
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import NothingPublishedError, newest_snapshot
from music_assets.tables import RAW_TABLES, REFRESH_RANKINGS, Table

DROP_SENSOR = "csv_drop_sensor"
WORK_TAG = "music_assets/work"
"""Tag of a run: a digest of the work it was started for, by which its failed predecessors are found."""
WEBHOOK_SECONDS = 10
NAMED_FILES = 5
EARLY_SECONDS = 1
"""The daemon comes by every 5 s, often some milliseconds early: asked for a tick every 5 s, it skipped every other."""
LONGEST_WAIT = 5.0
"""Seconds a tick waits for fresh files to settle at most, rather than leave them to the next tick."""
UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@dataclass(frozen=True)
class RetryPolicy:
    """How often a refresh is tried for the same work, and the pause before the second attempt in seconds.

    Each further pause is twice the one before.
    """

    max_attempts: int = 5
    first_pause: float = 30.0

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after that many failures."""
        return self.first_pause * 2 ** (failures - 1)


@dataclass(frozen=True)
class Work:
    """What there is to do: complete files that wait, and raw tables that are newer than what is published."""

    waiting: Mapping[Table, Sequence[DroppedFile]]
    unpublished: Mapping[Table, int]

    def __bool__(self) -> bool:
        return any(self.waiting.values()) or bool(self.unpublished)

    @property
    def digest(self) -> str:
        """A short name of this work: the same as long as nothing else waits."""
        files = sorted(
            (table.name, file.name, file.size, file.modified_ns, file.inode)
            for table, files in self.waiting.items()
            for file in files
        )
        versions = sorted((table.name, version) for table, version in self.unpublished.items())
        return hashlib.sha256(json.dumps([files, versions]).encode()).hexdigest()[:16]

    @property
    def names(self) -> str:
        """The waiting files for a message, the first few by name."""
        names = [file.name for files in self.waiting.values() for file in files]
        more = f" and {len(names) - NAMED_FILES} more" if len(names) > NAMED_FILES else ""
        return ", ".join(names[:NAMED_FILES]) + more if names else "rows that were taken but not published"


@dataclass(frozen=True)
class EndedRun:
    """A run for the same work, when it ended (seconds since 1970), and whether it succeeded."""

    run_id: str
    ended: float
    succeeded: bool = False


def decide(
    work: Work,
    tables_with_data: Sequence[Table],
    unfinished_run: str | None,
    earlier: Sequence[EndedRun],
    policy: RetryPolicy,
    now: float,
    ignored: Sequence[str] = (),
) -> dg.RunRequest | dg.SkipReason:
    """Decide whether a refresh starts now; a skip says what it is waiting for, and what is `ignored`.

    `earlier` are the runs that ended for this very work, the latest first. Failures count from the last success on: a
    file that was taken can come back with the same name, size, modification time and inode.
    """
    failures = list(takewhile(lambda run: not run.succeeded, earlier))
    lacking = [table for table in RAW_TABLES if table not in tables_with_data and not work.waiting.get(table)]
    if lacking:
        folders = " and ".join(f"user_data/{table.name}" for table in lacking)
        return dg.SkipReason(f"Waiting for the first complete CSV file in {folders}.")
    if not work:
        return dg.SkipReason(f"No CSV file is waiting.{_not_looked_at(ignored)}")
    if unfinished_run:
        return dg.SkipReason(f"Run {unfinished_run} of {REFRESH_RANKINGS} has not ended yet.")
    if len(failures) >= policy.max_attempts:
        return dg.SkipReason(
            f"{REFRESH_RANKINGS} failed {len(failures)} times for {work.names}; it is not tried again by itself. "
            f"See run {failures[0].run_id} for the cause, mend it, then launch {REFRESH_RANKINGS} by hand, "
            "or drop a mended file."
        )
    if failures:
        wait = failures[0].ended + policy.pause(len(failures)) - now
        if wait > 0:
            return dg.SkipReason(
                f"Run {failures[0].run_id} failed for {work.names}. Attempt {len(failures) + 1} of "
                f"{policy.max_attempts} starts in {wait:.0f} s."
            )
    if earlier and not failures:
        repeated = len(list(takewhile(lambda run: run.succeeded, earlier)))
        wait = earlier[0].ended + policy.pause(min(repeated, policy.max_attempts)) - now
        if wait > 0:
            return dg.SkipReason(
                f"Run {earlier[0].run_id} succeeded, and {work.names} is still there, or there again. The next run "
                f"starts in {wait:.0f} s. See that run's log for files that cannot be removed."
            )
    return dg.RunRequest(run_key=f"{work.digest}-{len(earlier) + 1}", tags={WORK_TAG: work.digest})


def _not_looked_at(ignored: Sequence[str]) -> str:
    return f" Not looked at, as only regular files are: {'; '.join(ignored[:NAMED_FILES])}." if ignored else ""


def csv_drop_sensor(
    landing: Landing, store: DeltaStore, policy: RetryPolicy, interval_seconds: int
) -> dg.SensorDefinition:
    """Return the sensor that requests a refresh when CSV files wait."""

    @dg.sensor(
        name=DROP_SENSOR,
        job_name=REFRESH_RANKINGS,
        minimum_interval_seconds=interval_seconds - EARLY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Starts {REFRESH_RANKINGS} when complete CSV files wait in the drop folders.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        landing.root.prepare()
        landing.wait_until_settled(LONGEST_WAIT)
        work = Work(landing.complete_files(), _unpublished(store))
        return decide(
            work,
            [table for table in RAW_TABLES if store.table_version(table).rows],
            _unfinished_run(context.instance),
            _ended_runs(context.instance, work.digest),
            policy,
            time.time(),
            [entry for table in RAW_TABLES for entry in landing.ignored(table)],
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
    """Return the sensor that writes an alert line for each failed run, and posts it to the webhook if there is one."""

    @dg.run_failure_sensor(
        name="run_failure_alert",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Writes an alert line for each run that failed, and posts it to MUSIC_ASSETS_ALERT_WEBHOOK.",
    )
    def alert(context: dg.RunFailureSensorContext) -> None:
        line = alert_line(context.dagster_run, _causes(context) or context.failure_event.message or "no message")
        context.log.error(line)
        if webhook:
            _post(webhook, {"text": line, "job": context.dagster_run.job_name, "run_id": context.dagster_run.run_id})

    return alert


def _post(webhook: str, content: dict[str, str]) -> None:
    """Post to the webhook. Raises AlertError, without the address: whoever knows it may post to it."""
    import requests  # only for this: every run loads this module, and seldom one fails

    try:
        requests.post(webhook, json=content, timeout=WEBHOOK_SECONDS).raise_for_status()
    except requests.HTTPError as error:
        raise AlertError(f"The webhook answered with status {error.response.status_code}.") from None
    except requests.RequestException as error:
        raise AlertError(f"The webhook of {urlsplit(webhook).hostname} failed: {type(error).__name__}.") from None


class AlertError(Exception):
    """The alert could not be posted; its line stands in the log all the same."""


def _causes(context: dg.RunFailureSensorContext) -> str:
    """Return for each step that failed what was raised in it."""
    failed = [(event.step_key, event.step_failure_data.error) for event in context.get_step_failure_events()]
    return "; ".join(f"{step}: {(error.cause or error).message.strip()}" for step, error in failed if error)


def alert_line(run: dg.DagsterRun, message: str) -> str:
    """Return one line that tells which job failed, why, and where to look."""
    return f"ALERT: job {run.job_name} failed, run {run.run_id}: {' '.join(message.split())[:500]}"
