"""A page in a browser, with all that it logs and requests."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
FLAGS = "--no-sandbox --disable-gpu --disable-quic --disable-background-networking --disable-component-update"
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
READY = "document.documentElement.dataset.ready === 'yes'"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is a development dependency")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield opened
        opened.close()


def until(page: Any, condition: str) -> None:
    """Wait for a condition. Playwright's own wait evaluates a string in the page, which the page's policy forbids."""
    for _ in range(300):
        if page.evaluate(condition):
            return
        time.sleep(0.05)
    raise AssertionError(condition)


class ThreadClock:
    """Processor time of a page's main thread, of which other work on the machine takes nothing.

    Args:
        page: The page.

    """

    def __init__(self, page: Any) -> None:
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds(self) -> float:
        """Seconds so far."""
        found = self._session.send("Performance.getMetrics")["metrics"]
        return float({one["name"]: one["value"] for one in found}["TaskDuration"])


class Tab:
    """A page with its console messages, errors and requests."""

    def __init__(self, page: Any) -> None:
        self.page, self.messages, self.requests = page, [], []  # type: ignore[var-annotated]
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, file: Path, fragment: str = "") -> Any:
        self.page.goto(f"file://{file}{fragment}")
        until(self.page, READY)
        return self.page
