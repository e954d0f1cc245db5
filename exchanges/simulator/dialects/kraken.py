"""Kraken v2: an answer per symbol, the last fifty trades on subscribing, prices as JSON numbers. Sans-I/O."""

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
    by_symbol,
    encode,
    rfc3339,
    spread,
    strings,
)
from exchanges.simulator.tape import HISTORY, Notation, Tape, Trade

_HEARTBEAT = '{"channel":"heartbeat"}'
_TOO_MANY = "Exceeded msg rate"
# Its older, ISO-like names, which REST still speaks and the socket refuses.
_OLD_NAMES = {"XBT": "BTC", "XDG": "DOGE"}
_LETTERED = {
    "BTC": "XXBT",
    "ETH": "XETH",
    "LTC": "XLTC",
    "XRP": "XXRP",
    "XLM": "XXLM",
    "ZEC": "XZEC",
    "ETC": "XETC",
}


class Kraken(Session):
    NOTATION = Notation("{}/USD")
    LIMITS = Limits(connections=150, connections_window_s=600, messages=200, idle_s=60, rest=20)
    FIRST_ID = 109_116_693
    RESOLUTION_NS = 1_000
    MAINTENANCE_IS_A_STATE = True

    def __init__(self, tape: Tape, number: int, limits: Limits, now_ns: int) -> None:
        super().__init__(tape, number, limits, now_ns)
        self._paused = False

    @classmethod
    def request(cls, symbols: Sequence[str], now_ns: int) -> list[str]:
        params = {"channel": "trade", "symbol": symbols, "snapshot": True}
        return [encode({"method": "subscribe", "params": params, "req_id": 1})]

    @classmethod
    def client_ping(cls, now_ns: int) -> str:
        return encode({"method": "ping", "req_id": 101})

    def opened(self, now_ns: int) -> list[Out]:
        return [self._status("online")]

    def handle(self, message: Message, now_ns: int) -> list[Out]:
        method = message["method"]
        if method == "ping":
            return [encode({"method": "pong"} | _echo(message) | _times(now_ns))]
        if method not in ("subscribe", "unsubscribe"):
            return self.malformed(encode(message), now_ns)
        params = message["params"]
        if params["channel"] != "trade":
            return [_refusal("Channel not supported", message, now_ns)]
        symbols = strings(params["symbol"])
        if method == "unsubscribe":
            self.unsubscribe(symbols)
            return [self._ack(message, symbol, now_ns, snapshot=False) for symbol in symbols]
        return self._subscribe(message, symbols, now_ns, snapshot=params.get("snapshot", True))

    def malformed(self, text: str, now_ns: int) -> list[Out]:
        return [encode({"error": "Unsupported event", "success": False} | _times(now_ns))]

    def too_many(self, now_ns: int) -> list[Out]:
        return [encode({"error": _TOO_MANY, "method": "subscribe", "success": False} | _times(now_ns))]

    def trades(self, trades: Sequence[Trade], now_ns: int) -> list[TradeFrame]:
        if self._paused:
            return []
        return [_trade_frame("update", group) for group in by_symbol(trades).values()]

    def beat(self, now_ns: int) -> list[Out]:
        return [_HEARTBEAT] if self.subscribed and now_ns - self.sent_ns >= SECOND_NS else []

    def alive_ns(self) -> int:
        """Count a subscription as life: only a connection without one is closed."""
        return max(self.heard_ns, self.sent_ns) if self.subscribed else self.heard_ns

    def idle_close(self) -> Close:
        return Close(1000, "no subscription")

    def maintenance(self, now_ns: int) -> list[Out]:
        self._paused = True
        return [self._status("maintenance")]

    def maintenance_over(self, now_ns: int) -> list[Out]:
        self._paused = False
        return [self._status("online")]

    @classmethod
    def rest(cls, tape: Tape, path: str, query: Mapping[str, str], now_ns: int) -> Answer:
        if path not in ("/0/public/Ticker", "/0/public/Trades"):
            return UNKNOWN_PATH
        symbol, key = _named(query.get("pair", ""))
        if not tape.lists(symbol):
            return cls.rest_error()
        if path == "/0/public/Ticker":
            return Answer(200, encode({"error": [], "result": {key: _ticker(tape, symbol, now_ns)}}))
        count = int(query.get("count", "1000"))
        rows = ",".join(_rest_row(trade) for trade in tape.history(symbol, count, now_ns))
        return Answer(200, f'{{"error":[],"result":{{"{key}":[{rows}],"last":"{now_ns}"}}}}')

    @classmethod
    def rest_error(cls) -> Answer:
        return Answer(200, '{"error":["EQuery:Unknown asset pair"]}')

    def _subscribe(self, message: Message, symbols: list[str], now_ns: int, *, snapshot: bool) -> list[Out]:
        out: list[Out] = []
        for symbol in symbols:
            if not self.tape.lists(symbol):
                error = f"Currency pair not supported {symbol}"
                out.append(_refusal(error, message, now_ns, symbol=symbol))
            elif symbol in self.subscribed:
                out.append(_refusal("Already subscribed", message, now_ns, symbol=symbol))
            else:
                self.subscribed[symbol] = None
                out.append(self._ack(message, symbol, now_ns, snapshot=snapshot))
                if snapshot:
                    out.append(_trade_frame("snapshot", self.tape.history(symbol, HISTORY, now_ns)))
        return out

    def _ack(self, message: Message, symbol: str, now_ns: int, *, snapshot: bool) -> Ack:
        result: Message = {"channel": "trade", "snapshot": snapshot, "symbol": symbol}
        if message["method"] == "unsubscribe":
            del result["snapshot"]
        head = {"method": message["method"], "result": result, "success": True}
        return Ack(encode(head | _times(now_ns) | _echo(message)))

    def _status(self, system: str) -> str:
        data = {
            "api_version": "v2",
            "connection_id": 13_834_774_380_200_032_777 + self.number,
            "system": system,
            "version": "2.0.10",
        }
        return encode({"channel": "status", "data": [data], "type": "update"})


def _trade_frame(kind: str, trades: Sequence[Trade]) -> TradeFrame:
    # By hand: the digits of a price must reach the wire as they are, trailing zeros included.
    rows = ",".join(
        f'{{"symbol":"{trade.symbol}","side":"{trade.side}","price":{trade.price},"qty":{trade.size},'
        f'"ord_type":"{"market" if trade.trade_id % 3 else "limit"}","trade_id":{trade.trade_id},'
        f'"timestamp":"{rfc3339(trade.time_ns)}"}}'
        for trade in trades
    )
    return TradeFrame(f'{{"channel":"trade","type":"{kind}","data":[{rows}]}}', trades)


def _refusal(error: str, message: Message, now_ns: int, *, symbol: str = "") -> str:
    head = {"error": error, "method": message["method"], "success": False}
    if symbol:
        head["symbol"] = symbol
    return encode(head | _times(now_ns) | _echo(message))


def _echo(message: Message) -> Message:
    return {"req_id": message["req_id"]} if "req_id" in message else {}


def _times(now_ns: int) -> Message:
    return {"time_in": rfc3339(now_ns), "time_out": rfc3339(now_ns + 21_000)}


def _named(pair: str) -> tuple[str, str]:
    """Return the symbol meant by *pair*, and the key under which REST answers about it."""
    if "/" in pair:
        return pair, pair
    base = pair.removesuffix("USD")
    asset = _OLD_NAMES.get(base, base)
    key = f"{_LETTERED[asset]}ZUSD" if asset in _LETTERED else pair
    return f"{asset}/USD", key


def _ticker(tape: Tape, symbol: str, now_ns: int) -> Message:
    trade = tape.last(symbol, now_ns)
    bid, ask = spread(trade.price)
    return {
        "a": [ask, "1", "1.000"],
        "b": [bid, "1", "1.000"],
        "c": [trade.price, trade.size],
        "v": ["4083.67001100", "4412.73601799"],
        "p": [trade.price, trade.price],
        "t": [34_619, 38_907],
        "l": [bid, bid],
        "h": [ask, ask],
        "o": trade.price,
    }


def _rest_row(trade: Trade) -> str:
    seconds, nanos = divmod(trade.time_ns, SECOND_NS)
    return f'["{trade.price}","{trade.size}",{seconds}.{nanos:09d},"{trade.side[0]}","m","",{trade.trade_id}]'
