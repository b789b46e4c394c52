"""What the pipeline has done: loaded files from the tables' logs, runs and failed checks from Dagster."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from music_assets.data_root import DataRoot
from music_assets.ingest.object_landing import open_landing
from music_assets.service.dagster_api import DagsterApi, checked, time_of
from music_assets.storage.delta import DeltaStore
from music_assets.storage.lineage import FILES
from music_assets.tables import RAW_TABLES, REFRESH_RANKINGS

TIMEOUT_SECONDS = 5.0
RECENT_COMMITS = 20
"""Commits of each raw table that are searched for loaded files."""

RECENT = """
query($runs: RunsFilter!, $count: Int!) {
  runsOrError(filter: $runs, limit: $count) {
    __typename ... on Runs { results { runId status startTime endTime } }
  }
  assetNodes {
    assetKey { path }
    assetChecksOrError {
      ... on AssetChecks {
        checks {
          name
          executionForLatestMaterialization { runId evaluation { success severity description } }
        }
      }
    }
  }
}"""


@dataclass(frozen=True)
class WaitingFile:
    """A CSV file in a drop folder, with its size in bytes. `problem` says why it will not be loaded, if so."""

    table: str
    name: str
    size: int | None = None
    dropped_at: datetime | None = None
    problem: str = ""


@dataclass(frozen=True)
class LoadedFile:
    """A CSV file that was loaded, with its numbers of rows."""

    table: str
    name: str
    rows: int
    rejects: int
    ingested_at: datetime


@dataclass(frozen=True)
class Run:
    """A run of the job refresh_rankings. `state` is the Dagster status in lower case."""

    state: str
    url: str
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def seconds(self) -> float | None:
        """The duration, if the run has ended."""
        return (self.ended_at - self.started_at).total_seconds() if self.started_at and self.ended_at else None

    def has_loaded(self, file: LoadedFile) -> bool:
        """Return whether the run has loaded a file. Only one run loads files at a time."""
        return self.started_at is not None and self.started_at <= file.ingested_at <= (
            self.ended_at or file.ingested_at
        )


@dataclass(frozen=True)
class FailedCheck:
    """An asset check that failed at the latest materialization. It is `blocking` if it stopped the publication."""

    asset: str
    name: str
    blocking: bool
    description: str
    url: str


class Refreshes:
    """The drops, refreshes and checks of a data root."""

    def __init__(self, root: DataRoot, dagster: DagsterApi) -> None:
        self._root = root
        self._dagster = dagster

    @property
    def web_ui(self) -> str:
        """The URL of the Dagster web UI."""
        return self._dagster.web_ui

    def waiting_files(self) -> list[WaitingFile]:
        """Return what is in the drop folders. Raises OSError."""
        landing = open_landing(self._root)
        waiting = [
            WaitingFile(table.name, file.name, file.size, datetime.fromtimestamp(file.modified_ns / 1e9, UTC))
            for table in landing.tables
            for file in landing.files(table)
        ]
        ignored = [(table.name, *each.split(": ", 1)) for table in landing.tables for each in landing.ignored(table)]
        return waiting + [WaitingFile(table, name, problem=problem) for table, name, problem in ignored]

    def loaded_files(self, count: int) -> list[LoadedFile]:
        """Return the files that were loaded last, newest first."""
        store = DeltaStore(self._root)
        files = [
            _loaded_file(table.name, file)
            for table in RAW_TABLES
            for commit in store.commit_metadata(table, FILES, store.table_version(table).version - RECENT_COMMITS)
            for file in commit
            if "ingested_at" in file
        ]
        return sorted(files, key=lambda file: file.ingested_at, reverse=True)[:count]

    async def runs_and_failed_checks(self, count: int) -> tuple[list[Run], list[FailedCheck]]:
        """Return the last runs, newest first, and the checks that failed. Raises ProblemError without Dagster."""
        runs = {"pipelineName": REFRESH_RANKINGS}
        async with self._dagster.client(TIMEOUT_SECONDS) as client:
            answer = await self._dagster.query(client, RECENT, runs=runs, count=count)
        checks = [
            (node["assetKey"]["path"], check)
            for node in answer["assetNodes"]
            for check in node["assetChecksOrError"].get("checks", ())
        ]
        found = [self._run(run) for run in checked(answer["runsOrError"], "Runs")["results"]]
        return found, [self._failed_check(path, check) for path, check in checks if _is_failed(check)]

    def _run(self, run: Mapping[str, Any]) -> Run:
        url = self._dagster.run_url(run["runId"])
        return Run(run["status"].lower(), url, time_of(run["startTime"]), time_of(run["endTime"]))

    def _failed_check(self, path: list[str], check: Mapping[str, Any]) -> FailedCheck:
        evaluation = check["executionForLatestMaterialization"]["evaluation"]
        return FailedCheck(
            asset=path[-1],
            name=check["name"],
            blocking=evaluation["severity"] == "ERROR",
            description=evaluation["description"] or "",
            url=f"{self.web_ui}/assets/{'/'.join(path)}?view=checks&checkDetail={check['name']}",
        )


def _loaded_file(table: str, file: Mapping[str, Any]) -> LoadedFile:
    return LoadedFile(table, file["name"], file["rows"], file["rejects"], _utc(file["ingested_at"]))


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _is_failed(check: Mapping[str, Any]) -> bool:
    evaluation = (check["executionForLatestMaterialization"] or {}).get("evaluation")
    return evaluation is not None and not evaluation["success"]
