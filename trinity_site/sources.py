"""What every process that answers prices opens alike: board, gate, counters, tables, three tiers."""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from django.conf import LazySettings

from billing._gate import Gate
from billing.demo import DemoTokens
from billing.guessing import Guesses
from billing.security import record_refused_keys
from exchanges.rest import RestClient
from exchanges.services import load_catalogue, load_exchanges, table_revision
from pricing._board import BoardReader
from pricing.admission import Admission
from pricing.catalogue import EMPTY, Catalogue
from pricing.parameters import Parameters
from pricing.service import PriceService
from telemetry._counters import Counters
from telemetry._spool import Appender
from telemetry.parameters import SpoolParameters
from telemetry.recorder import Recorder
from telemetry.running import happens, repeat
from telemetry.spool import Spool
from trinity_site.shared_memory import open_board_reader, open_gate

POLL_S = 0.5  # changed rows show within 2 s
FIRST_READING_S = 3.0


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


@dataclass(frozen=True, slots=True)
class Sources:
    board: BoardReader
    gate: Gate
    counters: Counters
    tables: TableFollower
    prices: PriceService
    parameters: Parameters

    async def follow(self, stack: AsyncExitStack, on_change: Callable[[], None]) -> None:
        """Keep the tables up to date, *on_change* called after each reading, until *stack* is closed.

        The first reading is waited for a little, so that the first answers know what is listed.
        """
        self.tables.on_change = on_change
        stack.push_async_callback(cancelled, asyncio.create_task(self.tables.run(), name="tables"))
        await happens(self.tables.has_read, FIRST_READING_S)


async def open_sources(stack: AsyncExitStack, settings: LazySettings, counters: Counters) -> Sources:
    """Open what a process answers from; *stack* closes it.

    A process without a database or without feeds starts all the same, and says so.
    """
    node, folder, parameters = settings.CLUSTER_NODE, settings.TRINITY_DATA_DIR, Parameters()
    reader = open_board_reader(node, folder, slots=settings.TRINITY_BOARD_SLOTS)
    board = stack.enter_context(reader)
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
    return Sources(board, gate, counters, tables, prices, parameters)


async def open_spool(stack: AsyncExitStack, settings: LazySettings, counters: Counters, *, row: int) -> Spool:
    """Open the usage spool of a process that counts in *row*, a segment ready; *stack* seals what is in it.

    Without room, or with a bad disk, the process starts all the same, and does as the operator has chosen.
    """
    spool = Spool(
        settings.TRINITY_DATA_DIR / "spool",
        node=settings.CLUSTER_NODE,
        row=row,
        parameters=SpoolParameters.of(settings),
        on_losses=counters.unrecorded,
    )
    stack.callback(spool.close)
    await asyncio.to_thread(spool.prepare, wait=True)
    stack.push_async_callback(cancelled, asyncio.create_task(spool.run(), name="spool"))
    return spool


async def open_admission(
    stack: AsyncExitStack,
    settings: LazySettings,
    gate: Gate,
    counters: Counters,
    appender: Appender,
    *,
    workers: int,
) -> Admission:
    """Open what judges who asks over HTTP, in one of so many processes that do."""
    guesses = Guesses(record=record_refused_keys, workers=workers)
    stack.push_async_callback(guesses.hand_over)
    stack.push_async_callback(cancelled, asyncio.create_task(guesses.run(), name="guesses"))
    return Admission(
        gate,
        counters,
        Recorder(appender, counters),
        guesses=guesses,
        tokens=DemoTokens(settings.SECRET_KEY, secrets.token_bytes),
        trusts_proxy=settings.ALLAUTH_TRUSTED_PROXY_COUNT > 0,
    )


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel *task* and wait until it has left."""
    task.cancel()
    await asyncio.wait([task])
