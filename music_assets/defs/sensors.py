"""The sensors: `csv_drop_sensor` starts a refresh, `run_failure_alert` reports failed runs.

The pure function `decide` makes the decisions of `csv_drop_sensor`.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from urllib.parse import urlsplit

import dagster as dg

from music_assets.data_root import one_look
from music_assets.defs.assets.raw_tables import drop_folder_key
from music_assets.defs.checks import ACCEPT_ADVICE, ACCEPTABLE
from music_assets.defs.metadata import waiting_metadata
from music_assets.ingest.landing import DroppedFile, Landing
from music_assets.storage.delta import DeltaStore
from music_assets.storage.lineage import removed_rows
from music_assets.storage.published_snapshot import NothingPublishedError, newest_snapshot
from music_assets.tables import RAW_TABLES, REFRESH_RANKINGS, Table

DROP_SENSOR = "csv_drop_sensor"
WEBHOOK_SECONDS = 10
NAMED_FILES = 5
EARLY_SECONDS = 1
"""The daemon evaluates sensors every 5 s, often some milliseconds early. An interval of exactly 5 s would make it skip
every other tick."""
WATCH_SECONDS = 4.0
"""Seconds that a tick waits at most for a first file. The daemon would skip its next evaluation, 5 s after this one, if
the tick had not ended by then."""
MAX_SETTLE_WAIT = 5.0
"""Seconds that a tick waits at most for new files to settle, instead of leaving them to the next tick."""
CONSIDERED_RUNS = 50
"""Number of the newest runs among which earlier attempts are counted."""
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
    def files(self) -> frozenset[str]:
        """A hash of each waiting file."""
        return frozenset(
            _digest(table.name, file.name, file.size, file.modified_ns, file.inode)
            for table, files in self.waiting.items()
            for file in files
        )

    @property
    def digest(self) -> str:
        """A hash of this work, which changes when another file waits or another version is unpublished."""
        versions = sorted((table.name, version) for table, version in self.unpublished.items())
        return _digest(*sorted(self.files), *versions)

    @property
    def names(self) -> str:
        """The waiting files for a message: the first few names, and the number of the others."""
        names = [file.name for files in self.waiting.values() for file in files]
        more = f" and {len(names) - NAMED_FILES} more" if len(names) > NAMED_FILES else ""
        return ", ".join(names[:NAMED_FILES]) + more if names else "rows that are loaded but not published"


@dataclass(frozen=True)
class EndedRun:
    """A run for the same work: when it ended, in seconds since 1970, whether it succeeded, or which checks failed."""

    run_id: str
    ended: float
    succeeded: bool = False
    failed_checks: tuple[tuple[str, str], ...] = ()
    """Table and check of each blocking check that failed."""


@dataclass(frozen=True)
class Arrivals:
    """The cursor of the sensor: which files wait, and when the newest arrived, in seconds since 1970.

    Loading files changes the work that is left, but does not make it new: only what arrives does.
    """

    files: frozenset[str] = frozenset()
    newest: float = 0.0

    @classmethod
    def parse(cls, cursor: str | None) -> "Arrivals":
        """Return the arrivals that a cursor describes; none if it is of another release."""
        try:
            content = json.loads(cursor or "")
            return cls(frozenset(content["files"]), float(content["newest"]))
        except (ValueError, LookupError, TypeError):
            return cls()

    def __str__(self) -> str:
        return json.dumps({"files": sorted(self.files), "newest": self.newest})

    def updated(self, files: frozenset[str], now: float) -> "Arrivals":
        """Return the arrivals after these files were seen waiting."""
        return Arrivals(files, now if files - self.files else self.newest)


def decide(
    work: Work,
    empty_tables: Mapping[Table, str],
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
    return dg.RunRequest(run_key=f"{work.digest}-{len(ended) + 1}-{now:.0f}")


def _reason_to_pause(work: Work, ended: Sequence[EndedRun], policy: RetryPolicy, now: float) -> str | None:
    """Return why the same work is not tried again yet, or None.

    Only failures since the last success count. A failed check is final: the same rows would fail it again.
    """
    if not ended:
        return None
    last = ended[0]
    same = len(list(takewhile(lambda run: run.succeeded == last.succeeded, ended)))
    if last.failed_checks:
        return _after_failed_checks(last, work)
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


def _after_failed_checks(run: EndedRun, work: Work) -> str:
    listed = " and ".join(f"{check} of {table}" for table, check in run.failed_checks)
    acceptable = all(check in ACCEPTABLE for _, check in run.failed_checks)
    other = f"Fix the cause, then drop a corrected file or launch {REFRESH_RANKINGS} by hand."
    return (
        f"The check {listed} failed in run {run.run_id}, so nothing was published of {work.names}. It is not retried. "
        f"{ACCEPT_ADVICE if acceptable else other}"
    )


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
    @one_look()
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        landing.root.prepare()
        if context.last_sensor_start_time is not None:  # else someone tests the sensor, in the web UI for instance
            landing.wait_for_files(WATCH_SECONDS)
        work = Work(landing.complete_files(MAX_SETTLE_WAIT), unpublished_versions(store))
        now = time.time()
        earlier = Arrivals.parse(context.cursor)
        files = work.files
        if files != earlier.files:
            _observe(context.instance, work)
        arrivals = earlier.updated(files, now)
        context.update_cursor(str(arrivals))
        return decide(
            work,
            {
                table: landing.root.address(landing.root.drop_folder(table))
                for table in RAW_TABLES
                if _is_unused(store, table)
            },
            _unfinished_run(context.instance),
            _ended_runs(context.instance, arrivals.newest, _latest_commit(store, work)) if work else (),
            policy,
            now,
            [f"{table.name}/{entry}" for table in RAW_TABLES for entry in landing.ignored(table)],
        )

    return sensor


def _observe(instance: dg.DagsterInstance, work: Work) -> None:
    """Record what waits in each drop folder."""
    for table in RAW_TABLES:
        metadata = waiting_metadata(work.waiting.get(table, ()))
        instance.report_runless_asset_event(dg.AssetObservation(drop_folder_key(table), metadata=metadata))


def unpublished_versions(store: DeltaStore) -> dict[Table, int]:
    """Return the newest version of each raw table that is newer than the published one."""
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


def _is_unused(store: DeltaStore, table: Table) -> bool:
    """Return whether the table has no rows, unless they were removed on request: that must be published."""
    return not store.table_version(table).rows and not removed_rows(store, table)


def _unfinished_run(instance: dg.DagsterInstance) -> str | None:
    runs = instance.get_runs(dg.RunsFilter(job_name=REFRESH_RANKINGS, statuses=list(UNFINISHED)), limit=1)
    return runs[0].run_id if runs else None


def _latest_commit(store: DeltaStore, work: Work) -> float:
    """Return when the newest unpublished version was committed, in seconds since 1970; 0 without one."""
    return max((store.committed_at(table) for table in work.unpublished), default=0.0)


def _ended_runs(instance: dg.DagsterInstance, arrived: float, committed: float) -> list[EndedRun]:
    """Return the ended runs that had the chance to do all the work, latest first.

    These are the runs that started after the newest file arrived, provided that the latest ended after the newest
    commit: a commit since then, such as a retraction, is new work.
    """
    records = instance.get_run_records(
        dg.RunsFilter(job_name=REFRESH_RANKINGS, statuses=list(ENDED)), limit=CONSIDERED_RUNS
    )
    since = [each for each in records if (each.start_time or each.end_time or 0.0) >= arrived]
    since.sort(key=lambda each: each.end_time or 0.0, reverse=True)
    if not since or (since[0].end_time or 0.0) < committed:
        return []
    latest = since[0].dagster_run
    failed = _failed_checks(instance, latest.run_id) if latest.status is dg.DagsterRunStatus.FAILURE else []
    checks = tuple((each.asset_key.path[-1], each.check_name) for each in failed)
    runs = [
        EndedRun(each.dagster_run.run_id, each.end_time or 0.0, each.dagster_run.status is dg.DagsterRunStatus.SUCCESS)
        for each in since
    ]
    return [replace(runs[0], failed_checks=checks), *runs[1:]]


def _failed_checks(instance: dg.DagsterInstance, run_id: str) -> list[dg.AssetCheckEvaluation]:
    """Return the results of the blocking checks that failed in the run."""
    logs = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [entry.get_dagster_event().asset_check_evaluation_data for entry in logs]
    return [
        each for each in found if not each.passed and each.blocking and each.severity is dg.AssetCheckSeverity.ERROR
    ]


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


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


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
    """Return what each failed check found, and the error of each failed step."""
    checks = [
        f"{each.check_name} of {each.asset_key.path[-1]}: {each.description}"
        for each in _failed_checks(context.instance, context.dagster_run.run_id)
    ]
    failed = [(event.step_key, event.step_failure_data.error) for event in context.get_step_failure_events()]
    steps = [f"{step}: {(error.cause or error).message.strip()}" for step, error in failed if error]
    return "; ".join([*checks, *steps])


def alert_line(run: dg.DagsterRun, message: str) -> str:
    """Return one line with the job, the run and the cause."""
    return f"ALERT: job {run.job_name} failed, run {run.run_id}: {' '.join(message.split())[:500]}"
