"""Make the pictures of the README anew: `.venv/bin/python -m tests.system.screenshots [FOLDER]`."""

import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser

from tests.system.browser import Visitor, first_administrator, open_browser
from tests.system.nodes import ROOT, Node, make_database, started_node, wait_until
from udp_engine.client import PriceClient
from udp_engine.exceptions import UdpError

FOLDER = ROOT / "docs" / "images"
MOST_BYTES = 200 * 1024
ASSETS = ("BTC", "ETH", "SOL", "XRP", "DOGE")
TRAIL_S = 60.0  # until the lines of the last minute are whole
HOME_SIZE = {"width": 1280, "height": 1424}  # down to the last price
CENTRE_SIZE = {"width": 1280, "height": 720}


def take_pictures(browser: Browser, node: Node, who: dict[str, str], folder: Path) -> list[Path]:
    """Picture the home page in light and the command centre in dark, and return the files."""
    home, centre = folder / "home.png", folder / "command-centre.png"
    visitor = Visitor(browser, node, viewport=HOME_SIZE, color_scheme="light", reduced_motion="reduce")
    visitor.visit("/")
    visitor.page.wait_for_selector('[data-connection="live"]')
    visitor.page.wait_for_selector("[data-demo-summary][data-ok=true]")
    visitor.page.screenshot(path=home)
    visitor.close()
    operator = Visitor(browser, node, viewport=CENTRE_SIZE, color_scheme="dark", reduced_motion="reduce")
    operator.sign_in(who)
    operator.visit("/admin/")  # once more, without the greeting
    operator.page.wait_for_load_state("networkidle")
    operator.page.screenshot(path=centre)
    operator.close()
    return [home, centre]


@contextlib.contextmanager
def prices_asked_for(node: Node) -> Iterator[None]:
    """Have a customer ask over UDP meanwhile, so that there is something to be seen."""
    words = ("--email", "bot@example.com", "--plan", "unlimited", "--name", "Price bot", "--json")
    key = json.loads(node.manage("apikey", "create", *words).stdout)["key"]
    ended = threading.Event()

    def ask() -> None:
        with PriceClient("127.0.0.1", node.udp_port, key=key) as client:
            while not ended.wait(0.02):
                with contextlib.suppress(UdpError):  # in the first moments the key is not in force
                    client.price(random.choice(ASSETS))

    thread = threading.Thread(target=ask, name="customer")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, open_browser() as browser:
        for name in ("node", "database"):
            Path(data, name).mkdir()
        with started_node(Path(data, "node"), make_database(Path(data, "database"))) as node:
            wait_until(node.is_live, lambda: node.said)
            with prices_asked_for(node):
                time.sleep(TRAIL_S)
                pictures = take_pictures(browser, node, first_administrator(node), folder)
    for picture in pictures:
        sys.stdout.write(f"{picture} {picture.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
