"""What the board says about feeds and prices at one instant, for the command centre and its endpoints."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from asgiref.sync import async_to_sync
from django.http import HttpRequest

from exchanges.feed.reasons import USUAL
from exchanges.feed.status import FeedStatus, NodeStatus, decode_status
from pricing.board import Board, PriceLike
from pricing.health import exchange_ages_ms
from pricing.parameters import MS, Parameters

Place = tuple[str, str]
"""An asset and an exchange."""

SILENT = "silent"
UNKNOWN = "unknown"
TROUBLE_NS = 60 * 10**9


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
    at_ns: int = 0
    """When the feed process wrote *status*, on its wall clock."""

    @property
    def is_live(self) -> bool:
        return self.state == "live"

    @property
    def refused_ticks(self) -> int:
        return sum(self.status.refusals.values())

    @property
    def troubles(self) -> list[str]:
        """The reasons that somebody should look into, of ticks refused within the last minute."""
        since_ns = self.at_ns - TROUBLE_NS
        recent = {tick.reason for tick in self.status.recent_refusals if tick.at_ns >= since_ns}
        return sorted(recent - USUAL)


@dataclass(frozen=True, slots=True)
class Live:
    """What is known at one instant: nothing without a board; a dead feed process is not *reporting*."""

    known: bool = False
    reporting: bool = False
    feeds: dict[str, LiveFeed] = field(default_factory=dict)
    prices: dict[Place, LivePrice] = field(default_factory=dict)

    @property
    def explanation(self) -> str:
        """Say why there is nothing live; empty when there is."""
        if not self.known:
            return "This process has no price board: nothing live is known."
        return "" if self.reporting else "The feed process does not report: ages grow until it is back."

    def feed(self, name: str) -> LiveFeed:
        return self.feeds.get(name) or LiveFeed(UNKNOWN, "Nothing is known of it yet.")


def live_now(request: HttpRequest, places: Iterable[Place] = ()) -> Live:
    """Read the state of the feeds, and the prices of *places*, as of now.

    The board belongs to the event loop's thread: a view in a thread of its own has the loop read it.
    """
    board = board_of(request)
    if board is None:
        return Live()
    return async_to_sync(_read_in_loop)(board, tuple(places))


def board_of(request: HttpRequest) -> Board | None:
    """Find the board that the server put into the request's state; None where there is no such server."""
    runtime = getattr(request, "scope", {}).get("state", {}).get("runtime")
    return getattr(runtime, "board", None)


async def _read_in_loop(board: Board, places: tuple[Place, ...]) -> Live:
    return read_live(board, places, mono_ns=time.monotonic_ns())


def read_live(
    board: Board, places: Iterable[Place], *, mono_ns: int, parameters: Parameters | None = None
) -> Live:
    parameters = parameters or Parameters()
    reporting = board.heartbeat_mono_ns > 0 and (
        mono_ns - board.heartbeat_mono_ns <= parameters.heartbeat_ms * MS
    )
    status = decode_status(board.status()) or NodeStatus(generated_ns=0)
    ages = exchange_ages_ms(board, mono_ns)
    feeds = {
        name: LiveFeed(
            state=feed.state if reporting else SILENT,
            detail=feed.detail if reporting else "The feed process does not report.",
            ticks=feed.ticks,
            last_tick_age_ms=ages.get(name),
            status=feed,
            at_ns=status.generated_ns,
        )
        for name, feed in status.feeds.items()
    }
    found = {place: price for place in places if (price := board.get(*place))}
    prices = {place: _live_price(price, mono_ns, parameters) for place, price in found.items()}
    return Live(True, reporting, feeds, prices)


def _live_price(price: PriceLike, mono_ns: int, parameters: Parameters) -> LivePrice:
    age_ms = price.age_ns(mono_ns) // MS
    return LivePrice(price.price, price.source, age_ms, fresh=age_ms <= parameters.price_ttl_ms)
