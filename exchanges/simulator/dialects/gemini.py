"""Gemini's ws.gemini.com: streams by name, a bad one refuses the frame, times in nanoseconds. Sans-I/O."""

from collections.abc import Mapping, Sequence

from exchanges.simulator.dialects.base import (
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

_SUFFIX = "@trade"
_ID_BASE = 2_840_141_030_000_000  # above 2 ** 51, as on the wire


class Gemini(Session):
    NOTATION = Notation("{}USD", lower=True, renamed={"RENDER": "RNDR"})
    LIMITS = Limits(connections=300, connections_window_s=300, rest=120, rest_window_s=60, ping_s=20)
    FIRST_ID = 659_939
    RESOLUTION_NS = 1

    @classmethod
    def request(cls, symbols: Sequence[str], now_ns: int) -> list[str]:
        streams = [symbol + _SUFFIX for symbol in symbols]
        return [encode({"id": "1", "method": "subscribe", "params": streams})]

    @classmethod
    def client_ping(cls, now_ns: int) -> str:
        return encode({"id": "ping", "method": "ping"})

    @classmethod
    def price(cls, trade: Trade) -> str:
        return _padded(trade.price, 5)

    def handle(self, message: Message, now_ns: int) -> list[Out]:
        request_id, method = message.get("id"), message["method"].lower()
        if method == "ping":
            return [encode({"id": request_id, "status": 200})]
        if method == "time":
            return [encode({"id": request_id, "status": 200, "result": {"serverTime": ms(now_ns)}})]
        if method not in ("subscribe", "unsubscribe"):
            return [_error(request_id, -1020, f"Unsupported method: {method}")]
        streams = strings(message["params"])
        if method == "unsubscribe":
            self.unsubscribe(stream.lower().removesuffix(_SUFFIX) for stream in streams)
        elif refusal := self._subscribe(request_id, streams):
            return [refusal]
        return [Ack(encode({"id": request_id, "status": 200}))]

    def malformed(self, text: str, now_ns: int) -> list[Out]:
        return [_error(None, -1013, "Invalid request")]

    def too_many(self, now_ns: int) -> list[Out]:
        return [_error(None, -1003, "Too many requests", status=429)]

    def trades(self, trades: Sequence[Trade], now_ns: int) -> list[TradeFrame]:
        return [
            TradeFrame(
                encode(
                    {
                        "E": trade.time_ns,
                        "s": trade.symbol,
                        "t": _ID_BASE + trade.trade_id,
                        "p": self.price(trade),
                        "q": _padded(trade.size, 10),
                        "m": trade.side == "sell",
                    }
                ),
                [trade],
            )
            for trade in trades
        ]

    @classmethod
    def rest(cls, tape: Tape, path: str, query: Mapping[str, str], now_ns: int) -> Answer:
        route, _, symbol = path.rpartition("/")
        symbol = symbol.lower()
        if route not in ("/v1/pubticker", "/v2/ticker", "/v1/trades"):
            return UNKNOWN_PATH
        if not tape.lists(symbol):
            return cls.rest_error()._replace(status=400)
        trade = tape.last(symbol, now_ns)
        bid, ask = spread(trade.price)
        if route == "/v1/pubticker":
            volume = {
                tape.asset(symbol): "915.6534281291",
                "USD": "10394749.066094351423",
                "timestamp": ms(now_ns),
            }
            return Answer(200, encode({"bid": bid, "ask": ask, "volume": volume, "last": trade.price}))
        if route == "/v2/ticker":
            return Answer(200, encode(_ticker(tape, symbol, trade, bid, ask, now_ns)))
        count = int(query.get("limit_trades", "50"))
        return Answer(200, encode([_row(trade) for trade in tape.history(symbol, count, now_ns)[::-1]]))

    @classmethod
    def rest_error(cls) -> Answer:
        text = "Supplied value 'bla' is not a valid symbol."
        return Answer(200, encode({"message": text, "reason": "Bad Request", "result": "error"}))

    def _subscribe(self, request_id: object, streams: list[str]) -> str | None:
        """Subscribe to *streams*, or to none of them when one is unknown: then return the refusal."""
        symbols = []
        for stream in streams:
            symbol, at, kind = stream.lower().partition("@")
            if at + kind != _SUFFIX or not self.tape.lists(symbol):
                return _error(request_id, -1013, f"Invalid stream name: {stream}")
            symbols.append(symbol)
        self.subscribed.update(dict.fromkeys(symbols))
        return None


def _ticker(tape: Tape, symbol: str, trade: Trade, bid: str, ask: str, now_ns: int) -> Message:
    past = [old.price for old in tape.history(symbol, 24, now_ns)]
    return {
        "symbol": symbol.upper(),
        "open": past[0],
        "high": trade.price,
        "low": past[0],
        "close": trade.price,
        "changes": past,
        "bid": bid,
        "ask": ask,
    }


def _row(trade: Trade) -> Message:
    return {
        "timestamp": trade.time_ns // 1_000_000_000,
        "timestampms": ms(trade.time_ns),
        "tid": _ID_BASE + trade.trade_id,
        "price": trade.price,
        "amount": trade.size,
        "exchange": "gemini",
        "type": trade.side,
    }


def _padded(number: str, digits: int) -> str:
    """Write *number* with at least *digits* digits after the point, as this exchange does."""
    whole, point, fraction = number.partition(".")
    return f"{whole}.{fraction:0<{digits}}" if point else number


def _error(request_id: object, code: int, text: str, *, status: int = 400) -> str:
    return encode({"id": request_id, "status": status, "error": {"code": code, "msg": text}})
