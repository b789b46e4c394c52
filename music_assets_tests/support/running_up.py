"""A running `music-assets up`: Dagster's web UI over GraphQL, the HTTP service, and the published tables."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from music_assets.data_root import DataRoot
from music_assets.runtime.ports import free_port
from music_assets.storage.published_snapshot import connect
from music_assets_tests.support.processes import BIN, clean_environment, process_tree, wait_until

RUNS = """{ runsOrError(filter: {pipelineName: "refresh_rankings"}) { ... on Runs { results { runId status } } } }"""
LOG = """query ($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events {
  ... on MessageEvent { message } } } } }"""
FINISHED = {"SUCCESS", "FAILURE", "CANCELED"}


@dataclass(frozen=True)
class RunningUp:
    """A running `music-assets up`; `web_ui` and `service` are URLs."""

    root: DataRoot
    process: subprocess.Popen[bytes]
    web_ui: str
    service: str
    log: Path

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """Return the data of a GraphQL query to Dagster."""
        response = httpx.post(f"{self.web_ui}/graphql", json={"query": query, "variables": variables}, timeout=30)
        body = response.raise_for_status().json()
        assert "errors" not in body, body
        return body["data"]

    def wait_for_run(self, number: int) -> str:
        """Wait until `number` runs of refresh_rankings have succeeded; return the id of the newest."""

        def finished() -> list[dict[str, str]] | None:
            runs = self.graphql(RUNS)["runsOrError"]["results"]
            return runs if len(runs) == number and all(run["status"] in FINISHED for run in runs) else None

        runs = wait_until(finished, f"run {number}", process=self.process, log=self.log)
        assert runs and {run["status"] for run in runs} == {"SUCCESS"}
        return runs[0]["runId"]

    def run_log(self, run_id: str) -> str:
        """Return all messages of a run."""
        events = self.graphql(LOG, run=run_id)["logsForRun"]["events"]
        return "\n".join(event["message"] for event in events if event.get("message"))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Query the newest snapshot directly."""
        with connect(self.root) as connection:
            return connection.execute(sql).fetchall()

    def is_ready(self) -> bool:
        """Return whether the web UI answers."""
        return answers(f"{self.web_ui}/server_info")


def answers(url: str) -> bool:
    """Return whether a GET request succeeds."""
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


@contextmanager
def running_up(
    root: DataRoot,
    folder: Path,
    command: Path = BIN / "music-assets",
    environment: Mapping[str, str] | None = None,
    **variables: str,
) -> Iterator[RunningUp]:
    """Run `music-assets up` in the folder, and kill it and its descendants in the end.

    `environment` replaces the environment without settings; `variables` are added to either.
    """
    web_ui, service = free_port(), free_port()
    variables = {"MUSIC_ASSETS_PORT": str(service), "MUSIC_ASSETS_SETTLE_SECONDS": "0.5", **variables}
    log = folder / "up.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [command, "up", "--port", str(web_ui)],
            cwd=folder,
            env={**(environment or clean_environment(root)), **variables},
            stdout=sink,
            stderr=sink,
        )
    up = RunningUp(root, process, f"http://127.0.0.1:{web_ui}", f"http://127.0.0.1:{service}", log)
    tree: list[psutil.Process] = []
    try:
        wait_until(up.is_ready, "an answer of the web UI", process=process, log=log)
        tree = process_tree(process.pid)
        yield up
    finally:
        for each in {*tree, *process_tree(process.pid)}:
            if each.is_running():
                each.kill()
        process.wait()
