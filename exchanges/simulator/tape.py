"""One simulated exchange's trades: its symbols, its prices around the walk, its trade ids. Sans-I/O."""

from collections import deque
from collections.abc import Iterable, Mapping
from random import Random
from typing import NamedTuple

from exchanges.simulator.markets import price_text
from exchanges.simulator.walk import Walk

HISTORY = 50
_SECOND_NS = 1_000_000_000
_QUIET_NS = 3 * _SECOND_NS
_PREMIUM_PPM = 200  # how far one exchange's price of an asset may lie from the others', for good
_NOISE_PPM = 60  # and from trade to trade


class Trade(NamedTuple):
    symbol: str
    price: str
    size: str
    side: str  # the taker's: "buy" or "sell"
    time_ns: int
    trade_id: int


class Notation(NamedTuple):
    """How an exchange writes its symbols."""

    pattern: str  # "{}-USD"
    quote: str = "USD"
    lower: bool = False
    renamed: Mapping[str, str] = {}  # assets it knows by another name: RENDER → RNDR

    def symbol(self, asset: str) -> str:
        symbol = self.pattern.format(self.renamed.get(asset, asset))
        return symbol.lower() if self.lower else symbol


class Tape:
    """The trades of one exchange, made on demand and remembered (the last fifty per symbol)."""

    def __init__(self, exchange: str, notation: Notation, walk: Walk, *, seed: int, first_id: int) -> None:
        self.exchange = exchange
        self.quote = notation.quote
        self.refused: set[str] = set()  # symbols refused for the time being, as if delisted
        self._walk = walk
        self._random = Random(f"{seed}:{exchange}")
        self._assets = {notation.symbol(a): a for a in walk.markets if a != notation.quote}
        self._symbols = {asset: symbol for symbol, asset in self._assets.items()}
        self._premium = {
            asset: self._random.randint(-_PREMIUM_PPM, _PREMIUM_PPM) for asset in self._assets.values()
        }
        self._history: dict[str, deque[Trade]] = {}
        self._next_id = first_id
        self._bag: list[str] = []

    def lists(self, symbol: str) -> bool:
        return symbol in self._assets and symbol not in self.refused

    def asset(self, symbol: str) -> str:
        return self._assets[symbol]

    def symbol(self, asset: str) -> str | None:
        return self._symbols.get(asset)

    @property
    def symbols(self) -> list[str]:
        return list(self._assets)

    def draw(self, symbols: set[str], count: int) -> list[str]:
        """Pick the *count* symbols to trade next: in random order, but each once before any comes again."""
        drawn: list[str] = []
        while symbols and len(drawn) < count:
            if not self._bag:
                self._bag = sorted(symbols)
                self._random.shuffle(self._bag)
            symbol = self._bag.pop()
            if symbol in symbols:
                drawn.append(symbol)
        return drawn

    def trade(self, symbol: str, now_ns: int) -> list[Trade]:
        """Let one order trade: usually one fill, sometimes up to four close prices, oldest first."""
        history = self._remembered(symbol, now_ns)
        fills = 1 if self._random.random() < 0.8 else self._random.randint(2, 4)
        side = self._random.choice(("buy", "sell"))
        began_ns = now_ns - self._random.randint(2_000_000, 30_000_000)
        trades = [self._fill(symbol, began_ns + n * 7_013, now_ns, side, n) for n in range(fills)]
        history.extend(trades)
        return trades

    def next(self, symbol: str, time_ns: int) -> Trade:
        """Make a trade at exactly *time_ns* that nobody will remember."""
        return self._fill(symbol, time_ns, time_ns, "buy", 0)

    def history(self, symbol: str, count: int, now_ns: int) -> list[Trade]:
        """Return the last *count* trades of *symbol*, oldest first."""
        return list(self._remembered(symbol, now_ns))[-count:]

    def last(self, symbol: str, now_ns: int) -> Trade:
        return self._remembered(symbol, now_ns)[-1]

    def _remembered(self, symbol: str, now_ns: int) -> deque[Trade]:
        if symbol not in self._history:
            self._history[symbol] = deque(self._past(symbol, now_ns), maxlen=HISTORY)
        history = self._history[symbol]
        if now_ns - history[-1].time_ns > _QUIET_NS:  # it traded meanwhile, only nobody listened
            history.append(self._fill(symbol, now_ns - _SECOND_NS // 20, now_ns, "buy", 0))
        return history

    def _past(self, symbol: str, now_ns: int) -> Iterable[Trade]:
        """Invent what traded before anybody listened, back to some minutes ago."""
        gaps = [self._random.randint(_SECOND_NS // 10, 12 * _SECOND_NS) for _ in range(HISTORY)]
        time_ns = now_ns - sum(gaps)
        for gap in gaps:
            time_ns += gap
            yield self._fill(
                symbol, time_ns - _SECOND_NS // 20, now_ns, self._random.choice(("buy", "sell")), 0
            )

    def _fill(self, symbol: str, time_ns: int, now_ns: int, side: str, depth: int) -> Trade:
        asset = self._assets[symbol]
        units = self._walk.units(asset, now_ns, quote=self.quote)
        noise = self._random.randint(-_NOISE_PPM, _NOISE_PPM) + (depth * 10 if side == "buy" else -depth * 10)
        units = max(1, units * (1_000_000 + self._premium[asset] + noise) // 1_000_000)
        decimals = self._walk.markets[asset].decimals
        self._next_id += 1
        return Trade(
            symbol,
            price_text(units, decimals),
            price_text(self._size(units, decimals), 8),
            side,
            time_ns - time_ns % 1000,
            self._next_id,
        )

    def _size(self, units: int, decimals: int) -> int:
        """Size an order at some 20 to 4,000 dollars, in units of 10 ** -8."""
        dollars = self._random.randint(20, 4_000)
        scale: int = 10 ** (8 + decimals)
        return max(1, dollars * scale // units)
