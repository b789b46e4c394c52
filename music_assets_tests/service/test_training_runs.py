"""Who may start a training over HTTP, and what is said where Dagster is not there. With Dagster: see end_to_end."""

import pytest

from music_assets_tests.service.conftest import World, serving


def test_without_dagster_the_answer_says_so(world: World) -> None:
    with serving(world.root, query_workers=1, dagster_url="http://127.0.0.1:9") as service:
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
def test_pages_of_other_sites_start_nothing(world: World, site: str) -> None:
    """A browser on this machine sends what any page asks it to; it marks such requests."""
    with serving(world.root, query_workers=1) as service:
        response = service.http.get("/start_embedding_job", headers={"Sec-Fetch-Site": site})
    assert response.status_code == 403


def test_trainings_need_a_key_where_there_are_keys(world: World) -> None:
    with serving(world.root, query_workers=1, api_keys=f"ann:{'0' * 64}") as service:
        for method, address in (
            ("POST", "/embedding-runs"),
            ("GET", "/embedding-runs/some-run"),
            ("GET", "/start_embedding_job"),
            ("GET", "/artists/Drake/similar"),
            ("GET", "/users/1/similar"),
            ("GET", "/users/1/recommendations"),
        ):
            assert service.http.request(method, address).status_code == 401
