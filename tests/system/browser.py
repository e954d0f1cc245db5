"""Headless Chromium on a node's pages, and what it did not like about them."""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.system.nodes import Node, wait_until

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
CODE = re.compile(rb"^([A-Z0-9]{3,5}-?[A-Z0-9]{3,5})\r?$", re.MULTILINE)
PICTURES = os.environ.get("TEST_PICTURES", "")  # a folder to look at the pages in


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


class Keyboard:
    """A person with no mouse."""

    def __init__(self, visitor: Visitor, scheme: str) -> None:
        self.visitor = visitor
        self.page: Page = visitor.page
        self.scheme = scheme

    def go(self, name: str) -> None:
        """Press Tab until the control called *name* has the focus, visibly, and then Enter."""
        self.reach(name)
        self.enter()

    def enter(self) -> None:
        with self.page.expect_navigation():
            self.page.keyboard.press("Enter")

    def reach(self, name: str) -> None:
        for _ in range(80):
            self.page.keyboard.press("Tab")
            focused = self.page.evaluate(
                """() => {
                    const node = document.activeElement;
                    const label = node.labels?.[0]?.innerText ?? "";
                    const shown = getComputedStyle(node).outlineStyle !== "none";
                    return [node.ariaLabel || label || node.innerText || "", shown];
                }"""
            )
            if focused[0].strip() == name:
                assert focused[1], f"the focus on {name} is not visible"
                return
        raise AssertionError(f"{name} cannot be reached with Tab on {self.page.url}")

    def write(self, name: str, text: str) -> None:
        self.reach(name)
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)

    def copy(self) -> None:
        """Press the nearest button that copies."""
        self.visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.reach("Copy")
        self.page.keyboard.press("Enter")
        expect(self.page.get_by_text("Copied")).to_be_visible()

    def picture(self, name: str) -> None:
        if PICTURES:
            self.page.wait_for_load_state("networkidle")
            self.page.screenshot(path=Path(PICTURES, f"{name}-{self.scheme}.png"), full_page=True)

    def title(self, text: str) -> None:
        expect(self.page.get_by_role("heading", name=text, exact=True).first).to_be_visible()


def code_for(node: Node, since_s: float) -> str:
    """Wait for the newest mail of the node and return the code in it."""
    found: list[bytes] = []

    def has_come() -> bool:
        mails = [path for path in (node.folder / "mail").glob("*") if path.stat().st_mtime >= since_s]
        found[:] = [code for path in mails for code in CODE.findall(path.read_bytes())]
        return bool(found)

    wait_until(has_come, lambda: node.said)
    return found[-1].decode()
