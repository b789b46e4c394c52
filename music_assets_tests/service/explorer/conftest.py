"""A Chromium, and a service whose artists have names that try to inject markup."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from music_assets_tests.service.conftest import ARTISTS, Service, make_dataset, serving

HOSTILE = [
    "<script>document.title = 'injected'</script>",
    '"><img src=x onerror="document.title = \'injected\'">',
    "'-alert(1)-'",
    "{{ 7 * 7 }}",
    "</title><h1>injected</h1>",
    "javascript:alert(1)",
    "..",
    "a/b?c=d&e=f#g",
    "\u202egnirts",
]
COUNTRIES = ["Germany", "United States", "Brazil", "Japan", "Réunion", "<b>Nowhere</b>", None]
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)

expect.set_options(timeout=30_000)  # by default five seconds, in which a page may not be there on a busy machine


@pytest.fixture(scope="session")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a running service on hostile names."""
    root = tmp_path_factory.mktemp("hostile")
    make_dataset(root, countries=COUNTRIES, artists=[*ARTISTS[:20], *HOSTILE])
    with serving(root) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a Chromium. The test is skipped where there is none, and fails there under CI=true.

    Until it ends, an event loop runs in this thread, and tests of coroutines fail.
    """
    chromium = shutil.which("chromium")
    if chromium is None and not os.environ.get("CI"):
        pytest.skip("There is no chromium on the path.")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())
        yield running
        running.close()


OpenPage = Callable[[str], Page]


@pytest.fixture
def open_page(browser: Browser, explorer: Service) -> Iterator[OpenPage]:
    """Return a function that opens a page of the explorer. At the end no script may have failed, nor the policy."""
    with opening_pages(browser, explorer.url) as function:
        yield function


@contextmanager
def opening_pages(browser: Browser, url: str) -> Iterator[OpenPage]:
    """Yield a function that opens a page of a service; raise AssertionError if the browser reported an error."""
    errors: list[str] = []
    with ExitStack() as stack:

        def open_one(path: str) -> Page:
            page = stack.enter_context(context_of(browser, url))
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(path)
            expect(page.locator("[aria-busy=true]")).to_have_count(0)
            return page

        yield open_one
    assert errors == []


@contextmanager
def context_of(browser: Browser, url: str) -> Iterator[Page]:
    """Yield a page with storage of its own. Transitions are off, since axe would see colours in between."""
    context = browser.new_context(base_url=url, reduced_motion="reduce")
    yield context.new_page()
    context.close()
