"""A headless Chromium that looks at the sandbox's pages: for pictures, and for tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

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
async def looking(executable: str, *, width: int, height: int, dark: bool = False, errors: list[str] | None = None) -> AsyncIterator[Page]:
    """A blank page of this size; what its scripts throw is added to `errors`."""
    from playwright.async_api import async_playwright  # noqa: PLC0415 only where there is a browser

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        try:
            page = await browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
            if errors is not None:
                page.on("pageerror", lambda error: errors.append(str(error)))
            yield page
        finally:
            await browser.close()
