"""The map of music in Chromium, on random vectors of artists with hostile names."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from music_assets_tests.service.conftest import ARTISTS, Dataset, Service, make_dataset, serving
from music_assets_tests.service.explorer.conftest import COUNTRIES, HOSTILE, opening_pages
from music_assets_tests.service.explorer.test_browser import WIDE, check
from music_assets_tests.service.test_similarity import embed
from music_assets_tests.support.processes import wait_until

MARGIN = 60
"""Units of the coordinates around the outermost artists."""


@pytest.fixture(scope="module")
def trained_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    dataset = make_dataset(tmp_path_factory.mktemp("mapped"), countries=COUNTRIES, artists=[*ARTISTS[:20], *HOSTILE])
    embed(dataset, seed=1)
    return dataset


@pytest.fixture(scope="module")
def trained(trained_dataset: Dataset) -> Iterator[Service]:
    with serving(trained_dataset.root) as running:
        yield running


@pytest.fixture
def page(browser: Browser, trained: Service) -> Iterator[Page]:
    with opening_pages(browser, trained.url) as open_page:
        page = open_page("/explore/map")
        page.set_viewport_size(WIDE)
        expect(page.locator("#map canvas")).to_be_visible()
        yield page


def picture(page: Page) -> str:
    data: str = page.locator("#map canvas").evaluate("canvas => canvas.toDataURL()")
    return data


def next_picture(page: Page, before: str) -> str:
    """Wait until the map is drawn differently, and return the picture."""
    wait_until(lambda: picture(page) != before, "another picture")
    return picture(page)


def test_points_have_the_country_where_the_artist_is_most_popular(trained: Service, trained_dataset: Dataset) -> None:
    points = trained.http.get("/explore/map/points").json()
    assert points["listeners"] == sorted(points["listeners"], reverse=True)
    assert set(points["names"]) == set(trained_dataset.tops.artist_name)
    homes = {
        name: points["countries"][number] if number >= 0 else None
        for name, number in zip(points["names"], points["country"], strict=True)
    }
    for name, rows in trained_dataset.rankings.groupby("artist_name"):
        enough = rows[rows["listeners"] >= 3]
        best = (enough if len(enough) else rows).sort_values("normalized_popularity").iloc[-1]
        assert homes[name] == best["country"]
    for axis in ("x", "y"):
        assert (min(points[axis]), max(points[axis])) == (0, 2000)


def test_map_is_drawn_accessible_and_follows_the_colour_scheme(page: Page) -> None:
    light = picture(page)
    colour_of_others = page.locator("#map-legend rect").last.get_attribute("fill") or ""
    check(page)
    page.set_viewport_size(WIDE)
    page.emulate_media(color_scheme="light")
    wait_until(lambda: picture(page) == light, "the picture at the beginning")
    page.emulate_media(color_scheme="dark")
    next_picture(page, light)
    expect(page.locator("#map-legend rect").last).not_to_have_attribute("fill", colour_of_others)


def test_keyboard_and_buttons_move_the_map(page: Page) -> None:
    seen = [whole := picture(page)]
    page.locator("#map").focus()
    press = "(map, key) => map.dispatchEvent(new KeyboardEvent('keydown', {...key, cancelable: true}))"
    for key_of_browser in ({"key": "+", "ctrlKey": True}, {"key": "ArrowLeft", "altKey": True}):
        assert page.locator("#map").evaluate(press, key_of_browser)  # false: the page has handled it
    for key in ("+", "ArrowLeft", "ArrowUp", "-"):
        page.keyboard.press(key)
        seen.append(next_picture(page, seen[-1]))
    assert len(set(seen)) == 5
    page.get_by_role("button", name="Whole map").click()
    wait_until(lambda: picture(page) == whole, "the whole map")
    page.get_by_role("button", name="Zoom in").click()
    next_picture(page, whole)


def test_search_finds_artists_whose_names_stay_text(page: Page) -> None:
    page.locator("#map-search").fill("<")
    names = sorted(name for name in HOSTILE if "<" in name)
    expect(page.locator("#map-found a")).to_have_count(len(names))
    assert sorted(page.locator("#map-found a").all_inner_texts()) == names
    expect(page.get_by_role("status")).to_contain_text(f"{len(names)} of ")
    page.locator("#map-search").fill("Drake")
    page.locator("#map-found").get_by_role("link", name="Drake", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Drake")


def test_only_a_click_on_an_artist_opens_its_page(page: Page, trained: Service) -> None:
    points = trained.http.get("/explore/map/points").json()
    index = points["names"].index("Drake")
    box = page.locator("#map").bounding_box()
    assert box is not None
    across = (points["x"][index] + MARGIN) / (2000 + 2 * MARGIN)
    down = 1 - (points["y"][index] + MARGIN) / (2000 + 2 * MARGIN)
    place = (box["x"] + across * box["width"], box["y"] + down * box["height"])
    page.mouse.move(*place)
    expect(page.locator("#map-tooltip")).to_contain_text("Drake: ")
    page.mouse.click(*place, button="right")
    screen = page.context.new_cdp_session(page)
    first, second = ({"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate([(box["x"], box["y"]), place]))
    for kind, fingers in (("Start", [first]), ("Start", [first, second]), ("End", [first]), ("End", [])):
        screen.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": fingers})
    page.wait_for_timeout(500)
    expect(page.get_by_role("heading", level=1)).to_have_text("Map of music")
    page.mouse.click(*place)
    expect(page.get_by_role("heading", level=1)).to_have_text("Drake")
