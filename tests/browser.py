"""A real browser for the pages that we write: Chromium, where the machine has it.

pytestmark = MARKS

@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from opened()

with looked_at(browser, address, scheme="dark", width=390) as page:
    ...
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MARKS = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.ray,  # it takes seconds
]


def opened() -> Iterator[Any]:
    """The body of a fixture."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def looked_at(browser: Any, address: str, *, scheme: str, width: int) -> Iterator[Any]:
    """An open page, after seeing that it asks no network, says no error, fits the width, and axe finds nothing."""
    from axe_playwright_python.sync_playwright import Axe

    said: list[str] = []
    asked: list[str] = []
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
    try:
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        assert asked == [address, *(url for url in asked[1:] if url.startswith("data:"))]
        assert said == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        found = Axe().run(page)
        assert not found.response["violations"], found.generate_report()
        yield page
    finally:
        page.close()
