"""The pages on real Last.fm names, with users spread over countries since the data set has none."""

import csv
import random
from collections.abc import Iterator

import dagster as dg
import pytest
from playwright.sync_api import Browser, expect

from music_assets.data_root import DataRoot
from music_assets.ingest.landing import Landing
from music_assets.service.explorer.rendering import artist_url, country_url
from music_assets.storage.published_snapshot import connect
from music_assets_tests.service.conftest import Service, serving
from music_assets_tests.service.explorer.conftest import opening_pages
from music_assets_tests.service.explorer.test_browser import check
from music_assets_tests.support.real_data import real_rows
from music_assets_tests.support.training import refresh

COUNTRIES = ["Germany", "Brazil", "Japan", "United States", "Poland"]
NAMES_PER_KIND = 3
KINDS = ("name LIKE '%\"%'", "name LIKE '%&%'", "name LIKE '%/%'", "name LIKE '[%'", "name LIKE '%?%'", "name > 'Ā'")


@pytest.fixture(scope="module", params=["hetrec2k", "kaggle399"])
def real(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, DataRoot]]:
    folder = real_rows(request.param)
    root = tmp_path_factory.mktemp(request.param)
    landing = Landing(DataRoot(root / "data"))
    landing.root.prepare()
    chance = random.Random(1)
    users = root / "users.csv"
    with (folder / "users.csv").open(encoding="utf-8", newline="") as source, users.open("w", newline="") as target:
        for number, (user, _, scrobbles) in enumerate(csv.reader(source)):
            country = chance.choice(COUNTRIES) if number else "country"
            csv.writer(target).writerow([user, country, scrobbles])
    for file in (users, folder / "user_top_artists.csv"):
        landing.place(file)
    with dg.DagsterInstance.ephemeral() as instance:
        refresh(landing.root.path, instance)
    with serving(landing.root.path) as running:
        yield running, landing.root


def test_pages_show_real_names(browser: Browser, real: tuple[Service, DataRoot]) -> None:
    service, root = real
    with connect(root) as connection:
        names = [
            name
            for kind in KINDS
            for (name,) in connection.execute(
                f"SELECT artist_name AS name FROM world_artists WHERE {kind} ORDER BY rank LIMIT {NAMES_PER_KIND}"
            ).fetchall()
        ]
    assert len(names) >= 10
    with opening_pages(browser, service.url) as open_page:
        page = open_page("/")
        check(page)
        for name in names:
            page.goto(artist_url(name))
            expect(page.locator("h1")).to_have_text(name)
        page.goto(country_url("Germany"))
        expect(page.locator("#ranking tbody tr")).to_have_count(50)
        check(page)
        page.goto("/explore/country?name=Germany&search=%22")
        check(page)
