"""Headless Chromium on a node's pages, and what it did not like about them."""

import asyncio
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

from tests.system.nodes import Node

CHROMIUM = shutil.which("chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 20_000


@contextmanager
def open_browser() -> Iterator[Browser]:
    if sys.version_info < (3, 12):
        # A supervisor that ran in this process may have left one that is bound to a loop of its own.
        asyncio.set_child_watcher(None)  # type: ignore[arg-type]  # None: the next loop takes a new one
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """One page of one browser context at a node; *complaints* holds what went wrong and where it strayed."""

    def __init__(self, browser: Browser, node: Node, **options: Any) -> None:  # Any: playwright's own
        self.node = node
        self.site = f"http://127.0.0.1:{node.http_port}"
        self.complaints: list[str] = []
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self.context.new_page()
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"script error: {error}"))
        self.page.on("request", lambda request: self._on_address(request.url))
        self.page.on("websocket", lambda socket: self._on_address(socket.url))
        self.page.on("requestfailed", self._on_failure)

    def visit(self, path: str) -> None:
        self.page.goto(self.site + path)

    def sign_in(self, who: dict[str, str]) -> None:
        self.visit("/admin/")
        self.page.fill("input[name=login]", who["username"])
        self.page.fill("input[name=password]", who["password"])
        self.page.click("button[type=submit]")
        self.page.wait_for_selector("[data-page=dashboard]")

    def close(self) -> None:
        self.context.close()

    def _on_console(self, message: Any) -> None:  # Any: playwright's own, as below
        if message.type in ("error", "warning"):
            self.complaints.append(f"{urlsplit(self.page.url).path}: {message.text}")

    def _on_address(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != urlsplit(self.site).netloc:
            self.complaints.append(f"a request to {parts.netloc}")

    def _on_failure(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # leaving a page ends its requests
            self.complaints.append(f"{request.url}: {request.failure}")


def first_administrator(node: Node) -> dict[str, str]:
    """Make the first administrator of a new node and return name and password."""
    who: dict[str, str] = json.loads(node.manage("firstadmin", "--json").stdout)
    return who
