"""The pages of the explorer in Chromium, each loaded with an empty cache."""

import shutil
from collections.abc import Iterator

from playwright.sync_api import Browser, sync_playwright

from benchmarks.contestants import Ours, base_folder
from benchmarks.context import Context, empty_folder
from benchmarks.results import OURS, Measurement
from benchmarks.services import OUR_SERVICE

PAGES = {
    "start page": "/",
    "artist": "/explore/artist?name=Drake",
    "comparison": "/explore/compare?kind=artists&first=Drake&second=Radiohead",
    "map of music": "/explore/map",
    "SQL console": "/sql",
    "pipeline": "/pipeline",
}


def pages(context: Context) -> Iterator[Measurement]:
    """Load each page; without a training the map of music is only a note."""
    root, folder = base_folder(context.work, context.users, Ours()), empty_folder(context.work, "pages", OURS)
    with OUR_SERVICE.running(root, folder) as (port, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for number in range(1, context.rounds + 1):
            for name, path in PAGES.items():
                yield Measurement(OURS, number, _load(browser, f"http://127.0.0.1:{port}{path}"), name)


def _load(browser: Browser, url: str) -> dict[str, float]:
    with browser.new_context() as visit:
        page, sizes = visit.new_page(), list[float]()
        network = visit.new_cdp_session(page)
        network.send("Network.enable")
        network.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        page.goto(url, wait_until="networkidle")
        timing = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
    first_byte = timing["responseStart"] - timing["requestStart"]
    return {"first_byte_ms": first_byte, "interactive_ms": timing["domInteractive"], "kilobytes": sum(sizes) / 1000}
