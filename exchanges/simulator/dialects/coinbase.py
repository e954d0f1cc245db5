"""Coinbase Advanced Trade: channels, one acknowledgement for all of them, trades newest first. Sans-I/O."""

from collections.abc import Mapping, Sequence

from exchanges.simulator.dialects.base import (
    SECOND_NS,
    UNKNOWN_PATH,
    Ack,
    Answer,
    Close,
    Limits,
    Message,
    Out,
    Session,
    TradeFrame,
    encode,
    rfc3339,
    spread,
    strings,
)
from exchanges.simulator.tape import Notation, Tape, Trade

_SNAPSHOT = 10
_TICKER_PREFIX = "/api/v3/brokerage/market/products/"


class Coinbase(Session):
    NOTATION = Notation("{}-USD")
    LIMITS = Limits(connections=8, messages=8, rest=10, first_subscribe_s=5, refuses_frame=True)
    FIRST_ID = 995_098_700
    RESOLUTION_NS = 1

    def __init__(self, tape: Tape, number: int, limits: Limits, now_ns: int) -> None:
        super().__init__(tape, number, limits, now_ns)
        self.heartbeats = False
        self._sequence = -1
        self._beats = 3_000
        self._beat_ns = now_ns

    @classmethod
    def request(cls, symbols: Sequence[str], now_ns: int) -> list[str]:
        trades = {"type": "subscribe", "product_ids": symbols, "channel": "market_trades"}
        return [encode(trades), encode({"type": "subscribe", "channel": "heartbeats"})]

    def handle(self, message: Message, now_ns: int) -> list[Out]:
        action, channel = message["type"], message["channel"]
        if action not in ("subscribe", "unsubscribe"):
            return self.malformed(encode(message), now_ns)
        if channel == "heartbeats":
            self.heartbeats = action == "subscribe"
            return [self._subscriptions(now_ns)]
        if channel != "market_trades":
            return [_error(f"unknown channel: {channel}")]
        symbols = strings(message["product_ids"])
        if action == "unsubscribe":
            self.unsubscribe(symbols)
            return [self._subscriptions(now_ns)]
        return self._subscribe(symbols, now_ns)

    def malformed(self, text: str, now_ns: int) -> list[Out]:
        return [_error("failed to parse message")]

    def too_many(self, now_ns: int) -> list[Out]:
        return [_error("rate limit exceeded")]

    def trades(self, trades: Sequence[Trade], now_ns: int) -> list[TradeFrame]:
        """Put all trades of up to a quarter of a second into one frame."""
        return [self._market_trades("update", [trades], now_ns)] if trades else []

    def beat(self, now_ns: int) -> list[Out]:
        if not self.heartbeats or now_ns - self._beat_ns < SECOND_NS:
            return []
        self._beat_ns = now_ns
        self._beats += 1
        current = rfc3339(now_ns, 9).replace("T", " ").replace("Z", f" +0000 UTC m=+{self._beats}.627148662")
        return [
            self._frame("heartbeats", [{"current_time": current, "heartbeat_counter": self._beats}], now_ns)
        ]

    def emptied(self, ack: Ack, now_ns: int) -> Ack:
        return Ack(self._frame("subscriptions", [{"subscriptions": {}}], now_ns))

    def alive_ns(self) -> int:
        return self.sent_ns

    def idle_close(self) -> Close:
        return Close(1000, "no data for a while")

    @classmethod
    def rest(cls, tape: Tape, path: str, query: Mapping[str, str], now_ns: int) -> Answer:
        if not (path.startswith(_TICKER_PREFIX) and path.endswith("/ticker")):
            return UNKNOWN_PATH
        symbol = path.removeprefix(_TICKER_PREFIX).removesuffix("/ticker")
        if not tape.lists(symbol):
            return cls.rest_error()._replace(status=404)
        trades = tape.history(symbol, int(query.get("limit", "1")), now_ns)[::-1]
        bid, ask = spread(trades[0].price)
        rows = [_row(trade) | {"bid": "", "ask": "", "exchange": "coinbase"} for trade in trades]
        return Answer(200, encode({"trades": rows, "best_bid": bid, "best_ask": ask}))

    @classmethod
    def rest_error(cls) -> Answer:
        text = "valid product_id is required"
        return Answer(200, encode({"error": "NOT_FOUND", "error_details": text, "message": text}))

    def _subscribe(self, symbols: list[str], now_ns: int) -> list[Out]:
        good, bad = self.split(symbols)
        refusals: list[Out] = [_error(f"{symbol} is not a valid product") for symbol in bad]
        if bad and self.limits.refuses_frame:
            return refusals
        self.subscribed.update(dict.fromkeys(good))
        past = [self.tape.history(symbol, _SNAPSHOT, now_ns) for symbol in good]
        # Data may well come before the acknowledgement; here it comes after, a fault turns that around.
        snapshot: list[Out] = [self._market_trades("snapshot", past, now_ns)] if past else []
        return [*refusals, self._subscriptions(now_ns), *snapshot]

    def _subscriptions(self, now_ns: int) -> Ack:
        channels: dict[str, list[str]] = {}
        if self.subscribed:
            channels["market_trades"] = list(self.subscribed)
        if self.heartbeats:
            channels["heartbeats"] = ["heartbeats"]
        return Ack(self._frame("subscriptions", [{"subscriptions": channels}], now_ns))

    def _market_trades(self, kind: str, groups: Sequence[Sequence[Trade]], now_ns: int) -> TradeFrame:
        events = [{"type": kind, "trades": [_row(trade) for trade in trades[::-1]]} for trades in groups]
        shown = [trade for trades in groups for trade in trades[::-1]]
        return TradeFrame(self._frame("market_trades", events, now_ns), shown)

    def _frame(self, channel: str, events: list[Message], now_ns: int) -> str:
        self._sequence += 1
        return encode(
            {
                "channel": channel,
                "timestamp": rfc3339(now_ns, 9, trim=True),
                "sequence_num": self._sequence,
                "events": events,
            }
        )


def _row(trade: Trade) -> dict[str, str]:
    return {
        "product_id": trade.symbol,
        "trade_id": str(trade.trade_id),
        "price": trade.price,
        "size": trade.size,
        "time": rfc3339(trade.time_ns, 9, trim=True),
        "side": "SELL" if trade.side == "buy" else "BUY",  # the maker's
    }


def _error(text: str) -> str:
    return encode({"type": "error", "message": text})
