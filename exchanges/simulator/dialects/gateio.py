"""Gate.io v4: one acknowledgement per frame, one trade per frame, decimal milliseconds. Sans-I/O."""

from collections.abc import Mapping, Sequence

from exchanges.simulator.dialects.base import (
    SECOND_NS,
    UNKNOWN_PATH,
    Ack,
    Answer,
    Limits,
    Message,
    Out,
    Session,
    TradeFrame,
    encode,
    ms,
    spread,
    strings,
)
from exchanges.simulator.tape import Notation, Tape, Trade

_CHANNEL = "spot.trades"
_SCHEMA = "request payload does not follow json schema"


class GateIo(Session):
    NOTATION = Notation("{}_USDT", "USDT")
    LIMITS = Limits(connections=100, connections_window_s=60, rest=200, rest_window_s=10, refuses_frame=True)
    FIRST_ID = 5_541_729_598
    RESOLUTION_NS = 1

    @classmethod
    def request(cls, symbols: Sequence[str], now_ns: int) -> list[str]:
        head = {"time": now_ns // SECOND_NS, "channel": _CHANNEL, "event": "subscribe"}
        return [encode(head | {"payload": symbols})]

    @classmethod
    def client_ping(cls, now_ns: int) -> str:
        return encode({"time": now_ns // SECOND_NS, "channel": "spot.ping"})

    def handle(self, message: Message, now_ns: int) -> list[Out]:
        if type(message["time"]) is not int:
            return self.malformed(encode(message), now_ns)
        channel = message["channel"]
        if channel == "spot.ping":
            return [encode(_head(now_ns, "spot.pong", "") | {"result": None})]
        event = message["event"]
        if event not in ("subscribe", "unsubscribe"):
            return self.malformed(encode(message), now_ns)
        symbols = strings(message["payload"])
        if channel != _CHANNEL:
            return [_error(now_ns, channel, event, 2, f"unknown channel {channel}")]
        if event == "unsubscribe":
            self.unsubscribe(symbols)
            return [self._ack(event, symbols, now_ns)]
        return self._subscribe(symbols, now_ns)

    def malformed(self, text: str, now_ns: int) -> list[Out]:
        return [_error(now_ns, "", "", 1, _SCHEMA)]

    def trades(self, trades: Sequence[Trade], now_ns: int) -> list[TradeFrame]:
        head = _head(now_ns, _CHANNEL, "update")
        return [TradeFrame(encode(head | {"result": _row(trade)}), [trade]) for trade in trades]

    def maintenance(self, now_ns: int) -> list[Out]:
        return [encode(_head(now_ns, "", "upgrade") | {"result": None})]

    @classmethod
    def rest(cls, tape: Tape, path: str, query: Mapping[str, str], now_ns: int) -> Answer:
        if path not in ("/api/v4/spot/tickers", "/api/v4/spot/trades"):
            return UNKNOWN_PATH
        symbol = query.get("currency_pair", "")
        if not tape.lists(symbol):
            return cls.rest_error()._replace(status=400)
        if path == "/api/v4/spot/tickers":
            return Answer(200, encode([_ticker(tape.last(symbol, now_ns))]))
        count = int(query.get("limit", "100"))
        rows = [_rest_row(trade) for trade in tape.history(symbol, count, now_ns)[::-1]]
        return Answer(200, encode(rows))

    @classmethod
    def rest_error(cls) -> Answer:
        label = {"label": "INVALID_CURRENCY_PAIR", "message": "Invalid currency pair GIBBERISH_USD"}
        return Answer(200, encode(label))

    def _subscribe(self, symbols: list[str], now_ns: int) -> list[Out]:
        good, bad = self.split(symbols)
        refusals: list[Out] = [
            _error(now_ns, _CHANNEL, "subscribe", 2, f"unknown currency pair {symbol}") for symbol in bad
        ]
        if bad and self.limits.refuses_frame:
            return refusals[:1]
        self.subscribed.update(dict.fromkeys(good))
        return [*refusals, self._ack("subscribe", good, now_ns)]

    def _ack(self, event: str, symbols: list[str], now_ns: int) -> Ack:
        trace = f"{now_ns:032x}"
        frame = {
            "time": now_ns // SECOND_NS,
            "time_ms": ms(now_ns),
            "conn_id": f"{0x28838AC31473DCBB + self.number:x}",
            "trace_id": trace,
            "channel": _CHANNEL,
            "event": event,
            "payload": symbols,
            "result": {"status": "success"},
            "requestId": trace,
        }
        return Ack(encode(frame))


def _head(now_ns: int, channel: str, event: str) -> Message:
    return {"time": now_ns // SECOND_NS, "time_ms": ms(now_ns), "channel": channel, "event": event}


def _error(now_ns: int, channel: str, event: str, code: int, text: str) -> str:
    return encode(_head(now_ns, channel, event) | {"error": {"code": code, "message": text}, "result": None})


def _millis(time_ns: int) -> str:
    """Write milliseconds with one to six decimals, trailing zeros dropped but one."""
    whole, rest = divmod(time_ns, 1_000_000)
    return f"{whole}.{f'{rest:06d}'.rstrip('0') or '0'}"


def _row(trade: Trade) -> Message:
    return {
        "id": trade.trade_id,
        "create_time": trade.time_ns // SECOND_NS,
        "create_time_ms": _millis(trade.time_ns),
        "side": trade.side,
        "currency_pair": trade.symbol,
        "amount": trade.size,
        "price": trade.price,
        "range": f"{trade.trade_id}-{trade.trade_id}",
    }


def _rest_row(trade: Trade) -> Message:
    row = {key: str(value) for key, value in _row(trade).items() if key != "range"}
    return row | {"sequence_id": str(trade.trade_id)}


def _ticker(trade: Trade) -> Message:
    bid, ask = spread(trade.price)
    return {
        "currency_pair": trade.symbol,
        "last": trade.price,
        "lowest_ask": ask,
        "highest_bid": bid,
        "change_percentage": "-0.91",
        "change_utc0": "-0.91",
        "change_utc8": "-0.91",
        "base_volume": "656614.0845820589",
        "quote_volume": "1602221.66468375534639404191",
        "high_24h": ask,
        "low_24h": bid,
    }
