"""From a feed's ticks to the board: which slot a symbol writes, what the guard says, and what was refused."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from exchanges.feed.decode import Faults
from exchanges.feed.guard import OLDER, Guard, PeerPrices
from exchanges.feed.spec import FeedSpec, Listing
from exchanges.feed.status import RECENT_REFUSALS, TEXT_CHARACTERS, RefusedTick
from pricing._board import Price
from pricing._board_writer import BoardWriter
from pricing.exceptions import BoardFull
from pricing.tick import Tick

SECOND_NS: Final = 10**9
# So old may a trade be to count as word of a peer, and as a sign of life.
FRESH_NS: Final = 30 * SECOND_NS
KEPT_PER_REASON: Final = 5

logger = logging.getLogger(__name__)


class Target(NamedTuple):
    """Where a symbol's ticks go."""

    slot: int
    asset: str


HeldElsewhere = Callable[[str, str], list[str]]
"""Asset, exchange → the prices of the asset that the guards of other exchanges hold."""


class Intake:
    """One exchange's way to the board. A Sink of its connections."""

    def __init__(
        self, spec: FeedSpec, board: BoardWriter, held_elsewhere: HeldElsewhere = lambda asset, name: []
    ) -> None:
        self.written = 0
        self.superseded = 0
        """Trades passed over because their own frame held a newer one of the symbol: that is no refusal."""
        self.refusals: Counter[str] = Counter()
        self.homeless: dict[str, str] = {}
        """Symbols that have no place on the board, and why."""
        self.problem = ""
        """Why the exchange itself has none."""
        self._spec = spec
        self._name = spec.name
        self._board = board
        self._held_elsewhere = held_elsewhere
        self._targets: dict[str, Target] = {}
        self._folded: dict[str, Target] = {}
        self._recent: dict[str, deque[RefusedTick]] = {}
        self._started_mono_ns = time.monotonic_ns()
        quirks = spec.quirks
        self._guard = Guard(max_jump_percent=quirks.max_jump_percent, tie=quirks.tie, peers=self._peers)
        self._judge, self._write = self._guard.judge, board.write  # looked up once, and not for each trade

    @property
    def assets(self) -> set[str]:
        return {target.asset for target in self._targets.values()}

    def follow(self, listings: Iterable[Listing]) -> tuple[list[str], list[str]]:
        """Take over the listings to subscribe; return the symbols that are new, and those that are gone.

        The price of what is gone leaves the board.
        """
        self.homeless.clear()
        wanted = self._unmistakable(listings)
        gone = [symbol for symbol, target in self._targets.items() if wanted.get(symbol, "") != target.asset]
        for symbol in gone:
            self._guard.forget(symbol)
            self._board.remove(self._targets.pop(symbol).asset, self._name)
        new = [symbol for symbol in wanted if symbol not in self._targets]
        if not new or self._has_row():
            new = [symbol for symbol in new if self._place(symbol, wanted[symbol])]
        else:
            self.homeless.update(dict.fromkeys(new, self.problem))
            new = []
        self._folded = {symbol.casefold(): target for symbol, target in self._targets.items()}
        return new, gone

    def _unmistakable(self, listings: Iterable[Listing]) -> dict[str, str]:
        """Return symbol → asset without the symbols that differ from another one only in case."""
        known: dict[str, Listing] = {}
        for row in listings:
            other = known.setdefault(row.symbol.casefold(), row)
            if other is not row:
                self.homeless[row.symbol] = f"differs from {other.symbol} only in case"
        return {row.symbol: row.asset for row in known.values()}

    def _has_row(self) -> bool:
        """Take the exchange's row on the board, which it may lose while it has no symbols."""
        spec = self._spec
        try:
            self._board.set_exchange(spec.name, source=spec.source, quote=spec.quote_currency)
        except BoardFull as error:
            self.problem = f"the board is full: {error}"
            logger.error("No place on the board for %s: %s", spec.name, error)
            return False
        self.problem = ""
        return True

    def _place(self, symbol: str, asset: str) -> bool:
        try:
            self._targets[symbol] = Target(self._board.place(asset, self._name), asset)
        except BoardFull as error:
            self.homeless[symbol] = str(error)
            logger.error("No slot on the board for %s at %s: %s", asset, self._name, error)
            return False
        return True

    def close(self, *, keep: Collection[str]) -> None:
        """Let nothing more through (a connection that is being closed may still deliver).

        Only the prices of the assets *keep* stay on the board.
        """
        for asset in self.assets - set(keep):
            self._board.remove(asset, self._name)
        self._targets, self._folded = {}, {}

    # What connections deliver (Sink)

    def ticks(self, ticks: Sequence[Tick], wall_ns: int, mono_ns: int) -> int:
        """Write what the guard lets through; return how many of those traded just now.

        An exchange that sends what happened long ago is not alive, however new that is here.
        """
        targets, judge, write = self._targets, self._judge, self._write
        written = of_use = 0
        refused = []
        for tick in ticks:
            target = targets.get(tick.symbol) or self._folded.get(tick.symbol.casefold())
            if target is None:
                continue
            if reason := judge(tick, wall_ns):
                refused.append((reason, tick))
                continue
            traded_ns = tick.traded_ns or wall_ns
            write(target.slot, tick.price, traded_ns, wall_ns, mono_ns)
            written += 1
            if wall_ns - traded_ns <= FRESH_NS:
                of_use += 1
        self.written += written
        if refused:
            self._refuse(refused, _newest(ticks), wall_ns)
        return of_use

    def _refuse(self, refused: Iterable[tuple[str, Tick]], newest: Mapping[str, Tick], wall_ns: int) -> None:
        for reason, tick in refused:
            if reason == OLDER and newest[tick.symbol] is not tick:
                self.superseded += 1
                continue
            self.refusals[reason] += 1
            self._keep(reason, tick.symbol, f"{tick.price} traded {tick.traded_ns}", wall_ns)

    def faults(self, faults: Faults, wall_ns: int) -> None:
        self.refusals.update(faults.counts)
        for fault in faults.samples:
            self._keep(fault.reason, fault.symbol, fault.detail, wall_ns)

    def _keep(self, reason: str, symbol: str, detail: str, wall_ns: int) -> None:
        kept = self._recent.setdefault(reason, deque(maxlen=KEPT_PER_REASON))
        kept.append(RefusedTick(wall_ns, symbol, reason, detail[:TEXT_CHARACTERS]))

    # What the heartbeat asks

    def release_confirmed(self, wall_ns: int, mono_ns: int) -> None:
        """Write the held prices that another exchange has confirmed since."""
        for tick in self._guard.confirmed(wall_ns):
            target = self._targets.get(tick.symbol) or self._folded.get(tick.symbol.casefold())
            if target is not None:
                self._board.write(target.slot, tick.price, tick.traded_ns or wall_ns, wall_ns, mono_ns)
                self.written += 1

    def recent_refusals(self) -> list[RefusedTick]:
        """Return the last ones, oldest first; no reason crowds out another."""
        every = [tick for kept in self._recent.values() for tick in kept]
        return sorted(every, key=lambda tick: tick.at_ns)[-RECENT_REFUSALS:]

    def stuck_assets(self, mono_ns: int, *, stuck_after_ns: int, peer_fresh_ns: int) -> list[str]:
        """Return the assets that trade elsewhere, but have not traded here for *stuck_after_ns*.

        Elsewhere is two other exchanges, or the only other one.
        """
        if mono_ns - self._started_mono_ns < stuck_after_ns:
            return []
        return sorted(
            asset for asset in self.assets if self._is_stuck(asset, mono_ns, stuck_after_ns, peer_fresh_ns)
        )

    def _is_stuck(self, asset: str, mono_ns: int, stuck_after_ns: int, peer_fresh_ns: int) -> bool:
        ages_ns = {price.exchange: price.age_ns(mono_ns) for price in self._board.all(asset)}
        if ages_ns.pop(self._name, stuck_after_ns + 1) <= stuck_after_ns:
            return False
        moving = sum(age_ns <= peer_fresh_ns for age_ns in ages_ns.values())
        return moving >= min(2, max(1, len(ages_ns)))

    def held(self, asset: str, wall_ns: int) -> list[str]:
        """Return the prices of an asset that the guard holds."""
        symbols = [symbol for symbol, target in self._targets.items() if target.asset == asset]
        return [price for symbol in symbols if (price := self._guard.held(symbol, wall_ns)) is not None]

    def _peers(self, symbol: str) -> PeerPrices:
        target = self._targets.get(symbol) or self._folded.get(symbol.casefold())
        if target is None:
            return PeerPrices(())
        mono_ns = time.monotonic_ns()
        prices = [price.price for price in self._board.all(target.asset) if self._is_peer(price, mono_ns)]
        return PeerPrices(prices, self._held_elsewhere(target.asset, self._name))

    def _is_peer(self, price: Price, mono_ns: int) -> bool:
        return price.exchange != self._name and price.age_ns(mono_ns) <= FRESH_NS


def _newest(ticks: Iterable[Tick]) -> dict[str, Tick]:
    """Return the newest trade of each symbol, the first of those of one instant."""
    newest: dict[str, Tick] = {}
    for tick in ticks:
        if (tick.traded_ns or 0) > (newest.setdefault(tick.symbol, tick).traded_ns or 0):
            newest[tick.symbol] = tick
    return newest
