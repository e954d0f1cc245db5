"""The ASGI application of a report worker: reports, and the page that documents them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from django.conf import LazySettings, settings

from pricing.metrics import Metrics
from telemetry.parameters import ReportParameters
from trinity_site.asgi import django_application
from trinity_site.lifespan import Lifespan, Receive, Scope, Send
from trinity_site.reports.api import ReportApi
from trinity_site.reports.maker import Maker
from trinity_site.reports.room import Room
from trinity_site.shared_memory import open_board_reader, open_counter_reader, open_counters, open_gate
from trinity_site.sources import open_admission, open_spool

_pages: Any = django_application  # Any: its types of ASGI are narrower than uvicorn's


class ReportApplication:
    def __init__(self, *, row: int) -> None:
        self._lifespan = Lifespan(lambda: open_reports(settings, row=row), lambda _: {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan.live(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # live pages have their own port
        elif self._is_page(scope):
            await _pages(scope, receive, send)
        else:
            api = await self._lifespan.opened()
            await api(scope, receive, send)

    def _is_page(self, scope: Scope) -> bool:
        on_health_port = (scope.get("server") or (None, None))[1] == settings.TRINITY_REPORTS_HEALTH_PORT
        return not on_health_port and (
            scope["path"] == "/docs" or scope["path"].startswith(settings.STATIC_URL)
        )


@asynccontextmanager
async def open_reports(settings: LazySettings, *, row: int) -> AsyncIterator[ReportApi]:
    """Open what a report worker that counts in *row* needs, and close it all on leaving.

    A worker without a database starts all the same, and says so.
    """
    node, folder, parameters = settings.CLUSTER_NODE, settings.TRINITY_DATA_DIR, ReportParameters()
    async with AsyncExitStack() as stack:
        counters = stack.enter_context(open_counters(node, folder, worker=row))
        gate = stack.enter_context(open_gate(node, folder, rows=settings.TRINITY_GATE_ROWS))
        board = stack.enter_context(open_board_reader(node, folder, slots=settings.TRINITY_BOARD_SLOTS))
        counted = stack.enter_context(open_counter_reader(node, folder))
        spool = await open_spool(stack, settings, counters, row=row)
        workers = settings.TRINITY_REPORT_WORKERS
        admission = await open_admission(stack, settings, gate, counters, spool.appender, workers=workers)
        secret = hashlib.sha256(b"report cursors\n" + settings.SECRET_KEY.encode()).digest()
        maker = Maker(secret, parameters)
        stack.callback(maker.close)
        metrics = Metrics(board, gate, counted, time.monotonic_ns, spool=spool.state, tier2=None, worker=row)
        yield ReportApi(
            maker,
            Room(parameters.at_once, parameters.at_once_of_account),
            Room(parameters.asked_at_once, parameters.asked_at_once_of_account),
            admission,
            counters,
            metrics,
            secret=secret,
            health_port=settings.TRINITY_REPORTS_HEALTH_PORT,
        )
