"""What open pages watch: a reading of the board once a second, shared by everybody who looks at it.

What is read is in `readings.py`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import msgspec

from exchanges.live import read_live
from pricing._board import BoardReader
from pricing.catalogue import PublicView
from pricing.parameters import Parameters
from telemetry.running import repeat
from telemetry.traffic import Traffic
from trinity_site.readings import (
    Clock,
    PublicReading,
    feed_rows,
    figure_rows,
    figures,
    homes_of,
    listing_rows,
    traffic_figures,
)

PUBLIC_WATCHERS = 1_000  # of the 4,000 connections of a worker: watching pages cannot keep questions out
STAFF_WATCHERS = 100
INTERVAL_S = 1.0
SIGN_OF_LIFE_S = 10.0  # a page that hears nothing for longer than this knows that the line is dead

Rows = Mapping[str, object]


class TooManyWatchers(Exception):
    """As many pages watch as this process has room for."""


class Broadcast:
    """Rows under names, read once a second whoever watches, and told as JSON.

    A message is `{"full", "now_ms", "rows", "gone"}`: first everything, then what has changed. Nobody waits
    for anybody: a slow watcher skips what it missed and is told everything again, so that nothing piles up.
    """

    def __init__(
        self, read: Callable[[], Rows], now_ms: Callable[[], int], *, limit: int, on_demand: bool = False
    ) -> None:
        self._read = read
        self._now_ms = now_ms
        self._limit = limit
        self._on_demand = on_demand
        self._watched = asyncio.Event()
        self._changed = asyncio.Event()  # set once, when `_version` rises, and replaced by a new one
        self._version = 0
        self._rows: Rows = {}
        self._changes = b""
        self._all: bytes | None = None  # rendered for the first who needs it, of each version
        self._silent_s = 0.0
        self.watchers = 0

    async def run(self) -> None:
        """Read until cancelled; with *on_demand* only while somebody watches."""
        await repeat(self._look, INTERVAL_S, "Reading the board for the pages that watch it")

    async def _look(self) -> None:
        if self._on_demand:
            await self._watched.wait()
        self.refresh()

    def refresh(self) -> None:
        """Read once and tell the watchers what is new, or after a while that nothing is."""
        rows = self._read()
        changed = {name: row for name, row in rows.items() if self._rows.get(name) != row}
        gone = [name for name in self._rows if name not in rows]
        self._silent_s += INTERVAL_S
        if not changed and not gone and self._silent_s < SIGN_OF_LIFE_S:
            return
        self._silent_s = 0.0
        self._rows = rows
        self._changes = self._render(changed, gone, full=False)
        self._all = None
        self._version += 1
        woken, self._changed = self._changed, asyncio.Event()
        woken.set()

    @contextmanager
    def watch(self) -> Iterator[AsyncIterator[bytes]]:
        """Take a place among the watchers, for their messages. Raises TooManyWatchers."""
        if self.watchers >= self._limit:
            raise TooManyWatchers
        if self.watchers == 0 and self._on_demand:
            self.refresh()  # what was read for the last watcher may be long past
        self.watchers += 1
        self._watched.set()
        try:
            yield self._messages()
        finally:
            self.watchers -= 1
            if self.watchers == 0:
                self._watched.clear()

    async def _messages(self) -> AsyncIterator[bytes]:
        told = -1
        while True:
            if told == self._version:
                await self._changed.wait()
            message = self._changes if told == self._version - 1 and told >= 0 else self._everything()
            told = self._version
            yield message

    def _everything(self) -> bytes:
        if self._all is None:
            self._all = self._render(self._rows, [], full=True)
        return self._all

    def _render(self, rows: Rows, gone: list[str], *, full: bool) -> bytes:
        message = {"full": full, "now_ms": self._now_ms(), "rows": rows, "gone": gone}
        return msgspec.json.encode(message)


class Live:
    """What one process tells the pages that watch."""

    def __init__(
        self, board: BoardReader, view: PublicView, parameters: Parameters, traffic: Traffic
    ) -> None:
        self._board = board
        self._view = view
        self._parameters = parameters
        self._traffic = traffic
        self._clock = clock = Clock(time.monotonic_ns)
        self.reading = PublicReading(board, view, parameters, clock)
        self.prices = Broadcast(self.reading.read, clock.now_ms, limit=PUBLIC_WATCHERS)
        self.feeds = Broadcast(self._read_feeds, clock.now_ms, limit=STAFF_WATCHERS, on_demand=True)

    @asynccontextmanager
    async def listings(self, listings: list[tuple[str, str]]) -> AsyncIterator[Broadcast]:
        """Broadcast these listings' prices to one page, until the context is left."""

        def read() -> Rows:
            return listing_rows(self._board, listings, self._parameters, self._clock)

        broadcast = Broadcast(read, self._clock.now_ms, limit=1, on_demand=True)
        async with running(broadcast):
            yield broadcast

    def _read_feeds(self) -> Rows:
        catalogue, mono_ns = self._view.catalogue(), self._clock.mono_ns()
        now = read_live(self._board, homes_of(catalogue), mono_ns=mono_ns, parameters=self._parameters)
        feeds = feed_rows(now, self._board.exchanges(), self._clock)
        since_reset, _ = self._traffic.since_reset()
        shown = [*figures(now, catalogue), *traffic_figures(self._traffic.lately(), since_reset)]
        return {**feeds, **figure_rows(shown, self._clock)}


@asynccontextmanager
async def open_live(
    board: BoardReader, view: PublicView, parameters: Parameters, traffic: Traffic
) -> AsyncIterator[Live]:
    """Keep reading the board for the pages until the context is left."""
    live = Live(board, view, parameters, traffic)
    async with running(live.prices, live.feeds):
        yield live


@asynccontextmanager
async def running(*broadcasts: Broadcast) -> AsyncIterator[None]:
    """Run broadcasts until the context is left."""
    tasks = [asyncio.create_task(broadcast.run(), name="live") for broadcast in broadcasts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
