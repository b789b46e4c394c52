"""The pages in Chromium: no violation of the security policy, accessible, usable by keyboard, names stay text."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from music_assets.service.explorer.rendering import artist_url, country_url, page_url
from music_assets_tests.service.conftest import Dataset, Service, serving
from music_assets_tests.service.explorer.conftest import HOSTILE, OpenPage, context_of, opening_pages
from music_assets_tests.service.test_strangers import BOMB, send
from music_assets_tests.support.processes import wait_until

PHONE = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 900}
ADDRESSES = {
    "home": "/",
    "countries": "/explore/countries",
    "country": country_url("Germany"),
    "country without result": page_url("/explore/country", name="Germany", search="nothing like it"),
    "artist": artist_url("Drake"),
    "artist filtered out": page_url("/explore/artist", name="Drake", min_listeners=10_000),
    "search": page_url("/explore/search", query="a"),
    "search without result": page_url("/explore/search", query="nothing like it"),
    "map of music without training": "/explore/map",
    "compare": "/explore/compare",
    "compare countries": page_url("/explore/compare", kind="countries", first="Germany", second="Japan"),
    "compare artists": page_url("/explore/compare", kind="artists", first="Drake", second=HOSTILE[0]),
    "sign in": "/sign-in",
    "sql": "/sql",
    "pipeline": "/pipeline",
}
FAULTS = {
    "unknown artist": artist_url("nobody"),
    "unknown country": country_url("Germny"),
    "unknown page": "/explore/nothing",
}


def test_three_clicks_lead_to_an_artist_and_its_map(browser: Browser, service: Service) -> None:
    with opening_pages(browser, service.url) as open_page:
        page = open_page("/")
        page.locator(".world-map a", has_text="Germany: ").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Germany")
        page.get_by_role("link", name="Drake", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Drake")
        expect(page.locator(".world-map path[class^=level]").first).to_be_attached()


@pytest.mark.parametrize("name", ADDRESSES)
def test_page_is_accessible_and_fits(open_page: OpenPage, name: str) -> None:
    check(open_page(ADDRESSES[name]))


@pytest.mark.parametrize("name", FAULTS)
def test_error_is_accessible_and_fits(browser: Browser, explorer: Service, name: str) -> None:
    with context_of(browser, explorer.url) as page:
        page.goto(FAULTS[name])
        expect(page.get_by_role("alert")).to_be_visible()
        check(page)


def test_a_caller_beyond_the_rate_is_told_so(browser: Browser, dataset: Dataset) -> None:
    with serving(dataset.root, rate_limit="20/hour") as limited, context_of(browser, limited.url) as page:
        page.goto("/")
        for _ in range(20):
            limited.http.get("/explore/countries")
        page.goto("/explore/countries")
        expect(page.get_by_role("heading", level=1)).to_have_text("Too many requests")
        check(page)


def test_a_busy_service_says_so_on_pages_and_while_typing(browser: Browser, dataset: Dataset) -> None:
    with (
        serving(dataset.root, query_workers=1, query_queue=0, timeout_ms=600_000) as busy,
        context_of(browser, busy.url) as page,
    ):
        page.goto("/explore/countries")
        with send(busy, BOMB):
            wait_until(lambda: busy.http.get("/explore/countries").status_code == 503, "the start of the query")
            page.locator("#header-search").press_sequentially("dra")
            expect(page.locator(".suggestions").get_by_role("alert")).to_contain_text("too many unfinished requests")
            page.goto("/explore/countries")
            expect(page.get_by_role("alert")).to_contain_text("Reload the page in a moment.")
        check(page)


def check(page: Page) -> None:
    """Check, in light and dark, wide and on a phone, that axe finds nothing serious and nothing is too wide."""
    assert "injected" not in page.title()
    for scheme, size in (("light", WIDE), ("dark", WIDE), ("dark", PHONE), ("light", PHONE)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(size)
        violations = Axe().run(page).response["violations"]
        found = [each for each in violations if each["impact"] in ("serious", "critical")]
        assert [(each["id"], [node["html"][:200] for node in each["nodes"]][:3]) for each in found] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (scheme, size)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_text(open_page: OpenPage, name: str) -> None:
    page = open_page(artist_url(name))
    expect(page.locator("h1 bdi")).to_have_text(name)
    assert "injected" not in page.title().removeprefix(name)
    assert page.locator("main img, main script, main h1 h1").count() == 0
    page.locator("#header-search").press_sequentially(name[:3])
    expect(page.locator(".suggestions a").first).to_be_visible()


def test_keyboard_alone_reaches_the_content_and_the_suggestions(open_page: OpenPage) -> None:
    page = open_page("/")
    page.keyboard.press("Tab")
    expect(page.locator(".skip-link")).to_be_focused()
    page.locator("#search").focus()
    page.keyboard.type("drak")
    expect(page.locator(".suggestions").get_by_role("link", name=re.compile("^Drake "))).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.suggestions') !== null")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Drake")
    page.locator("#header-search").fill("germ")
    expect(page.locator(".suggestions a").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".suggestions a")).to_have_count(0)


@pytest.mark.parametrize("name", [name for name in ADDRESSES if "without" not in name and "filtered" not in name])
def test_every_link_and_control_is_reached_with_tab(open_page: OpenPage, name: str) -> None:
    page = open_page(ADDRESSES[name])
    controls = page.locator(
        "main :is(a[href], button:enabled, input:not([type=hidden]), select, summary):not([tabindex='-1'])"
    ).filter(visible=True)
    page.locator("main").focus()
    for control in controls.all():
        while not control.evaluate("control => control === document.activeElement"):
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.closest('main') !== null"), control.inner_text()


def test_filter_and_pages_replace_the_table_and_keep_the_address(open_page: OpenPage) -> None:
    page = open_page(country_url("Germany"))
    page.locator("#ranking-search").press_sequentially("drake")
    expect(page.locator("#ranking tbody tr")).to_have_count(2)
    expect(page).to_have_url(re.compile("search=drake"))
    expect(page.locator("#ranking-search")).to_be_focused()
    page.reload()
    expect(page.locator("#ranking tbody tr")).to_have_count(2)


def test_minimum_of_listeners_filters_map_and_table(open_page: OpenPage) -> None:
    page = open_page(page_url("/explore/artist", name="Drake", min_listeners=1))
    everywhere = page.locator("#countries tbody tr").count()
    page.get_by_label("Countries with at least").select_option("3")
    expect(page).to_have_url(re.compile("min_listeners=3"))
    listeners = [int(cell) for cell in page.locator("#countries tbody td:nth-child(4)").all_inner_texts()]
    assert len(listeners) <= everywhere
    assert all(each >= 3 for each in listeners)
