"""Trying a row before it goes live, in a node with simulated exchanges: the row keeps its real address."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from exchanges import admin
from exchanges.services import Author, Door, import_document
from exchanges.simulator.faults import QuietSymbols
from exchanges.simulator.server import Simulator
from tests.exchanges.feed.node import FIXTURES

pytestmark = pytest.mark.django_db

PRICED, ACKED, REFUSED = "BTC_USDT", "ETH_USDT", "NOPE_USDT"
SYMBOLS = {"BTC": PRICED, "ETH": ACKED, "NOPE": REFUSED}
SECONDS = 2.0


@pytest.fixture
def simulator(settings: Any) -> Iterator[None]:  # Any: pytest-django's settings
    """Run a Gate.io with one symbol that trades, one that is quiet, and one that it does not know.

    In a thread of its own: what is tried brings its own event loop.
    """
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with Simulator(rate=40) as served:
            await served.fault("gateio", QuietSymbols(symbols=(ACKED,)))
            settings.TRINITY_SIMULATOR_URL = served.url
            settings.TRINITY_ALLOW_LOOPBACK_EXCHANGES = True
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


@pytest.fixture(autouse=True)
def gateio() -> None:
    row = json.loads((FIXTURES / "feeds" / "gateio.json").read_text())
    assets = [
        {"asset": asset, "symbol": symbol, "category": "Major Currencies"}
        for asset, symbol in SYMBOLS.items()
    ]
    import_document(document={"feed": row.get("feed", row), "assets": assets}, author=Author(Door.COMMAND))


def test_page_of_the_trial_shows_each_symbol_as_it_was_found(
    simulator: None, admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "CHECK_SECONDS", SECONDS)
    page = admin_client.post("/admin/exchanges/exchangefeed/gateio/try/").content.decode()
    assert 'data-report="failed"' in page
    assert f"<p>refused: {REFUSED}</p>" in page
    for symbol, state in ((PRICED, "live"), (ACKED, "acked"), (REFUSED, "refused")):
        assert f'<td>{symbol}</td><td><span class="tb-badge tb-{state}">{state}</span></td>' in page
    assert re.search(rf"<td>{PRICED}</td>.*?<td>[\d.]+</td><td>\d+ ms</td>", page)
    assert re.search(rf"<td>{REFUSED}</td>.*?<td>–</td><td>–</td><td>[^<]+</td>", page)
    assert re.search(r"Frames: .*\d+ trade", page)


def test_command_tries_the_row_against_the_simulator(simulator: None) -> None:
    out = StringIO()
    with pytest.raises(CommandError, match="not ready to go live"):
        call_command("exchange", "check", "gateio", "--seconds", str(SECONDS), stdout=out)
    said = out.getvalue()
    assert re.search(rf"^{PRICED} +live +[\d.]+ +\d+ ms old$", said, re.MULTILINE)
    assert re.search(rf"^{ACKED} +acked$", said, re.MULTILINE)
    assert re.search(rf"^{REFUSED} +refused +\S", said, re.MULTILINE)
