"""What stands between a feed and the board: each tick is let through, refused with a reason, or held.
Sans-I/O.

A price that jumps beyond the row's limit is held until another source has it too, accepted or held, or until
a second trade confirms it: one of a later instant that came in another read, for the fills of one order are
no two opinions. While two fresh sources contradict it, agreeing with one another on another price, trades
must keep coming for PERSISTS_NS: a slip of the scale (KRW x1000 at Synthetix in 2019) persists as well as a
real price does, and in a minute somebody can look at what is held while the others answer. So a bad print
does no harm, a crash everywhere gets through with the second source or the second trade, and one exchange's
own move after a minute (a filter that never gives way does as much harm: see the LUNA case in 2022, where a
feed stopped at its floor). An older trade never replaces a newer one.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from pricing.tick import Tick

FUTURE_NS: Final = 5 * 10**9
# So long a peer can confirm a held price. As the first of two trades it counts on: a rare symbol must move.
MAX_HELD_NS: Final = 60 * 10**9
PERSISTS_NS: Final = 60 * 10**9
PERSISTS_INSTANTS: Final = 3

# Reasons, as they are counted and shown. The empty reason lets the tick through.
PASS: Final = ""
OLDER: Final = "older"
REPEAT: Final = "repeat"
FUTURE: Final = "future"
JUMP: Final = "jump_held"


class PeerPrices(NamedTuple):
    """What other sources have for the same asset now: let through, and held by their guards."""

    accepted: Sequence[str]
    held: Sequence[str] = ()


Peers = Callable[[str], PeerPrices]


class _Track:
    """What is known of one symbol. ``low`` and ``high`` bound the prices that need no closer look."""

    __slots__ = (
        "held",
        "held_from_ns",
        "held_ns",
        "high",
        "instants",
        "low",
        "price",
        "trade_id",
        "traded_ns",
    )

    def __init__(self) -> None:
        self.traded_ns = 0
        self.trade_id: str | int = ""
        self.price = Decimal(0)  # the last one let through
        self.low = Decimal(1)  # low > high: nothing passes unseen before the first price
        self.high = Decimal(0)
        self.held: Tick | None = None  # the latest of a run of jumps to about the same price
        self.held_ns = 0  # when that came,
        self.held_from_ns = 0  # when the first of the run came,
        self.instants = 0  # and how many there were of different times, in different reads


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
        try:
            track = self._tracks[tick.symbol]
        except KeyError:
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
        if tick.trade_id or traded_ns > track.traded_ns:  # one without an id must not hide an older one's
            track.trade_id = tick.trade_id
        track.traded_ns = traded_ns
        track.held = None
        return PASS

    def confirmed(self, wall_ns: int) -> list[Tick]:
        """Return held ticks that another source has confirmed since, and let them through."""
        ticks = []
        for track in self._tracks.values():
            held = track.held
            if held is None or wall_ns - track.held_ns > MAX_HELD_NS:
                continue
            if self._is_elsewhere(Decimal(held.price), self._peers(held.symbol)):
                ticks.append(held)
        return [tick for tick in ticks if self.judge(tick, wall_ns) == PASS]

    def held(self, symbol: str, wall_ns: int) -> str | None:
        """Return the price that is held for a symbol, for other guards to see."""
        track = self._tracks.get(symbol)
        if track is None or track.held is None or wall_ns - track.held_ns > MAX_HELD_NS:
            return None
        return track.held.price

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
        if not (track.price and self._near(price, track.price)):
            peers = self._peers(tick.symbol)
            is_first = not track.price and not peers.accepted
            if not is_first and not self._is_elsewhere(price, peers):
                self._hold(tick, price, track, wall_ns)
                if not self._persists(track, peers):
                    return False
        track.low, track.high = price * (1 - self._calm), price * (1 + self._calm)
        return True

    def _hold(self, tick: Tick, price: Decimal, track: _Track, wall_ns: int) -> None:
        if track.held is None or not self._near(price, Decimal(track.held.price)):
            track.held_from_ns, track.instants = wall_ns, 0
        elif (tick.traded_ns or wall_ns) <= (
            track.held.traded_ns or track.held_ns
        ) or wall_ns == track.held_ns:
            return  # of the same instant, or of the same read: perhaps another fill of the same order
        track.held, track.held_ns = tick, wall_ns
        track.instants += 1

    def _persists(self, track: _Track, peers: PeerPrices) -> bool:
        if self._agree(peers.accepted):
            return track.instants >= PERSISTS_INSTANTS and track.held_ns - track.held_from_ns >= PERSISTS_NS
        return track.instants >= 2

    def _near(self, price: Decimal, other: Decimal) -> bool:
        return abs(price - other) <= self._jump * other

    def _is_elsewhere(self, price: Decimal, peers: PeerPrices) -> bool:
        return any(self._near(price, Decimal(peer)) for peer in (*peers.accepted, *peers.held))

    def _agree(self, texts: Sequence[str]) -> bool:
        """Whether at least two of these prices are about the same."""
        prices = sorted(map(Decimal, texts))
        return any(self._near(higher, lower) for lower, higher in pairwise(prices))


def _is_lower(trade_id: str | int, than: str | int) -> bool:
    """Compare two trade ids where both are numbers; ids that are not (UUIDs) say nothing about order."""
    try:
        return int(trade_id) < int(than)
    except ValueError:
        return False
