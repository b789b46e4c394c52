"""A training asked for over HTTP, run by a real Dagster, and then the vectors: all by `music-assets up`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from music_assets.data_root import DataRoot
from music_assets.runtime.ports import free_port
from music_assets.storage.published_snapshot import newest_snapshot
from music_assets_tests.support.training import drop, refresh

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 120


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with rankings, and without vectors."""
    with dg.DagsterInstance.ephemeral() as instance:
        drop(tmp_path / "data", 100)
        refresh(tmp_path / "data", instance)
    return tmp_path / "data"


@pytest.fixture
def http(root: Path, tmp_path: Path) -> Iterator[httpx.Client]:
    """The query service of a running `music-assets up`."""
    service, web_ui = free_port(), free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER")}
    environment |= {"PYTHONPATH": str(REPOSITORY), "MUSIC_ASSETS_DATA": str(root), "MUSIC_ASSETS_PORT": str(service)}
    with (tmp_path / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "music_assets", "up", "--port", str(web_ui)],
            cwd=REPOSITORY, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{service}", timeout=30, trust_env=False) as client:
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def wait_for(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if answer := found():
                return answer
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    return pytest.fail(f"it did not happen within {PATIENCE} s")


def test_two_requests_start_one_training_whose_vectors_then_answer(http: httpx.Client, root: Path) -> None:
    def post(_: int) -> httpx.Response | None:
        response = http.post("/embedding-runs")
        return response if response.status_code == 202 else None

    wait_for(lambda: http.get("/readyz").status_code == 200)
    assert http.get("/artists/Drake/similar").status_code == 409
    wait_for(lambda: http.get("/embedding-runs/no-such-run").status_code == 404)
    before = newest_snapshot(DataRoot(root)).data_version

    with ThreadPoolExecutor(2) as callers:
        answers = [answer.json() for answer in callers.map(lambda number: wait_for(lambda: post(number)), range(2))]
    old = http.get("/start_embedding_job")
    run_ids = {answer["run_id"] for answer in (*answers, old.json())}
    assert old.status_code == 202
    assert len(run_ids) == 1
    (run_id,) = run_ids
    assert old.headers["location"] == answers[0]["address"] == f"/embedding-runs/{run_id}"
    assert answers[0]["web_ui"].endswith(f"/runs/{run_id}")
    assert answers[0]["state"] in ("queued", "running")

    run = wait_for(lambda: _ended(http.get(answers[0]["address"]).json()))
    assert run["state"] == "succeeded"
    assert run["started_at"] < run["ended_at"]
    assert newest_snapshot(DataRoot(root)).data_version > before
    assert len(http.get("/artists/Drake/similar?k=3").json()["rows"]) == 3


def _ended(run: dict[str, Any]) -> dict[str, Any] | None:
    return run if run["state"] in ("succeeded", "failed", "cancelled") else None
