"""What stands between a feed and the board: each tick is let through, refused with a reason, or held.
Sans-I/O.

A price that jumps beyond the row's limit is held until a second trade or a second source confirms it, so
that a bad print does no harm and a real crash gets through within a trade or two (a filter that never gives
way does as much harm: see the LUNA case in 2022, where a feed stopped at its floor). An older trade never
replaces a newer one.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final, Literal

from pricing.tick import Tick

FUTURE_NS: Final = 5 * 10**9
# So long a peer can confirm a held price. As the first of two trades it counts on: a rare symbol must move.
MAX_HELD_NS: Final = 60 * 10**9

# Reasons, as they are counted and shown. The empty reason lets the tick through.
PASS: Final = ""
OLDER: Final = "older"
REPEAT: Final = "repeat"
FUTURE: Final = "future"
JUMP: Final = "jump_held"

Peers = Callable[[str], Sequence[str]]


class _Track:
    """What is known of one symbol. ``low`` and ``high`` bound the prices that need no closer look."""

    __slots__ = ("anchor", "held", "held_ns", "high", "low", "price", "trade_id", "traded_ns")

    def __init__(self) -> None:
        self.traded_ns = 0
        self.trade_id: str | int = ""
        self.price = Decimal(0)  # the last one let through
        self.low = Decimal(1)  # low > high: nothing passes unseen before the first price
        self.high = Decimal(0)
        self.held: Tick | None = None
        self.held_ns = 0


class Guard:
    """The guard of one feed.

    *peers* returns the fresh prices of the same asset at other sources. *tie* says which of two trades of
    the same instant is the newer: the one with the higher numeric id, or the later one.
    """

    def __init__(self, *, max_jump_percent: int, tie: Literal["id", "place"], peers: Peers) -> None:
        self._jump = Decimal(max_jump_percent) / 100
        # Two prices this near to one anchor are within the limit of each other: (1 + c)/(1 - c) <= 1 + jump.
        self._calm = min(self._jump / 4, Decimal("0.5"))
        self._tie_by_id = tie == "id"
        self._peers = peers
        self._tracks: dict[str, _Track] = {}

    def judge(self, tick: Tick, wall_ns: int) -> str:
        """Return PASS, or the reason why the tick must not reach the board."""
        track = self._tracks.get(tick.symbol)
        if track is None:
            track = self._tracks[tick.symbol] = _Track()
        traded_ns = tick.traded_ns or wall_ns
        if traded_ns <= track.traded_ns and (reason := self._out_of_order(tick, traded_ns, track)):
            return reason
        if traded_ns > wall_ns + FUTURE_NS:
            return FUTURE
        price = Decimal(tick.price)
        if not track.low <= price <= track.high and not self._is_credible(tick, price, track, wall_ns):
            return JUMP
        track.price = price
        track.traded_ns = traded_ns
        track.trade_id = tick.trade_id
        track.held = None
        return PASS

    def confirmed(self, wall_ns: int) -> list[Tick]:
        """Return held ticks that another source has confirmed since, and let them through."""
        ticks = []
        for track in self._tracks.values():
            held = track.held
            if held is None or wall_ns - track.held_ns > MAX_HELD_NS:
                continue
            if self._near_a_peer(held.symbol, Decimal(held.price)):
                ticks.append(held)
        return [tick for tick in ticks if self.judge(tick, wall_ns) == PASS]

    def forget(self, symbol: str) -> None:
        """Drop what is known of a symbol that is no longer followed."""
        self._tracks.pop(symbol, None)

    def _out_of_order(self, tick: Tick, traded_ns: int, track: _Track) -> str:
        if traded_ns < track.traded_ns:
            return OLDER
        if tick.trade_id and tick.trade_id == track.trade_id:
            return REPEAT
        if self._tie_by_id and _is_lower(tick.trade_id, track.trade_id):
            return OLDER
        return PASS

    def _is_credible(self, tick: Tick, price: Decimal, track: _Track, wall_ns: int) -> bool:
        """Judge a price that is not near the anchor; hold it when it is a jump that nothing confirms."""
        if (
            (track.price and abs(price - track.price) <= self._jump * track.price)
            or (
                track.held is not None and track.held != tick and self._near(price, Decimal(track.held.price))
            )
            or (not track.price and not self._peers(tick.symbol))
        ):
            pass
        elif not self._near_a_peer(tick.symbol, price):
            track.held, track.held_ns = tick, wall_ns
            return False
        track.low, track.high = price * (1 - self._calm), price * (1 + self._calm)
        return True

    def _near(self, price: Decimal, other: Decimal) -> bool:
        return abs(price - other) <= self._jump * other

    def _near_a_peer(self, symbol: str, price: Decimal) -> bool:
        return any(self._near(price, Decimal(peer)) for peer in self._peers(symbol))


def _is_lower(trade_id: str | int, than: str | int) -> bool:
    """Compare two trade ids where both are numbers; ids that are not (UUIDs) say nothing about order."""
    try:
        return int(trade_id) < int(than)
    except ValueError:
        return False
