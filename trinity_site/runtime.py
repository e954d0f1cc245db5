"""The objects an HTTP worker answers with: built in order, closed in reverse. Only entry points open it."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from django.conf import LazySettings

from billing.demo import DemoTokens
from billing.guessing import Guesses
from billing.offers import Offers
from billing.security import record_refused_keys
from exchanges.rest import RestClient
from exchanges.services import load_catalogue, load_exchanges, table_revision
from pricing._board import BoardReader
from pricing._http import FastPath
from pricing.admission import Admission
from pricing.catalogue import EMPTY, Catalogue
from pricing.http import PriceApi, make_fast_path
from pricing.parameters import Parameters
from pricing.service import PriceService
from telemetry.running import happens, repeat
from telemetry.traffic import Traffic
from trinity_site.live import Live, open_live
from trinity_site.shared_memory import open_board_reader, open_counter_reader, open_counters, open_gate

POLL_S = 0.5  # changed rows show within 2 s
FIRST_READING_S = 3.0


@dataclass(frozen=True, slots=True)
class Runtime:
    """What requests find as `request.scope["state"]["runtime"]`."""

    api: PriceApi
    prices: PriceService
    board: BoardReader
    traffic: Traffic
    tables: "TableFollower"
    live: Live
    fast_path: FastPath
    offers: Offers


class TableFollower:
    """The exchange tables as this process knows them, read again whenever their revision has changed."""

    def __init__(
        self, rest: RestClient, simulator_url: str, *, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self.catalogue: Catalogue = EMPTY
        self.on_change = on_change
        self.has_read = asyncio.Event()
        self._rest = rest
        self._simulator_url = simulator_url
        self._revision: int | None = None

    async def run(self) -> None:
        """Follow until cancelled. A dead database is waited for; what was read before it died stays true."""
        await repeat(self.refresh, POLL_S, "Reading the exchange tables")

    async def refresh(self) -> None:
        revision = await table_revision()
        if revision == self._revision:
            return
        tables, catalogue = await load_exchanges(), await load_catalogue()
        feeds = tables.feeds
        if self._simulator_url:
            feeds = tuple(spec.simulated(self._simulator_url) for spec in feeds)
        self._rest.follow(feeds, tables.listings)
        # The revision was read first: a change in between is seen again, and never missed.
        self.catalogue, self._revision = catalogue, revision
        self.on_change()
        self.has_read.set()


@asynccontextmanager
async def open_runtime(settings: LazySettings, *, row: int) -> AsyncIterator[Runtime]:
    """Open what an HTTP worker that counts in *row* needs, and close it all on leaving.

    The tables are waited for a little, so that the first answers know what is listed. A worker without a
    database or without a feed process starts all the same, and says so.
    """
    node, folder, parameters = settings.CLUSTER_NODE, settings.TRINITY_DATA_DIR, Parameters()
    async with AsyncExitStack() as stack:
        reader = open_board_reader(node, folder, slots=settings.TRINITY_BOARD_SLOTS)
        board = stack.enter_context(reader)
        counters = stack.enter_context(open_counters(node, folder, worker=row))
        counted = stack.enter_context(open_counter_reader(node, folder))
        tier2 = None
        if settings.REDIS_URL:
            from pricing.valkey import Valkey  # its client library costs 0.3 s: only where there is a tier 2

            tier2 = Valkey(settings.REDIS_URL, parameters)
            stack.push_async_callback(tier2.aclose)
        rest = RestClient(allow_loopback=settings.TRINITY_ALLOW_LOOPBACK_EXCHANGES)
        stack.push_async_callback(rest.aclose)
        tables = TableFollower(rest, settings.TRINITY_SIMULATOR_URL)
        prices = PriceService(board, tier2, rest, parameters, counters, catalogue=lambda: tables.catalogue)
        stack.push_async_callback(prices.aclose)
        gate = stack.enter_context(open_gate(node, folder, rows=settings.TRINITY_GATE_ROWS))
        fast_path = make_fast_path(board, gate, counters, ttl_ms=parameters.price_ttl_ms)
        tables.on_change = lambda: fast_path.follow(prices.view.listed())
        stack.push_async_callback(cancelled, asyncio.create_task(tables.run(), name="tables"))
        await happens(tables.has_read, FIRST_READING_S)
        offers = Offers()
        stack.push_async_callback(cancelled, asyncio.create_task(offers.run(), name="offers"))
        guesses = Guesses(record=record_refused_keys, workers=settings.TRINITY_HTTP_WORKERS)
        stack.push_async_callback(guesses.hand_over)
        stack.push_async_callback(cancelled, asyncio.create_task(guesses.run(), name="guesses"))
        admission = Admission(
            gate,
            counters,
            guesses=guesses,
            tokens=DemoTokens(settings.SECRET_KEY, secrets.token_bytes),
            trusts_proxy=settings.ALLAUTH_TRUSTED_PROXY_COUNT > 0,
        )
        health_port = settings.TRINITY_HEALTH_PORT
        api = PriceApi(
            prices, board, counters, admission, counted=counted, health_port=health_port, worker=row
        )
        traffic = Traffic(counted, folder)
        stack.push_async_callback(cancelled, asyncio.create_task(traffic.run(), name="traffic"))
        live = await stack.enter_async_context(open_live(board, prices.view, parameters, traffic))
        yield Runtime(api, prices, board, traffic, tables, live, fast_path, offers)


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel *task* and wait until it has left."""
    task.cancel()
    await asyncio.wait([task])
