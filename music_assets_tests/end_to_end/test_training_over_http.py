"""A training that is requested over HTTP and run by Dagster, and its vectors, on a running `music-assets up`."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from music_assets.data_root import DataRoot
from music_assets.storage.published_snapshot import newest_snapshot
from music_assets_tests.support.processes import wait_until
from music_assets_tests.support.running_up import running_up
from music_assets_tests.support.training import drop, refresh


@pytest.fixture
def http(root: DataRoot, tmp_path: Path) -> Iterator[httpx.Client]:
    """Return a client of the service on a data root with rankings and without vectors."""
    with dg.DagsterInstance.ephemeral() as instance:
        drop(root.path, 100)
        refresh(root.path, instance)
    with running_up(root, tmp_path) as up, httpx.Client(base_url=up.service, timeout=30, trust_env=False) as client:
        yield client


def response_when(condition: Callable[[httpx.Response], bool], request: Callable[[], httpx.Response]) -> httpx.Response:
    """Repeat the request until the response fulfils the condition."""

    def found() -> httpx.Response | None:
        try:
            response = request()
        except httpx.TransportError:
            return None
        return response if condition(response) else None

    response = wait_until(found, "the response")
    assert response is not None
    return response


def has_status(status: int) -> Callable[[httpx.Response], bool]:
    return lambda response: response.status_code == status


def test_two_requests_start_one_training_whose_vectors_are_served(http: httpx.Client, root: DataRoot) -> None:
    response_when(has_status(200), lambda: http.get("/readyz"))
    assert http.get("/artists/Drake/similar").status_code == 409
    response_when(has_status(404), lambda: http.get("/embedding-runs/no-such-run"))
    before = newest_snapshot(root).data_version

    def request_training(_: int) -> dict[str, Any]:
        return response_when(has_status(202), lambda: http.post("/embedding-runs")).json()

    with ThreadPoolExecutor(2) as callers:
        accepted = list(callers.map(request_training, range(2)))
    legacy = http.get("/start_embedding_job")
    assert legacy.status_code == 202
    (run_id,) = {each["run_id"] for each in (*accepted, legacy.json())}
    assert legacy.headers["location"] == accepted[0]["address"] == f"/embedding-runs/{run_id}"
    assert accepted[0]["web_ui"].endswith(f"/runs/{run_id}")
    assert accepted[0]["state"] in ("queued", "running")

    run = response_when(
        lambda response: response.json()["state"] in ("succeeded", "failed", "cancelled"),
        lambda: http.get(accepted[0]["address"]),
    ).json()
    assert run["state"] == "succeeded"
    assert run["started_at"] < run["ended_at"]
    assert newest_snapshot(root).data_version > before
    assert len(http.get("/artists/Drake/similar?k=3").json()["rows"]) == 3
