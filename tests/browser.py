"""A headless Chromium for tests that look at a page; without one they are skipped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sandbox.browser import chromium, looking

if TYPE_CHECKING:
    from playwright.async_api import Page


@asynccontextmanager
async def browsing(url: str, *, width: int = 1280, height: int = 860, dark: bool = False) -> AsyncIterator[Page]:
    """The page at the address; a script error on it fails the test."""
    executable = chromium()
    if executable is None:
        pytest.skip("No Chromium found; set CHROMIUM to one.")
    errors: list[str] = []
    async with looking(executable, width=width, height=height, dark=dark, errors=errors) as page:
        await page.goto(url)
        yield page
    assert not errors
