"""Training runs without Dagster. With Dagster: see `end_to_end`."""

import pytest

from music_assets_tests.service.conftest import Dataset, Service, serving


def test_without_dagster(dataset: Dataset) -> None:
    with serving(dataset.root, query_workers=1) as service:
        for method, address in (
            ("POST", "/embedding-runs"),
            ("GET", "/embedding-runs/some-run"),
            ("GET", "/start_embedding_job"),
        ):
            response = service.http.request(method, address)
            assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
            assert "Dagster" in response.json()["detail"]
        assert "error" in response.json()


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_cross_site_requests_are_refused(service: Service, site: str) -> None:
    response = service.http.get("/start_embedding_job", headers={"Sec-Fetch-Site": site})
    assert response.status_code == 403
