"""Training runs in Dagster: started and inspected through the GraphQL API of its web server."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any, Literal

import httpx
from pydantic import BaseModel, Field

from music_assets.service.problems import ProblemError
from music_assets.tables import TRAIN_EMBEDDINGS

TIMEOUT_SECONDS = 20.0

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

log = logging.getLogger(__name__)


class TrainingRun(BaseModel):
    """A run of the job train_embeddings."""

    run_id: str
    state: State
    started_at: datetime | None
    ended_at: datetime | None
    address: str = Field(description="Path under which the service reports this run.")
    web_ui: str = Field(description="URL of the run in the Dagster web UI.")


class TrainingRuns:
    """The runs of the job train_embeddings in the Dagster instance at this URL.

    Every method raises ProblemError if Dagster cannot be reached or has not loaded the job.
    """

    def __init__(self, dagster_url: str) -> None:
        self._dagster_url = dagster_url.rstrip("/")
        self._starting = asyncio.Lock()

    async def start(self) -> tuple[TrainingRun, bool]:
        """Return the unfinished run, or else start one. The second value is whether one was started."""
        async with self._starting, self._client() as client:
            unfinished = {"pipelineName": TRAIN_EMBEDDINGS, "statuses": UNFINISHED}
            found = await self._query(client, FIND_UNFINISHED, "runsOrError", "Runs", filter=unfinished)
            if found["results"]:
                return self._training_run(found["results"][0]), False
            params = {"selector": await self._job_selector(client), "runConfigData": {}, "mode": "default"}
            launched = await self._query(client, LAUNCH, "launchRun", "LaunchRunSuccess", params=params)
            return self._training_run(launched["run"]), True

    async def show(self, run_id: str) -> TrainingRun:
        """Return a run. Also raises ProblemError if there is no such run of the job."""
        async with self._client() as client:
            run = (await self._post(client, SHOW, id=run_id))["runOrError"]
        if run["__typename"] == "RunNotFoundError" or run.get("jobName", TRAIN_EMBEDDINGS) != TRAIN_EMBEDDINGS:
            raise ProblemError("not-found", "There is no training run with this id.")
        return self._training_run(_checked(run, "Run"))

    def _training_run(self, run: dict[str, Any]) -> TrainingRun:
        return TrainingRun(
            run_id=run["runId"],
            state=STATES.get(run["status"], "queued"),
            started_at=_time(run["startTime"]),
            ended_at=_time(run["endTime"]),
            address=f"/embedding-runs/{run['runId']}",
            web_ui=f"{self._dagster_url}/runs/{run['runId']}",
        )

    async def _job_selector(self, client: httpx.AsyncClient) -> dict[str, str]:
        found = await self._query(client, FIND_JOB, "repositoriesOrError", "RepositoryConnection")
        for repository in found["nodes"]:
            if any(job["name"] == TRAIN_EMBEDDINGS for job in repository["jobs"]):
                return {
                    "repositoryName": repository["name"],
                    "repositoryLocationName": repository["location"]["name"],
                    "jobName": TRAIN_EMBEDDINGS,
                }
        raise ProblemError("no-dagster", f"Dagster has not loaded the job {TRAIN_EMBEDDINGS}.")

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._dagster_url, timeout=TIMEOUT_SECONDS, trust_env=False)

    async def _query(
        self, client: httpx.AsyncClient, query: str, field: str, expected_type: str, **variables: Any
    ) -> dict[str, Any]:
        return _checked((await self._post(client, query, **variables))[field], expected_type)

    async def _post(self, client: httpx.AsyncClient, query: str, **variables: Any) -> dict[str, Any]:
        try:
            response = await client.post("/graphql", json={"query": query, "variables": variables})
            body = response.raise_for_status().json()
            data: dict[str, Any] = body["data"]
            if body.get("errors") or data is None:
                raise ValueError(body.get("errors"))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            log.warning("No valid response from Dagster at %s: %s: %s", self._dagster_url, type(error).__name__, error)
            raise ProblemError(
                "no-dagster", "Dagster cannot be reached, or its response is invalid.", {"Retry-After": "10"}
            ) from None
        return data


def _checked(content: dict[str, Any], expected_type: str) -> dict[str, Any]:
    if content["__typename"] != expected_type:
        log.warning("Dagster returned %s: %s", content["__typename"], content.get("message", ""))
        raise ProblemError("no-dagster", f"Dagster returned {content['__typename']}.", {"Retry-After": "10"})
    return content


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
