"""The objects an HTTP worker answers with: built in order, closed in reverse. Only entry points open it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from django.conf import LazySettings

from billing.offers import Offers
from pricing._board import BoardReader
from pricing._http import FastPath
from pricing.http import PriceApi, make_fast_path
from pricing.service import PriceService
from telemetry.traffic import Traffic
from trinity_site.live import Live, open_live
from trinity_site.shared_memory import open_counter_reader, open_counters
from trinity_site.sources import TableFollower, cancelled, open_admission, open_sources, open_spool


@dataclass(frozen=True, slots=True)
class Runtime:
    """What requests find as `request.scope["state"]["runtime"]`."""

    api: PriceApi
    prices: PriceService
    board: BoardReader
    traffic: Traffic
    tables: TableFollower
    live: Live
    fast_path: FastPath
    offers: Offers


@asynccontextmanager
async def open_runtime(settings: LazySettings, *, row: int) -> AsyncIterator[Runtime]:
    """Open what an HTTP worker that counts in *row* needs, and close it all on leaving.

    A worker without a database or without a feed process starts all the same, and says so.
    """
    node, folder = settings.CLUSTER_NODE, settings.TRINITY_DATA_DIR
    async with AsyncExitStack() as stack:
        counters = stack.enter_context(open_counters(node, folder, worker=row))
        sources = await open_sources(stack, settings, counters)
        board, gate, prices = sources.board, sources.gate, sources.prices
        counted = stack.enter_context(open_counter_reader(node, folder))
        spool = await open_spool(stack, settings, counters, row=row)
        appender, ttl_ms = spool.appender, sources.parameters.price_ttl_ms
        fast_path = make_fast_path(board, gate, counters, appender, ttl_ms=ttl_ms)
        await sources.follow(stack, lambda: fast_path.follow(prices.view.listed()))
        offers = Offers()
        stack.push_async_callback(cancelled, asyncio.create_task(offers.run(), name="offers"))
        workers = settings.TRINITY_HTTP_WORKERS
        admission = await open_admission(stack, settings, gate, counters, appender, workers=workers)
        api = PriceApi(
            prices,
            board,
            counters,
            admission,
            counted=counted,
            spool=spool.state,
            health_port=settings.TRINITY_HEALTH_PORT,
            worker=row,
        )
        traffic = Traffic(counted, folder)
        stack.push_async_callback(cancelled, asyncio.create_task(traffic.run(), name="traffic"))
        live = await stack.enter_async_context(open_live(board, prices.view, sources.parameters, traffic))
        yield Runtime(api, prices, board, traffic, sources.tables, live, fast_path, offers)
