"""Starts trainings of the embeddings in Dagster, and tells how they do, through the GraphQL API of its web server."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import httpx

from music_assets.service.problems import ProblemError
from music_assets.tables import TRAIN_EMBEDDINGS

SECONDS = 20.0
"""How long Dagster may take to answer."""

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
"""What each of Dagster's run states is called here."""
UNFINISHED = [name for name, state in STATES.items() if state in ("queued", "running", "cancelling")]

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


@dataclass(frozen=True)
class TrainingRun:
    """A run of the job, as Dagster tells it; the times are None for what has not happened yet."""

    run_id: str
    state: State
    started_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def told(cls, run: dict[str, Any]) -> "TrainingRun":
        """Read Dagster's answer."""
        return cls(run["runId"], STATES.get(run["status"], "queued"), _time(run["startTime"]), _time(run["endTime"]))


class TrainingRuns:
    """The runs of the job train_embeddings in the Dagster at this address.

    Every method raises ProblemError where Dagster cannot be reached or does not know the job.
    """

    def __init__(self, dagster_url: str) -> None:
        self.dagster_url = dagster_url.rstrip("/")
        self._starting = asyncio.Lock()

    async def start(self) -> tuple[TrainingRun, bool]:
        """Return the run that has not ended yet, or else start one; and whether one was started."""
        async with self._starting, self._client() as client:
            unfinished = {"pipelineName": TRAIN_EMBEDDINGS, "statuses": UNFINISHED}
            found = await self._ask(client, FIND_UNFINISHED, "runsOrError", "Runs", filter=unfinished)
            if found["results"]:
                return TrainingRun.told(found["results"][0]), False
            params = {"selector": await self._selector(client), "runConfigData": {}, "mode": "default"}
            launched = await self._ask(client, LAUNCH, "launchRun", "LaunchRunSuccess", params=params)
            return TrainingRun.told(launched["run"]), True

    async def show(self, run_id: str) -> TrainingRun:
        """Return the run. Raises ProblemError also where it is no run of this job."""
        async with self._client() as client:
            answer = await self._post(client, SHOW, id=run_id)
        run = answer["runOrError"]
        if run["__typename"] == "RunNotFoundError" or run.get("jobName", TRAIN_EMBEDDINGS) != TRAIN_EMBEDDINGS:
            raise ProblemError("not-found", "There is no training run of this id.")
        return TrainingRun.told(_expected(run, "Run"))

    async def _selector(self, client: httpx.AsyncClient) -> dict[str, str]:
        found = await self._ask(client, FIND_JOB, "repositoriesOrError", "RepositoryConnection")
        for repository in found["nodes"]:
            if any(job["name"] == TRAIN_EMBEDDINGS for job in repository["jobs"]):
                return {
                    "repositoryName": repository["name"],
                    "repositoryLocationName": repository["location"]["name"],
                    "jobName": TRAIN_EMBEDDINGS,
                }
        raise ProblemError("no-dagster", f"Dagster has not loaded the job {TRAIN_EMBEDDINGS}.")

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.dagster_url, timeout=SECONDS, trust_env=False)

    async def _ask(
        self, client: httpx.AsyncClient, query: str, field: str, kind: str, **variables: Any
    ) -> dict[str, Any]:
        return _expected((await self._post(client, query, **variables))[field], kind)

    async def _post(self, client: httpx.AsyncClient, query: str, **variables: Any) -> dict[str, Any]:
        try:
            response = await client.post("/graphql", json={"query": query, "variables": variables})
            body = response.raise_for_status().json()
            data: dict[str, Any] = body["data"]
            if body.get("errors") or data is None:
                raise ValueError(body.get("errors"))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            log.warning("Dagster at %s cannot be asked: %s: %s", self.dagster_url, type(error).__name__, error)
            raise ProblemError(
                "no-dagster", "Dagster does not answer, or not as expected.", {"Retry-After": "10"}
            ) from None
        return data


def _expected(answer: dict[str, Any], kind: str) -> dict[str, Any]:
    if answer["__typename"] != kind:
        log.warning("Dagster refused: %s %s", answer["__typename"], answer.get("message", ""))
        raise ProblemError("no-dagster", f"Dagster refused: {answer['__typename']}.", {"Retry-After": "10"})
    return answer


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
