"""The page of the pipeline: without Dagster, and with a running `music-assets up`."""

import re
from pathlib import Path

import dagster as dg
import httpx
from playwright.sync_api import Browser, expect

from music_assets.data_root import DataRoot
from music_assets.service.auth import create_api_key
from music_assets.service.explorer.rendering import artist_url
from music_assets.tables import USER_DATA
from music_assets_tests.service.conftest import Dataset, serving
from music_assets_tests.service.explorer.conftest import opening_pages
from music_assets_tests.service.explorer.test_browser import check
from music_assets_tests.service.explorer.test_pages import text
from music_assets_tests.support.processes import wait_until
from music_assets_tests.support.running_up import answers, running_up
from music_assets_tests.support.training import drop, refresh

TRAINING_SECONDS = 120
LOG_LINE = re.compile(r"\d users, |of \d+ passes|ridge regression: round")


def test_files_and_rejects_are_shown_without_dagster(dataset: Dataset) -> None:
    folder = DataRoot(dataset.root).drop_folder(USER_DATA)
    folder.mkdir(parents=True)
    (folder / "<i>users.csv").write_text("user_id,country,total_scrobbles\n", encoding="utf-8")
    (folder / "notes.txt").touch()
    with serving(dataset.root, query_workers=1, dagster_url="http://someone:secret@127.0.0.1:9") as service:
        page, status = service.http.get("/pipeline"), service.http.get("/pipeline/status")
    for response in (page, status):
        assert "<i>users.csv user_data 32 " in text(response)
        assert "notes.txt user_data Will not be loaded: its name ends neither" in text(response)
        assert "secret" not in response.text
    assert "Dagster cannot be reached at http://127.0.0.1:9" in text(status)
    assert "No file has been loaded yet." in text(status)  # the rows of this dataset come from no file


def test_refresh_and_training_are_followed_in_the_browser(browser: Browser, tmp_path: Path) -> None:
    root = DataRoot(tmp_path / "data")
    with dg.DagsterInstance.ephemeral() as instance:
        drop(root.path, 100)
        refresh(root.path, instance)
    with running_up(root, tmp_path) as up:
        wait_until(lambda: answers(f"{up.service}/readyz"), "an answer of the service", process=up.process, log=up.log)
        drop(root.path, 120, seed=1)
        run_id = up.wait_for_run(1)
        with opening_pages(browser, up.service) as open_page:
            page = open_page("/pipeline")
            expect(page.locator(f"a[href='{up.web_ui}/runs/{run_id}']")).to_be_visible()
            expect(page.get_by_role("row").filter(has_text="success")).to_contain_text(re.compile(r"\.csv, "))
            expect(page.get_by_role("heading", name="Checks that warn or fail")).to_be_visible()
            check(page)
            page.goto(artist_url("Drake"))
            page.get_by_role("button", name="Train the embeddings").click()
            expect(page.get_by_text("The training is")).to_be_visible()
            # What the page asks for every two seconds. A small training may have ended by then.
            progress = up.service + str(page.get_by_role("status").get_attribute("hx-get"))
            wait_until(lambda: LOG_LINE.search(httpx.get(progress, timeout=30).text), "a line of the log", log=up.log)
            expect(page.get_by_text("The training has succeeded.")).to_be_visible(timeout=TRAINING_SECONDS * 1000)
            page.get_by_role("link", name="Reload the page").click()
            expect(page.locator("#similar li")).to_have_count(12)
            check(page)
            page.goto("/explore/map")
            expect(page.locator("#map canvas")).to_be_visible(timeout=TRAINING_SECONDS * 1000)


def test_training_is_offered_only_with_dagster(browser: Browser, dataset: Dataset) -> None:
    with (
        serving(dataset.root, query_workers=1) as service,
        opening_pages(browser, service.url) as open_page,
    ):
        for address in (artist_url("Drake"), "/explore/map"):
            page = open_page(address)
            expect(page.get_by_text("Dagster cannot be reached.")).to_be_visible()
            expect(page.get_by_role("button", name="Train the embeddings")).to_have_count(0)
            check(page)
        started = service.http.post("/explore/training")
        assert (started.status_code, "Dagster cannot be reached" in text(started)) == (503, True)


def test_key_opens_pages_console_and_closes_them_again(browser: Browser, dataset: Dataset) -> None:
    key, entry = create_api_key("someone", ["read"])
    with (
        serving(dataset.root, query_workers=1, api_keys=entry) as service,
        opening_pages(browser, service.url) as open_page,
    ):
        page = open_page("/sql#query=SELECT+42")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        check(page)
        page.get_by_label("API key").fill(key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("SQL")
        expect(page.locator("#result td")).to_have_text("42")
        assert key not in page.url
        assert page.evaluate("document.cookie") == ""
        check(page)
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        page.goto(artist_url("Drake"))
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
