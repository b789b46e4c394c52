"""Training runs in Dagster: started and inspected through the GraphQL API of its web server."""

import asyncio
from datetime import datetime
from typing import Any, Literal

import httpx
from pydantic import BaseModel, Field

from music_assets.service.dagster_api import DagsterApi, checked, time_of
from music_assets.service.problems import ProblemError
from music_assets.tables import TRAIN_EMBEDDINGS

TIMEOUT_SECONDS = 20.0
REACHABLE_SECONDS = 2.0

State = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
STATES: dict[str, State] = {
    "QUEUED": "queued",
    "NOT_STARTED": "queued",
    "MANAGED": "queued",
    "STARTING": "queued",
    "STARTED": "running",
    "CANCELING": "cancelling",
    "SUCCESS": "succeeded",
    "FAILURE": "failed",
    "CANCELED": "cancelled",
}
"""The state that the service reports for each Dagster run status."""
UNFINISHED = [status for status, state in STATES.items() if state in ("queued", "running", "cancelling")]

FIND_UNFINISHED = """
query($filter: RunsFilter!) {
  runsOrError(filter: $filter, limit: 1) { __typename ... on Runs { results { runId status startTime endTime } } }
}"""
FIND_JOB = """
query {
  repositoriesOrError {
    __typename ... on RepositoryConnection { nodes { name location { name } jobs { name } } }
  }
}"""
LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId status startTime endTime } }
    ... on Error { message }
  }
}"""
SHOW = """
query($id: ID!) {
  runOrError(runId: $id) { __typename ... on Run { runId status startTime endTime jobName } }
}"""
MESSAGES = """
query($id: ID!) {
  logsForRun(runId: $id) {
    __typename ... on EventConnection { events { __typename ... on LogMessageEvent { message } } }
  }
}"""
REACHABLE = "query { version }"


class TrainingRun(BaseModel):
    """A run of the job train_embeddings."""

    run_id: str
    state: State
    started_at: datetime | None
    ended_at: datetime | None
    address: str = Field(description="Path under which the service reports this run.")
    web_ui: str = Field(description="URL of the run in the Dagster web UI.")


class TrainingRuns:
    """The runs of the job train_embeddings in Dagster.

    Every method raises ProblemError if Dagster cannot be reached or has not loaded the job.
    """

    def __init__(self, dagster: DagsterApi) -> None:
        self._dagster = dagster
        self._starting = asyncio.Lock()

    async def start(self) -> tuple[TrainingRun, bool]:
        """Return the unfinished run, or else start one. The second value is whether one was started."""
        async with self._starting, self._dagster.client(TIMEOUT_SECONDS) as client:
            unfinished = {"pipelineName": TRAIN_EMBEDDINGS, "statuses": UNFINISHED}
            answer = await self._dagster.query(client, FIND_UNFINISHED, filter=unfinished)
            found = checked(answer["runsOrError"], "Runs")
            if found["results"]:
                return self._training_run(found["results"][0]), False
            params = {"selector": await self._job_selector(client), "runConfigData": {}, "mode": "default"}
            answer = await self._dagster.query(client, LAUNCH, params=params)
            launched = checked(answer["launchRun"], "LaunchRunSuccess")
            return self._training_run(launched["run"]), True

    async def show(self, run_id: str) -> TrainingRun:
        """Return a run. Also raises ProblemError if there is no such run of the job."""
        async with self._dagster.client(TIMEOUT_SECONDS) as client:
            run = (await self._dagster.query(client, SHOW, id=run_id))["runOrError"]
        if run["__typename"] == "RunNotFoundError" or run.get("jobName", TRAIN_EMBEDDINGS) != TRAIN_EMBEDDINGS:
            raise ProblemError("not-found", "There is no training run with this id.")
        return self._training_run(checked(run, "Run"))

    async def last_message(self, run_id: str) -> str:
        """Return the last line that a run has logged, which shows its progress; empty if there is none."""
        async with self._dagster.client(TIMEOUT_SECONDS) as client:
            answer = await self._dagster.query(client, MESSAGES, id=run_id)
        events = checked(answer["logsForRun"], "EventConnection")["events"]
        messages = [event["message"] for event in events if event["__typename"] == "LogMessageEvent"]
        return messages[-1] if messages else ""

    async def check_reachable(self) -> None:
        """Raise ProblemError if Dagster cannot be reached."""
        async with self._dagster.client(REACHABLE_SECONDS) as client:
            await self._dagster.query(client, REACHABLE)

    def _training_run(self, run: dict[str, Any]) -> TrainingRun:
        return TrainingRun(
            run_id=run["runId"],
            state=STATES.get(run["status"], "queued"),
            started_at=time_of(run["startTime"]),
            ended_at=time_of(run["endTime"]),
            address=f"/embedding-runs/{run['runId']}",
            web_ui=self._dagster.run_url(run["runId"]),
        )

    async def _job_selector(self, client: httpx.AsyncClient) -> dict[str, str]:
        answer = await self._dagster.query(client, FIND_JOB)
        found = checked(answer["repositoriesOrError"], "RepositoryConnection")
        for repository in found["nodes"]:
            if any(job["name"] == TRAIN_EMBEDDINGS for job in repository["jobs"]):
                return {
                    "repositoryName": repository["name"],
                    "repositoryLocationName": repository["location"]["name"],
                    "jobName": TRAIN_EMBEDDINGS,
                }
        raise ProblemError("no-dagster", f"Dagster has not loaded the job {TRAIN_EMBEDDINGS}.")
