"""Headless Chromium for tests of pages; tests skip without Playwright or Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """A page that must not fail, write to the console, or ask another server."""
    faults: list[str] = []
    context = browser.new_context(reduced_motion="reduce", **options)
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    requests: list[str] = []
    page.goto(address)
    yield page
    context.close()
    assert all(
        url.startswith((address.removesuffix("docs"), "blob:", "data:")) for url in requests
    ), requests
    assert [fault for fault in faults if "Failed to load resource" not in fault] == []
