"""A headless Chromium for tests that look at a page; without one they are skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Page

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def chromium() -> str | None:
    """The browser to use: `CHROMIUM`, else the first one on the PATH."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@asynccontextmanager
async def browsing(url: str, *, width: int = 1280, height: int = 860, dark: bool = False) -> AsyncIterator[Page]:
    """The page at the address; a script error on it fails the test."""
    executable = chromium()
    if executable is None:
        pytest.skip("No Chromium found; set CHROMIUM to one.")
    from playwright.async_api import async_playwright  # noqa: PLC0415 only where there is a browser

    errors: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        try:
            page = await browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
            page.on("pageerror", lambda error: errors.append(str(error)))
            await page.goto(url)
            yield page
        finally:
            await browser.close()
    assert not errors
