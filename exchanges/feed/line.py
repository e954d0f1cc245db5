"""One connection's place in a feed: dials, and dials again, for as long as it is wanted.

How soon it dials again. Exchanges ban clients that redial without end, so the delay doubles to a minute,
with full jitter. But recovery within 5 s of the cause's end is promised, and nobody says when a cause ends.
So for the first two minutes of an outage the delay stays below 3 s, which is within every known window of
attempts; after that the host of an exchange that could not be reached is tried for a bare TCP connection,
which costs an exchange nothing, and a full attempt follows as soon as it answers. Only where an exchange
has answered and refused for longer than two minutes can recovery take up to a minute.

Feeds that are dropped together (18 clients of three nodes) spread only over the first second, and then over
3 s: a host that is back meets them nearly at once. That is few enough for every known limit; the full jitter
keeps them from coming in step.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from exchanges.addresses import WEBSOCKET, check_url, open_socket
from exchanges.exceptions import AddressRefused
from exchanges.feed.backoff import CAP_S, FIRST_S, SETTLED_S, Backoff, Pacing
from exchanges.feed.connection import AskToken, Ended, FeedConnection, Network, Sink, socket_url
from exchanges.feed.protocol import FeedProtocol
from exchanges.feed.spec import FeedSpec
from exchanges.feed.status import FeedState

QUIET_AFTER_NS: Final = 10 * 10**9

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redialling:
    """How soon to dial again; see the module's docstring."""

    first_s: float = FIRST_S
    quick_cap_s: float = 3.0
    quick_for_s: float = 120.0
    cap_s: float = CAP_S
    probe_s: float = 1.5


class Line:
    """A set of symbols and the connection that carries them, renewed until the task is cancelled."""

    def __init__(
        self,
        spec: FeedSpec,
        symbols: Iterable[str],
        *,
        network: Network,
        sink: Sink,
        pacing: Pacing,
        redialling: Redialling,
        ask_token: AskToken,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.symbols = dict.fromkeys(symbols)
        self.connection: FeedConnection | None = None
        self.reconnects = 0
        self.ended: Ended | None = None
        self.waiting = False
        self._past_frames = 0
        self._spec = spec
        self._network = network
        self._sink = sink
        self._pacing = pacing
        self._redialling = redialling
        self._ask_token = ask_token
        self._quick = Backoff(uniform, first_s=redialling.first_s, cap_s=redialling.quick_cap_s)
        self._slow = Backoff(uniform, first_s=redialling.first_s, cap_s=redialling.cap_s)
        self._down_since_s: float | None = None

    @property
    def frames(self) -> int:
        return self._past_frames + (self.connection.frames if self.connection else 0)

    async def run(self) -> None:
        """Keep the connection up. Never returns, and raises nothing but CancelledError."""
        while True:
            try:
                await self._wait_for_turn()
                self.ended = await self._converse()
            except Exception:
                logger.exception("Feed %s: a connection ended with an error of this program", self._spec.name)
                self.ended = Ended("internal error, see the log")
            self.reconnects += 1

    def subscribe(self, symbols: Iterable[str]) -> None:
        new = list(symbols)
        self.symbols.update(dict.fromkeys(new))
        if self.connection is not None:
            self.connection.subscribe(new)

    def unsubscribe(self, symbols: Iterable[str]) -> None:
        gone = [symbol for symbol in symbols if symbol in self.symbols]
        for symbol in gone:
            del self.symbols[symbol]
        if gone and self.connection is not None:
            self.connection.unsubscribe(gone)

    def state(self, mono_ns: int) -> tuple[FeedState, str]:
        """Return what is going on, and a word on why."""
        last = self.ended.reason if self.ended else ""
        if self.connection is None:
            if self.ended is not None and self.ended.refused:
                return "refused", last
            return ("backoff" if self.waiting and self.ended else "connecting"), last
        protocol = self.connection.protocol
        if not self.connection.open:
            return "connecting", last
        if protocol.paused:
            return "paused", protocol.paused
        if not protocol.connected_for_data:
            if protocol.trades:
                return "quiet", last or "no trade of use so far: all of them old, or refused"
            return "connecting", last or "waiting for the first trade"
        quiet = mono_ns - protocol.last_tick_mono_ns > QUIET_AFTER_NS
        return ("quiet", "no trade lately") if quiet else ("live", "")

    async def _converse(self) -> Ended:
        protocol = FeedProtocol(self._spec, list(self.symbols), uuid=lambda: str(uuid4()))
        self.connection = connection = FeedConnection(
            protocol, network=self._network, sink=self._sink, ask_token=self._ask_token
        )
        try:
            return await connection.run()
        finally:
            self._past_frames += connection.frames
            self.connection = None
            flowed_s = (protocol.last_tick_mono_ns - protocol.first_tick_mono_ns) / 1e9
            self._note_end(flowed_s)

    def _note_end(self, flowed_s: float) -> None:
        self._quick.ended(flowed_s)
        self._slow.ended(flowed_s)
        if self._down_since_s is None or flowed_s >= SETTLED_S:
            self._down_since_s = time.monotonic()

    async def _wait_for_turn(self) -> None:
        self.waiting = True
        if self.ended is not None:
            await self._back_off(self.ended)
        mono_ns = time.monotonic_ns()
        await asyncio.sleep((self._pacing.reserve(mono_ns) - mono_ns) / 1e9)
        self.waiting = False

    async def _back_off(self, ended: Ended) -> None:
        rules = self._redialling
        down_s = time.monotonic() - (self._down_since_s or time.monotonic())
        backoff = self._quick if down_s < rules.quick_for_s else self._slow
        delay_s = max(backoff.next_delay_s(), ended.retry_after_s)
        logger.warning("Feed %s: %s; dialling again in %.1f s", self._spec.name, ended.reason, delay_s)
        if ended.unreachable and delay_s > rules.probe_s:
            await self._until_reachable(delay_s)
        else:
            await asyncio.sleep(delay_s)

    async def _until_reachable(self, limit_s: float) -> None:
        """Wait until the host takes a TCP connection, at most *limit_s*."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + limit_s
        while (left_s := end_s - loop.time()) > 0:
            await asyncio.sleep(min(left_s, self._redialling.probe_s))
            if await self._is_reachable():
                return

    async def _is_reachable(self) -> bool:
        network = self._network
        url = socket_url(self._spec, list(self.symbols))
        try:
            endpoint = check_url(url, schemes=WEBSOCKET, allow_loopback=network.allow_loopback)
            sock = await open_socket(
                endpoint.host,
                endpoint.port,
                allow_loopback=network.allow_loopback,
                timeout_s=self._redialling.probe_s,
                resolver=network.resolver,
            )
        except (AddressRefused, OSError):
            return False
        sock.close()
        return True
