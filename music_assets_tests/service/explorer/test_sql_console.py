"""The SQL console in Chromium."""

import io
import re
from pathlib import Path
from urllib.parse import urlencode

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Page, expect

from music_assets_tests.service.conftest import Dataset, Service, serving
from music_assets_tests.service.explorer.conftest import OpenPage, context_of, opening_pages
from music_assets_tests.service.explorer.test_browser import check

HOSTILE_RESULT = (
    """SELECT '<img src=x onerror="document.title = 1">' AS "<b onclick=alert(1)>bold</b>", NULL AS "none" """
)


def address(sql: str) -> str:
    return f"/sql#{urlencode({'query': sql})}"


def type_sql(page: Page, sql: str) -> None:
    expect(page.get_by_role("button", name="Run")).to_be_enabled()
    page.locator(".cm-content").focus()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(sql)


def rows(page: Page) -> list[list[str]]:
    return [row.locator("td").all_inner_texts() for row in page.locator("#result tbody tr").all()]


def test_query_is_typed_completed_and_run_with_the_keyboard(open_page: OpenPage) -> None:
    page = open_page("/sql")
    type_sql(page, "SELECT count(*) AS n FROM ")
    page.keyboard.type("rej")
    expect(page.locator(".cm-tooltip-autocomplete li").first).to_have_text("rejected_rows")
    page.wait_for_timeout(100)  # CodeMirror ignores Enter right after it has opened the list
    page.keyboard.press("Enter")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("1 row in")
    assert rows(page) == [["1"]]
    check(page)


def test_result_is_sorted_as_numbers_and_names_stay_text(open_page: OpenPage) -> None:
    page = open_page(address("SELECT unnest([10, 9, 100]) AS value"))
    expect(page.locator("#result tbody tr")).to_have_count(3)
    page.get_by_role("button", name="value: Activate to sort").press("Enter")
    assert rows(page) == [["9"], ["10"], ["100"]]
    type_sql(page, HOSTILE_RESULT)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#result th").first).to_have_text("<b onclick=alert(1)>bold</b>")
    assert rows(page) == [['<img src=x onerror="document.title = 1">', "NULL"]]
    assert page.locator("#result img, #result th b").count() == 0


def test_truncated_result_says_so(open_page: OpenPage) -> None:
    page = open_page(address("SELECT range FROM range(20_000)"))
    expect(page.locator("#status")).to_contain_text("10,000 rows")
    expect(page.locator("#status")).to_contain_text("The result is truncated")
    empty = open_page(address("SELECT 1 AS one WHERE false"))
    expect(empty.locator("#result")).to_contain_text("The query returned no rows.")


def test_error_is_marked_at_its_place(browser: Browser, explorer: Service) -> None:
    with context_of(browser, explorer.url) as page:
        page.goto(address("SELECT '𝄞',\n  contry FROM rejected_rows"))
        expect(page.get_by_role("alert")).to_contain_text("line 2, column 3")
        expect(page.locator(".cm-lintRange-error")).to_have_text("contry")
        check(page)
        type_sql(page, "SELECT 1")
        page.keyboard.press("Control+Enter")
        expect(page.get_by_role("alert")).to_be_empty()


def test_link_and_history_bring_a_query_back(open_page: OpenPage) -> None:
    page = open_page("/sql")
    type_sql(page, "SELECT 42 AS answer -- & # % ü")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#result td")).to_have_text("42")
    shared = open_page(page.url.removeprefix(page.evaluate("location.origin")))
    expect(shared.locator(".cm-content")).to_have_text("SELECT 42 AS answer -- & # % ü")
    expect(shared.locator("#result td")).to_have_text("42")
    page.goto("/sql")
    page.locator("#history summary").click()
    page.get_by_role("button", name="SELECT 42").click()
    expect(page.locator(".cm-content")).to_have_text("SELECT 42 AS answer -- & # % ü")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_result_is_downloaded(open_page: OpenPage, form: str) -> None:
    page = open_page("/sql")
    type_sql(page, "SELECT 1 AS one, 'a,b' AS text")
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Download {form}").click()
    assert download.value.suggested_filename == f"result.{form}"
    content = Path(download.value.path()).read_bytes()
    if form == "csv":
        assert content.decode().split() == ['"one","text"', '1,"a,b"']
    else:
        assert pq.read_table(io.BytesIO(content)).to_pylist() == [{"one": 1, "text": "a,b"}]


def test_running_query_is_stopped(open_page: OpenPage) -> None:
    page = open_page("/sql")
    type_sql(page, "SELECT count(*) FROM range(10_000_000_000)")
    page.keyboard.press("Control+Enter")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_have_text("Stopped.")


def test_queries_of_the_deployment_are_listed(browser: Browser, dataset: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "queries.toml"
    file.write_text('[answer]\ntitle = "The <b>answer</b>"\nsql = "SELECT 42 AS answer"\n', encoding="utf-8")
    with serving(dataset.root, named_queries=file) as service, opening_pages(browser, service.url) as open_page:
        page = open_page("/sql")
        page.get_by_role("link", name="The <b>answer</b>").click()
        expect(page).to_have_url(re.compile("name=answer"))
        expect(page.locator(".cm-content")).to_have_text("SELECT 42 AS answer")
