"""What the board says about feeds and prices at one instant, for the command centre and its endpoints."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from asgiref.sync import async_to_sync
from django.http import HttpRequest

from exchanges.feed.status import FeedStatus, decode_status
from pricing.board import Board, ExchangeRow, PriceLike
from pricing.parameters import MS, Parameters

Pair = tuple[str, str]
"""An asset and an exchange."""

SILENT = "silent"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LivePrice:
    price: str
    source: str
    age_ms: int
    fresh: bool


@dataclass(frozen=True, slots=True)
class LiveFeed:
    """One feed's state; `silent` when the feed process has stopped, `unknown` when nothing is known of it."""

    state: str
    detail: str = ""
    ticks: int = 0
    last_tick_age_ms: int | None = None
    status: FeedStatus = field(default_factory=lambda: FeedStatus(state="disabled"))

    @property
    def is_live(self) -> bool:
        return self.state == "live"


@dataclass(frozen=True, slots=True)
class Live:
    """A snapshot. Without a board *known* is false; with a dead feed process *reporting* is."""

    known: bool = False
    reporting: bool = False
    feeds: dict[str, LiveFeed] = field(default_factory=dict)
    prices: dict[Pair, LivePrice] = field(default_factory=dict)

    @property
    def explanation(self) -> str:
        """Say why there is nothing live; empty when there is."""
        if not self.known:
            return "This process has no price board: nothing live is known."
        return "" if self.reporting else "The feed process does not report: ages grow until it is back."

    def feed(self, name: str) -> LiveFeed:
        return self.feeds.get(name) or LiveFeed(UNKNOWN, "Nothing is known of it yet.")


def live_now(request: HttpRequest, pairs: Iterable[Pair] = ()) -> Live:
    """Take a snapshot of the feeds, and of the prices of *pairs*.

    The board belongs to the event loop's thread: a view in a thread of its own has the loop read it.
    """
    board = board_of(request)
    if board is None:
        return Live()
    return async_to_sync(_read_in_loop)(board, tuple(pairs))


def board_of(request: HttpRequest) -> Board | None:
    """Find the board that the server put into the request's state; None where there is no such server."""
    runtime = getattr(request, "scope", {}).get("state", {}).get("runtime")
    return getattr(runtime, "board", None)


async def _read_in_loop(board: Board, pairs: tuple[Pair, ...]) -> Live:
    return read_live(board, pairs, mono_ns=time.monotonic_ns())


def read_live(
    board: Board, pairs: Iterable[Pair], *, mono_ns: int, parameters: Parameters | None = None
) -> Live:
    parameters = parameters or Parameters()
    reporting = board.heartbeat_mono_ns > 0 and (
        mono_ns - board.heartbeat_mono_ns <= parameters.heartbeat_ms * MS
    )
    status = decode_status(board.status())
    rows = {row.name: row for row in board.exchanges()}
    feeds = {
        name: _live_feed(feed, rows.get(name), mono_ns, reporting=reporting)
        for name, feed in (status.feeds if status else {}).items()
    }
    found = {pair: price for pair in pairs if (price := board.get(*pair))}
    prices = {pair: _live_price(price, mono_ns, parameters) for pair, price in found.items()}
    return Live(True, reporting, feeds, prices)


def _live_feed(feed: FeedStatus, row: ExchangeRow | None, mono_ns: int, *, reporting: bool) -> LiveFeed:
    last = row.last_tick_mono_ns if row else 0
    return LiveFeed(
        state=feed.state if reporting else SILENT,
        detail=feed.detail if reporting else "The feed process does not report.",
        ticks=feed.ticks,
        last_tick_age_ms=(mono_ns - last) // MS if last else None,
        status=feed,
    )


def _live_price(price: PriceLike, mono_ns: int, parameters: Parameters) -> LivePrice:
    age_ms = price.age_ns(mono_ns) // MS
    return LivePrice(price.price, price.source, age_ms, fresh=age_ms <= parameters.price_ttl_ms)
