"""One exchange's feed: its symbols over its connections, and what it says of itself."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from exchanges.feed.intake import SECOND_NS, Intake
from exchanges.feed.line import Line
from exchanges.feed.spec import FeedSpec, Listing
from exchanges.feed.status import FeedState, FeedStatus

# The state of a feed with several connections is that of its best one.
_ORDER: Final[Sequence[FeedState]] = ("live", "paused", "quiet", "connecting", "backoff", "refused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """When an asset counts as stuck: not traded here for so long, while others traded it that recently."""

    stuck_after_s: float = 120.0
    peer_fresh_s: float = 10.0


MakeLine = Callable[[Sequence[str]], Line]
Spawn = Callable[[Line, str], asyncio.Task[None]]


class Feed:
    """One exchange: its lines, and the intake they share."""

    def __init__(self, spec: FeedSpec, intake: Intake, make_line: MakeLine, spawn: Spawn) -> None:
        self.spec = spec
        self.intake = intake
        self.lines: dict[Line, asyncio.Task[None]] = {}
        self.past_reconnects = 0
        self.state: FeedState = "connecting"
        self.since_ns = time.time_ns()
        self._make_line = make_line
        self._spawn = spawn
        self._ticks_before, self._since_mono_ns = 0, time.monotonic_ns()

    def follow(self, listings: Iterable[Listing]) -> None:
        """Subscribe what is new and let go of what is gone, on the connections there are."""
        new, gone = self.intake.follow(listings)
        if gone:
            self._drop(gone)
        limit = self.spec.quirks.symbols_per_connection or sys.maxsize
        for line in self.lines:
            if room := new[: limit - len(line.symbols)]:
                line.subscribe(room)
                new = new[len(room) :]
        while new:
            self._add_line(new[:limit])
            new = new[limit:]

    def _drop(self, symbols: Sequence[str]) -> None:
        for line in list(self.lines):
            line.unsubscribe(symbols)
            if not line.symbols:
                self._cancel(line)

    def _add_line(self, symbols: Sequence[str]) -> None:
        line = self._make_line(symbols)
        self.lines[line] = self._spawn(line, f"feed:{self.spec.name}:{len(self.lines)}")

    def _cancel(self, line: Line) -> None:
        self.past_reconnects += line.reconnects
        self.lines.pop(line).cancel()

    def stop(self, *, keep: Collection[str]) -> None:
        """Let nothing more through and close the connections; only the prices of *keep* stay on the board."""
        self.intake.close(keep=keep)
        for line in list(self.lines):
            self._cancel(line)

    @property
    def reconnects(self) -> int:
        return self.past_reconnects + sum(line.reconnects for line in self.lines)

    def status(self, wall_ns: int, mono_ns: int, liveness: Liveness) -> FeedStatus:
        states = [line.state(mono_ns) for line in self.lines] or [self._state_without_lines()]
        state, detail = min(states, key=lambda pair: _ORDER.index(pair[0]))
        if state != self.state:
            self.state, self.since_ns = state, wall_ns
        protocols = [one.protocol for line in self.lines if (one := line.connection) and one.open]
        symbols = [symbol for protocol in protocols for symbol in protocol.symbol_states().values()]
        refused = {one.symbol: one.detail for one in symbols if one.state == "refused"}
        return FeedStatus(
            state=state,
            detail=detail,
            since_ns=self.since_ns,
            connections=len(protocols),
            symbols=sum(len(line.symbols) for line in self.lines),
            live=sum(one.state == "live" for one in symbols),
            refused_symbols=self.intake.homeless | refused,
            frames=sum(line.frames for line in self.lines),
            ticks=self.intake.written,
            ticks_per_s=self._ticks_per_s(mono_ns),
            reconnects=self.reconnects,
            refusals=dict(self.intake.refusals),
            superseded=self.intake.superseded,
            recent_refusals=self.intake.recent_refusals(),
            stuck_assets=self._stuck(mono_ns, liveness) if state in ("live", "quiet") else [],
        )

    def _state_without_lines(self) -> tuple[FeedState, str]:
        problem = self.intake.problem
        return ("refused", problem) if problem else ("quiet", "no symbols to subscribe")

    def _ticks_per_s(self, mono_ns: int) -> float:
        """Return the rate since the status before."""
        ticks, since_ns = self.intake.written - self._ticks_before, mono_ns - self._since_mono_ns
        self._ticks_before, self._since_mono_ns = self.intake.written, mono_ns
        return round(ticks * SECOND_NS / since_ns, 1) if since_ns > 0 else 0.0

    def _stuck(self, mono_ns: int, liveness: Liveness) -> list[str]:
        return self.intake.stuck_assets(
            mono_ns,
            stuck_after_ns=int(liveness.stuck_after_s * SECOND_NS),
            peer_fresh_ns=int(liveness.peer_fresh_s * SECOND_NS),
        )
