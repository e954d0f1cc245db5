"""OKX v5 public: an answer per argument, the last trade at once, pings as bare text. Sans-I/O."""

from collections.abc import Mapping, Sequence

from exchanges.simulator.dialects.base import (
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
    ms,
    spread,
)
from exchanges.simulator.tape import Notation, Tape, Trade

_CHANNEL = "trades"
_UPGRADE = "The connection will soon be closed for a service upgrade. Please reconnect."
_WRONG = "doesn't exist. Please use the correct URL, channel and parameters referring to API document."


class Okx(Session):
    NOTATION = Notation("{}-USDT", "USDT")
    LIMITS = Limits(
        connections=3,
        messages=480,
        messages_window_s=3600,
        idle_s=30,
        frame_bytes=65_536,
        rest=20,
        rest_window_s=2,
    )
    FIRST_ID = 338_476_307

    def __init__(self, tape: Tape, number: int, limits: Limits, now_ns: int) -> None:
        super().__init__(tape, number, limits, now_ns)
        self._connection = f"{0xA4D3AE55 + number:08x}"

    @classmethod
    def request(cls, symbols: Sequence[str], now_ns: int) -> list[str]:
        args = [{"channel": _CHANNEL, "instId": symbol} for symbol in symbols]
        return [encode({"op": "subscribe", "args": args})]

    @classmethod
    def client_ping(cls, now_ns: int) -> str:
        return "ping"

    def receive(self, frame: str, now_ns: int) -> list[Out]:
        if frame == "ping":  # neither JSON nor counted as a request
            self.heard_ns = now_ns
            return ["pong"]
        return super().receive(frame, now_ns)

    def handle(self, message: Message, now_ns: int) -> list[Out]:
        op, args = message["op"], message["args"]
        if op not in ("subscribe", "unsubscribe"):
            return self.malformed(encode(message), now_ns)
        echo = {"id": message["id"]} if "id" in message else {}
        pairs = [(arg["channel"], arg["instId"]) for arg in args]
        out: list[Out] = []
        for channel, symbol in pairs:
            if op == "subscribe" and (channel != _CHANNEL or not self.tape.lists(symbol)):
                out.append(self._wrong(channel, symbol, echo))
            else:
                out += self._done(op, symbol, echo, now_ns)
        return out

    def malformed(self, text: str, now_ns: int) -> list[Out]:
        return [self._event("error", {"code": "60012", "msg": f"Invalid request: {text}"})]

    def too_many(self, now_ns: int) -> list[Out]:
        return [self._event("error", {"code": "60014", "msg": "Requests too frequent"})]

    def trades(self, trades: Sequence[Trade], now_ns: int) -> list[TradeFrame]:
        return [TradeFrame(_frame(trade), [trade]) for trade in trades]

    def idle_close(self) -> Close:
        return Close(4004, "no data received in 30s")

    def maintenance(self, now_ns: int) -> list[Out]:
        return [self._event("notice", {"code": "64008", "msg": _UPGRADE})]

    @classmethod
    def rest(cls, tape: Tape, path: str, query: Mapping[str, str], now_ns: int) -> Answer:
        if path not in ("/api/v5/market/ticker", "/api/v5/market/trades"):
            return UNKNOWN_PATH
        symbol = query.get("instId", "")
        if not tape.lists(symbol):
            return cls.rest_error()
        if path == "/api/v5/market/ticker":
            rows = [_ticker(tape.last(symbol, now_ns), now_ns)]
        else:
            count = int(query.get("limit", "100"))
            rows = [_row(trade) for trade in tape.history(symbol, count, now_ns)[::-1]]
        return Answer(200, encode({"code": "0", "msg": "", "data": rows}))

    @classmethod
    def rest_error(cls) -> Answer:
        return Answer(200, encode({"code": "51001", "data": [], "msg": "Instrument ID doesn't exist"}))

    def _done(self, op: str, symbol: str, echo: Message, now_ns: int) -> list[Out]:
        ack = Ack(self._event(op, {"arg": {"channel": _CHANNEL, "instId": symbol}}, echo))
        if op == "unsubscribe":
            self.unsubscribe([symbol])
            return [ack]
        self.subscribed[symbol] = None
        return [ack, *self.trades([self.tape.last(symbol, now_ns)], now_ns)]

    def _wrong(self, channel: str, symbol: str, echo: Message) -> str:
        text = f"Subscribe failed, wrong URL or channel:{channel},instId:{symbol} {_WRONG}"
        return self._event("error", {"msg": text, "code": "60018"}, echo)

    def _event(self, event: str, fields: Message, echo: Message | None = None) -> str:
        return encode((echo or {}) | {"event": event} | fields | {"connId": self._connection})


def _frame(trade: Trade) -> str:
    arg = {"channel": _CHANNEL, "instId": trade.symbol}
    return encode({"arg": arg, "data": [_row(trade) | {"count": "1"}]})


def _row(trade: Trade) -> Message:
    return {
        "instId": trade.symbol,
        "tradeId": str(trade.trade_id),
        "px": trade.price,
        "sz": trade.size,
        "side": trade.side,
        "ts": str(ms(trade.time_ns)),
    }


def _ticker(trade: Trade, now_ns: int) -> Message:
    bid, ask = spread(trade.price)
    return {
        "instType": "SPOT",
        "instId": trade.symbol,
        "last": trade.price,
        "lastSz": trade.size,
        "askPx": ask,
        "askSz": "11",
        "bidPx": bid,
        "bidSz": "5",
        "open24h": trade.price,
        "high24h": ask,
        "low24h": bid,
        "volCcy24h": "2222",
        "vol24h": "2222",
        "sodUtc0": trade.price,
        "sodUtc8": trade.price,
        "ts": str(ms(now_ns)),
    }
