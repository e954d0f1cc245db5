"""A feed process in miniature: the real manager over a board in memory, fed by the simulator."""

from __future__ import annotations

import asyncio
import csv
import json
import mmap
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from exchanges.feed.connection import Network
from exchanges.feed.feed import Liveness
from exchanges.feed.line import Redialling
from exchanges.feed.manager import FeedManager, Rhythm
from exchanges.feed.spec import FeedSpec, Listing, parse_feed
from exchanges.feed.status import FeedStatus, NodeStatus, decode_status
from exchanges.simulator.server import Simulator
from pricing._board import Price, board_size, format_board
from pricing._board_writer import BoardWriter

FIXTURES = Path(__file__).parents[3] / "exchanges" / "fixtures"
SIX = ("coinbase", "gemini", "kraken", "gateio", "bybit", "okx")
ASSETS = ("BTC", "ETH", "SOL")
SLOTS = 256

QUICK = Rhythm(
    poll_s=0.05,
    beat_s=0.05,
    liveness=Liveness(stuck_after_s=0.5, peer_fresh_s=5.0),
    redialling=Redialling(first_s=0.05, quick_cap_s=0.2, quick_for_s=60.0, probe_s=0.05),
)
LOOPBACK = Network(
    allow_loopback=True, open_timeout_s=1.0, ping_interval_s=0.2, ping_timeout_s=0.2, close_timeout_s=0.2
)


class Tables(NamedTuple):
    feeds: tuple[FeedSpec, ...]
    listings: tuple[Listing, ...]
    invalid: dict[str, str]


def shipped_spec(name: str, **quirks: Any) -> FeedSpec:  # Any: JSON
    """Return the row of *name* as it is shipped, dialled without the gap that exchanges ask for."""
    row = json.loads((FIXTURES / "feeds" / f"{name}.json").read_text())
    row = row.get("feed", row)
    connect = {**row["quirks"].get("connect", {}), "min_gap_s": 0}
    return parse_feed({**row, "enabled": True, "quirks": {**row["quirks"], "connect": connect, **quirks}})


def shipped_listings(name: str, assets: Iterable[str] = ASSETS) -> list[Listing]:
    wanted = set(assets)
    with (FIXTURES / "assets.csv").open() as file:
        return [
            Listing(asset=row["asset"], exchange=name, symbol=row["symbol"], home=name == "coinbase")
            for row in csv.DictReader(file)
            if row["exchange"] == name and row["asset"] in wanted
        ]


class Count(Counter[int]):
    """A row of counters."""

    def add(self, index: int, n: int = 1, /) -> None:
        self[index] += n


class FeedNode:
    """Run the manager; `feeds` and `listings` are its tables, `publish()` says that they have changed."""

    def __init__(
        self,
        simulator: Simulator | None = None,
        *,
        names: Sequence[str] = (),
        rhythm: Rhythm = QUICK,
        network: Network = LOOPBACK,
        slots: int = SLOTS,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        buffer = mmap.mmap(-1, board_size(slots))
        format_board(buffer, slots)
        self.board = BoardWriter(buffer, os.getpid(), time.monotonic_ns())
        self.counters = Count()
        self.feeds = {name: shipped_spec(name) for name in names}
        self.listings = [row for name in names for row in shipped_listings(name)]
        self.invalid: dict[str, str] = {}
        self.stop = asyncio.Event()
        self.loads = 0
        self._revision = 1
        self.manager = FeedManager(
            revision=self.revision,
            load=self.load,
            board=self.board,
            counters=self.counters,
            network=network,
            ask_token=self.no_token,
            simulator_url=simulator.url if simulator else "",
            rhythm=rhythm,
            uniform=uniform,
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.manager.run(self.stop), name="manager")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self.stop.set()
        async with asyncio.timeout(5):
            await self._task

    async def revision(self) -> int:
        return self._revision

    async def load(self) -> Tables:
        self.loads += 1
        return Tables(tuple(self.feeds.values()), tuple(self.listings), self.invalid)

    async def no_token(self, url: str, network: Network) -> bytes:
        raise AssertionError("no row here asks for a token")

    def publish(self) -> None:
        self._revision += 1

    def change(self, name: str, **columns: Any) -> None:  # Any: values of FeedSpec
        self.feeds[name] = msgspec.structs.replace(self.feeds[name], **columns)
        self.publish()

    # What can be seen

    def price(self, exchange: str, asset: str = "BTC") -> Price | None:
        return self.board.get(asset, exchange)

    def received_ns(self, exchange: str, asset: str = "BTC") -> int:
        price = self.price(exchange, asset)
        return price.received_mono_ns if price else 0

    def status(self, name: str) -> FeedStatus:
        node = decode_status(self.board.status())
        return node.feeds[name] if isinstance(node, NodeStatus) else FeedStatus(state="connecting")

    async def until(self, condition: Callable[[], bool], *, timeout_s: float = 5.0, what: str = "") -> float:
        """Wait until *condition* holds and return how long that took, in seconds."""
        began = time.monotonic()
        while not condition():  # memory has no event to wait for
            if time.monotonic() - began > timeout_s:
                raise AssertionError(f"not within {timeout_s} s: {what or condition}")
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def until_live(self, *names: str) -> None:
        await self.until(
            lambda: all(self.price(name, row.asset) for name in names for row in self.listings
                        if row.exchange == name and row.prewarm),
            what=f"prices of {names}",
        )  # fmt: skip

    async def until_fresh(self, name: str, *, timeout_s: float = 5.0, asset: str = "BTC") -> float:
        """Wait for a trade that comes after this call."""
        now_ns = time.monotonic_ns()
        return await self.until(
            lambda: self.received_ns(name, asset) > now_ns, timeout_s=timeout_s, what=f"a trade of {name}"
        )
