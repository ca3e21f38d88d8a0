"""A real browser for pages: Debian's Chromium, driven by Playwright, with everything that it asked for written down."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


def need(there: object, what: str) -> None:
    """Skip where something is not installed; fail where it must be."""
    if not there:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what}; `make browser` installs it")


@dataclass
class Seen:
    """What a page did while it was open."""

    page: Any
    console: list[str] = field(default_factory=list)
    """Errors and warnings in the console, and uncaught ones."""
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def until(self, expression: str, arg: Any = None, seconds: float = 20) -> None:
        """Wait for a JavaScript expression, or a function of `arg`, to be true.

        Playwright's own waiting evaluates text inside the page, which the page's policy forbids.
        """
        end = time.monotonic() + seconds
        while not self.page.evaluate(expression, arg):
            assert time.monotonic() < end, f"never true: {expression}"
            self.page.wait_for_timeout(30)

    def quiet(self) -> None:
        """Nothing was complained of, and nothing left the machine."""
        assert self.console == []
        assert self.dialogs == []
        assert [url for url in self.requests if not url.startswith(("file:", "blob:", "data:"))] == []


@contextmanager
def browsers() -> Iterator[Any]:
    """A running browser; skips, or fails in CI, where there is none."""
    playwright = (
        pytest.importorskip("playwright.sync_api")
        if not os.environ.get("CI")
        else __import__("playwright.sync_api", fromlist=["sync_playwright"])
    )
    need(CHROMIUM, "no Chromium on this machine")
    with playwright.sync_playwright() as running:
        # --no-sandbox: as root, as CI runs, Chromium has none. These are pages of our own.
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = running.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, path: Path, fragment: str = "", **options: Any) -> Iterator[Seen]:
    """A page from disk. `options`: of the browser's context, e.g. color_scheme, viewport."""
    context = browser.new_context(**({"viewport": {"width": 1300, "height": 900}} | options))
    page = context.new_page()
    seen = Seen(page)
    page.on("console", lambda m: seen.console.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: seen.console.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("dialog", lambda dialog: (seen.dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri() + fragment)
    seen.until("topreward.state.episode !== null")
    try:
        yield seen
    finally:
        context.close()
