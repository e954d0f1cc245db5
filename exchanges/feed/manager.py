"""Runs every feed and follows the tables: what changed is changed, what did not keeps its connection."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from exchanges.feed.backoff import Pacing
from exchanges.feed.connection import AskToken, Network
from exchanges.feed.feed import Feed, Liveness
from exchanges.feed.intake import Intake
from exchanges.feed.line import Line, Redialling
from exchanges.feed.spec import FeedSpec, Listing
from exchanges.feed.status import FeedStatus, NodeStatus, encode_status
from pricing._board import STATUS_BYTES
from pricing._board_writer import BoardWriter
from pricing.exceptions import BoardFull
from telemetry._counters import FEED_RECONNECTS, FEED_TICKS
from telemetry.running import repeat

logger = logging.getLogger(__name__)


class Tables(Protocol):
    """Both exchange tables at one instant (exchanges.services.ExchangeTables)."""

    @property
    def feeds(self) -> tuple[FeedSpec, ...]: ...
    @property
    def listings(self) -> tuple[Listing, ...]: ...
    @property
    def invalid(self) -> Mapping[str, str]: ...


class CounterRow(Protocol):
    def add(self, index: int, n: int = 1, /) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often the manager looks, and how the feeds behave in time."""

    poll_s: float = 0.5
    beat_s: float = 1.0
    liveness: Liveness = field(default_factory=Liveness)
    redialling: Redialling = field(default_factory=Redialling)


class FeedManager:
    """Owns every feed. `run` once."""

    def __init__(
        self,
        *,
        revision: Callable[[], Awaitable[int]],
        load: Callable[[], Awaitable[Tables]],
        board: BoardWriter,
        counters: CounterRow,
        network: Network,
        ask_token: AskToken,
        simulator_url: str = "",
        rhythm: Rhythm | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.feeds: dict[str, Feed] = {}
        self._read_revision = revision
        self._load = load
        self._board = board
        self._counters = counters
        self._network = network
        self._simulator_url = simulator_url
        self._rhythm = rhythm or Rhythm()
        self._ask_token = ask_token
        self._uniform = uniform
        self._revision: int | None = None
        self._idle: dict[str, FeedStatus] = {}
        self._pacings: dict[str, tuple[tuple[float, float, int], Pacing]] = {}
        self._homes: dict[str, str] = {}
        self._counted_ticks = self._counted_reconnects = 0
        self._past_ticks = self._past_reconnects = 0
        self._group: asyncio.TaskGroup | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the feeds running until *stop* is set, then close every connection."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                follow = repeat(self.refresh, self._rhythm.poll_s, "Feeds: following the tables")
                beat = repeat(self._beat, self._rhythm.beat_s, "Feeds: the heartbeat")
                own = [
                    group.create_task(follow, name="feeds:follow"),
                    group.create_task(beat, name="feeds:beat"),
                ]
                await stop.wait()
                for task in own:
                    task.cancel()
                for feed in self.feeds.values():
                    feed.stop(keep=feed.intake.assets)  # the last prices stay, and grow old
        finally:
            self._group = None
            self._count()

    def assets(self) -> set[str]:
        """Return every asset that a feed writes."""
        return {asset for feed in self.feeds.values() for asset in feed.intake.assets}

    # Following the tables

    async def refresh(self) -> None:
        """Read the tables again if they have changed, and take the change over."""
        revision = await self._read_revision()
        if revision == self._revision:
            return
        self._apply(await self._load())
        self._revision = revision  # read first: a change in between is seen again, and never missed

    def _apply(self, tables: Tables) -> None:
        specs = {spec.name: self._placed(spec) for spec in tables.feeds}
        wanted: dict[str, list[Listing]] = {name: [] for name, spec in specs.items() if spec.enabled}
        for row in tables.listings:
            if row.prewarm and row.exchange in wanted:  # `enabled` only says whether it is shown
                wanted[row.exchange].append(row)
        if self._revision is None:
            self._take_over(wanted)
        for name in set(self.feeds) - set(wanted):
            self._retire(self.feeds.pop(name), keep=())
        for name, listings in wanted.items():
            self._follow(specs[name], listings)
        self._set_homes(wanted.values())
        self._idle = {name: FeedStatus(state="disabled") for name in specs if name not in wanted}
        for name, reason in tables.invalid.items():
            self._idle[name] = FeedStatus(state="refused", detail=reason)

    def _take_over(self, wanted: Mapping[str, Iterable[Listing]]) -> None:
        """Clear what the writer before this one left on the board for listings that are gone since."""
        listed = {(row.asset, name) for name, listings in wanted.items() for row in listings}
        names = [row.name for row in self._board.exchanges()]
        for asset in self._board.assets():
            for name in names:
                if (asset, name) not in listed:
                    self._board.remove(asset, name)
            if home := self._board.home(asset):
                self._homes[asset] = home

    def _placed(self, spec: FeedSpec) -> FeedSpec:
        return spec.simulated(self._simulator_url) if self._simulator_url else spec

    def _follow(self, spec: FeedSpec, listings: Sequence[Listing]) -> None:
        """Give a feed its listings; start it where there is none, or another row's."""
        old = self.feeds.get(spec.name)
        if old is not None and _runs_alike(old.spec, spec):
            old.follow(listings)
            return
        feed = self.feeds[spec.name] = self._new_feed(spec)
        feed.follow(listings)
        if old is not None:
            self._retire(old, keep=feed.intake.assets)

    def _new_feed(self, spec: FeedSpec) -> Feed:
        group = self._group
        assert group is not None, "feeds run in the task group of run()"
        intake = Intake(spec, self._board, self._held_elsewhere)

        def make_line(symbols: Sequence[str]) -> Line:
            return Line(
                spec,
                symbols,
                network=self._network,
                sink=intake,
                pacing=self._pacing(spec),
                redialling=self._rhythm.redialling,
                ask_token=self._ask_token,
                uniform=self._uniform,
            )

        def spawn(line: Line, name: str) -> asyncio.Task[None]:
            return group.create_task(line.run(), name=name)

        return Feed(spec, intake, make_line, spawn)

    def _held_elsewhere(self, asset: str, name: str) -> list[str]:
        wall_ns = time.time_ns()
        others = [feed.intake for feed in self.feeds.values() if feed.spec.name != name]
        return [price for intake in others for price in intake.held(asset, wall_ns)]

    def _retire(self, feed: Feed, *, keep: Collection[str]) -> None:
        feed.stop(keep=keep)
        self._past_ticks += feed.intake.written
        self._past_reconnects += feed.reconnects

    def _pacing(self, spec: FeedSpec) -> Pacing:
        """Return what an exchange's connections share; it outlives changes of the row, as the bans do."""
        connect = spec.quirks.connect
        rule = connect.min_gap_s, connect.window_s, connect.window_attempts
        known = self._pacings.get(spec.name)
        if known is None or known[0] != rule:
            pacing = Pacing(min_gap_s=rule[0], window_s=rule[1], window_attempts=rule[2])
            known = self._pacings[spec.name] = rule, pacing
        return known[1]

    def _set_homes(self, followed: Iterable[Sequence[Listing]]) -> None:
        homes = {row.asset: row.exchange for listings in followed for row in listings if row.home}
        for asset in self._homes.keys() - homes.keys():
            self._board.set_home(asset, None)
            del self._homes[asset]
        for asset, exchange in homes.items():
            if self._homes.get(asset) == exchange:
                continue
            try:
                self._board.set_home(asset, exchange)
            except (BoardFull, KeyError) as error:  # the exchange or the asset found no room there
                logger.error("No home for %s at %s: %s", asset, exchange, error)
            else:
                self._homes[asset] = exchange

    # The heartbeat

    async def _beat(self) -> None:
        wall_ns, mono_ns = time.time_ns(), time.monotonic_ns()
        self._board.beat(mono_ns)
        for feed in self.feeds.values():
            feed.intake.release_confirmed(wall_ns, mono_ns)
        self._count()
        liveness = self._rhythm.liveness
        feeds = {name: feed.status(wall_ns, mono_ns, liveness) for name, feed in self.feeds.items()}
        status = NodeStatus(generated_ns=wall_ns, feeds=self._idle | feeds)
        self._board.write_status(encode_status(status, limit_bytes=STATUS_BYTES))

    def _count(self) -> None:
        ticks = self._past_ticks + sum(feed.intake.written for feed in self.feeds.values())
        reconnects = self._past_reconnects + sum(feed.reconnects for feed in self.feeds.values())
        self._counters.add(FEED_TICKS, ticks - self._counted_ticks)
        self._counters.add(FEED_RECONNECTS, reconnects - self._counted_reconnects)
        self._counted_ticks, self._counted_reconnects = ticks, reconnects


def _runs_alike(one: FeedSpec, other: FeedSpec) -> bool:
    return msgspec.structs.replace(one, display_name=other.display_name) == other
