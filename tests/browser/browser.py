"""Reports opened in a browser without a window."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
OPTIONS += ("--disable-component-update", "--disable-sync")


def path_of_browser() -> str:
    """The browser's command; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"there is no browser: {', '.join(BROWSERS)}")
    return found


@contextmanager
def started() -> Iterator[Any]:
    """A browser; skips the test where there is none or where playwright is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = path_of_browser()
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=[*OPTIONS])
        yield browser
        browser.close()


class Report:
    """A report on a page, with all that went wrong there and all that it asked for."""

    def __init__(self, page: Any, path: Path) -> None:
        self.page, self.path = page, path
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: (self.errors.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())

    def check(self) -> None:
        """Nothing went wrong, and nothing but the file itself was read."""
        assert self.errors == []
        asked = [url for url in self.requests if not url.startswith(("data:", "blob:"))]
        assert set(asked) == {self.path.as_uri()}

    def labels(self) -> list[str]:
        """The groups in the table, from the top."""
        return self.page.locator(".groups tbody tr:visible > th code").all_inner_texts()

    def select(self, *labels: str) -> None:
        """Tick the boxes of these groups, and of no other."""
        clear = self.page.locator("#table [data-action=clear]")
        if clear.is_enabled():
            clear.click()
        for label in labels:
            self.page.get_by_role("checkbox", name=f"show {label} in the plots", exact=True).check()

    def plot(self, name: str) -> Any:
        """Scroll to a plot and wait until it is drawn; its traces, or the text that stands in its place."""
        place = self.page.locator(f'[data-plot="{name}"]')
        place.scroll_into_view_if_needed()
        script = """place => inView.has(place) && !stale.has(place) && (place.data || place.querySelector('.empty'))"""
        self.page.wait_for_function(script, arg=place.element_handle())
        return place.evaluate("place => place.querySelector('.empty')?.textContent ?? JSON.parse(JSON.stringify(place.data))")

    def plots(self) -> list[str]:
        """The names of all plots."""
        return self.page.locator("[data-plot]").evaluate_all("places => places.map(place => place.dataset.plot)")

    def prefer(self, scheme: str) -> None:
        """Have the system ask for light or dark."""
        self.page.emulate_media(color_scheme=scheme)
        self.page.wait_for_function("scheme => theme() === scheme", arg=scheme)

    def choose(self, name: str, value: str) -> None:
        """Choose from a drop-down."""
        self.page.locator(f'select[data-control="{name}"]').select_option(value)
