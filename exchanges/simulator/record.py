"""Recordings made by the simulator itself: one conversation per exchange with every kind of frame in it.

``manage.py runsimulator --record FOLDER`` writes them; ``tests/recordings`` holds the result. The clock is
fixed: the same seed writes the same files.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec

from exchanges.simulator.dialects import DIALECTS, Session
from exchanges.simulator.dialects.base import SECOND_NS, Ack, Answer, Close, Out, TradeFrame
from exchanges.simulator.tape import Tape, Trade
from exchanges.simulator.walk import Walk

BEGAN_NS = 1_795_000_000_123_456_000
_ASSETS = ("BTC", "ETH", "DOGE", "SHIB")
_ROUNDS = 6
_BAD = "NOPE"

# What is asked when a feed is silent. Bybit and OKX tell the time of the answer, Coinbase that of the trade.
_TICKERS = {
    "coinbase": "/api/v3/brokerage/market/products/{}/ticker?limit=1",
    "gemini": "/v1/pubticker/{}",
    "kraken": "/0/public/Ticker?pair={}",
    "gateio": "/api/v4/spot/tickers?currency_pair={}",
    "bybit": "/v5/market/tickers?category=spot&symbol={}",
    "okx": "/api/v5/market/ticker?instId={}",
    "binance": "/api/v3/ticker/price?symbol={}",
}
_TOLD_BY_ANSWER = frozenset({"bybit", "okx"})
_TOLD_BY_TRADE = frozenset({"coinbase"})


class Expected(msgspec.Struct, frozen=True):
    symbol: str
    price: str
    time_ns: int | None


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One recorded frame, in the format that ``exchange check --frames`` reads."""

    kind: str
    direction: str
    text: str
    expect: list[Expected]
    source: str
    latest: dict[str, str] | None = None


class Recorder:
    """Holds one conversation and notes what is said."""

    def __init__(self, name: str, dialect: type[Session], seed: int) -> None:
        self.name = name
        self.now_ns = BEGAN_NS
        self.lines: list[Line] = []
        self._source = f"simulator, seed {seed}"
        self._dialect = dialect
        self._tape = Tape(name, dialect.NOTATION, Walk(seed), seed=seed, first_id=dialect.FIRST_ID)
        self._session = dialect(self._tape, 1, dialect.LIMITS, self.now_ns)

    def converse(self) -> list[Line]:
        """Go through everything that a connection can hear."""
        symbols = [symbol for asset in _ASSETS if (symbol := self._tape.symbol(asset))]
        self._hear("other", self._session.opened(self.now_ns))
        for frame in self._dialect.request(symbols, self.now_ns):
            self._ask("subscribe", frame)
        for frame in self._dialect.request([self._dialect.NOTATION.symbol(_BAD)], self.now_ns)[:1]:
            self._ask("subscribe", frame)
        self._ask("other", "not a frame of this exchange")
        for _ in range(_ROUNDS):
            self._wait(0.25)
            trades = [t for symbol in symbols[:2] for t in self._tape.trade(symbol, self.now_ns)]
            self._hear("trade", self._session.trades(trades, self.now_ns))
        self._wait(1.5)
        self._hear("heartbeat", self._session.beat(self.now_ns))
        if ping := self._dialect.client_ping(self.now_ns):
            self._ask("heartbeat", ping, answer="pong")
        self._hear("other", self._session.maintenance(self.now_ns))
        self._hear("other", self._session.maintenance_over(self.now_ns))
        self._rest(symbols)
        return self.lines

    def _wait(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND_NS)

    def _ask(self, kind: str, frame: str, *, answer: str = "error") -> None:
        self._note(kind, "out", frame, ())
        self._wait(0.05)
        self._hear(answer, self._session.receive(frame, self.now_ns))

    def _hear(self, kind: str, outs: Iterable[Out]) -> None:
        for out in outs:
            if isinstance(out, Ack):
                self._note("ack", "in", out, ())
            elif isinstance(out, TradeFrame):
                self._note("trade" if kind == "trade" else "snapshot", "in", out, out.shown)
            elif isinstance(out, str) and not isinstance(out, Close):
                self._note(kind, "in", out, ())

    def _rest(self, symbols: Sequence[str]) -> None:
        for symbol in symbols:
            trade = self._tape.last(symbol, self.now_ns)
            answer = self._get(symbol)
            self.lines.append(
                Line("ticker_rest", "in", answer.body, [self._told(trade)], f"{self._source}, REST")
            )
        answer = self._get(self._dialect.NOTATION.symbol(_BAD))
        self.lines.append(Line("ticker_rest", "in", answer.body, [], f"{self._source}, REST"))

    def _get(self, symbol: str) -> Answer:
        url = urlsplit(_TICKERS[self.name].format(symbol))
        return self._dialect.rest(self._tape, url.path, dict(parse_qsl(url.query)), self.now_ns)

    def _told(self, trade: Trade) -> Expected:
        if self.name in _TOLD_BY_TRADE:
            return self._expected(trade)
        time_ns = self.now_ns // 1_000_000 * 1_000_000 if self.name in _TOLD_BY_ANSWER else None
        return Expected(trade.symbol, trade.price, time_ns)

    def _note(self, kind: str, direction: str, text: str, shown: Sequence[Trade]) -> None:
        newest: dict[str, Trade] = {}
        for trade in sorted(shown, key=lambda trade: (trade.time_ns, trade.trade_id)):
            newest[trade.symbol] = trade
        latest = {symbol: self._dialect.price(trade) for symbol, trade in newest.items()} or None
        # str(): the text alone, without what a frame remembers.
        expect = [self._expected(trade) for trade in shown]
        self.lines.append(Line(kind, direction, str(text), expect, self._source, latest))

    def _expected(self, trade: Trade) -> Expected:
        resolution_ns = self._dialect.RESOLUTION_NS
        time_ns = trade.time_ns // resolution_ns * resolution_ns
        return Expected(trade.symbol, self._dialect.price(trade), time_ns)


def record(name: str, *, seed: int = 1) -> list[Line]:
    return Recorder(name, DIALECTS[name], seed).converse()


def write_folder(folder: Path, *, seed: int = 1) -> list[Path]:
    """Write one recording per exchange and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in DIALECTS:
        path = folder / f"{name}.jsonl"
        path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in record(name, seed=seed)))
        files.append(path)
    return files
