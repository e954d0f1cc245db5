"""Binance's combined streams: asked for in lower case, told in upper case, unknown ones silent. Sans-I/O."""

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
    strings,
)
from exchanges.simulator.tape import Notation, Tape, Trade

_SUFFIX = "@trade"


class Binance(Session):
    NOTATION = Notation("{}USDT", "USDT")
    LIMITS = Limits(connections=300, connections_window_s=300, messages=5, ping_s=20)
    FIRST_ID = 5_123_456_789

    @classmethod
    def request(cls, symbols: Sequence[str], now_ns: int) -> list[str]:
        streams = [symbol.lower() + _SUFFIX for symbol in symbols]
        return [encode({"method": "SUBSCRIBE", "params": streams, "id": 1})]

    def handle(self, message: Message, now_ns: int) -> list[Out]:
        method = message["method"]
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return self.malformed(encode(message), now_ns)
        streams = strings(message["params"])
        # Streams are lower-case; unknown ones are acknowledged like the rest and never say anything.
        symbols = [s.removesuffix(_SUFFIX).upper() for s in streams if s.endswith(_SUFFIX) and s.islower()]
        if method == "UNSUBSCRIBE":
            self.unsubscribe(symbols)
        else:
            self.subscribed.update(dict.fromkeys(self.split(symbols)[0]))
        return [Ack(encode({"result": None, "id": message.get("id")}))]

    def malformed(self, text: str, now_ns: int) -> list[Out]:
        return [encode({"code": 2, "msg": "Invalid request: unknown variant or missing field"})]

    def trades(self, trades: Sequence[Trade], now_ns: int) -> list[TradeFrame]:
        return [
            TradeFrame(
                encode(
                    {
                        "stream": trade.symbol.lower() + _SUFFIX,
                        "data": {
                            "e": "trade",
                            "E": ms(now_ns),
                            "s": trade.symbol,
                            "t": trade.trade_id,
                            "p": trade.price,
                            "q": trade.size,
                            "T": ms(trade.time_ns),
                            "m": trade.side == "sell",
                            "M": True,
                        },
                    }
                ),
                [trade],
            )
            for trade in trades
        ]

    def maintenance(self, now_ns: int) -> list[Out]:
        return [encode({"stream": "", "data": {"e": "serverShutdown", "E": ms(now_ns)}})]

    @classmethod
    def rest(cls, tape: Tape, path: str, query: Mapping[str, str], now_ns: int) -> Answer:
        if path not in ("/api/v3/ticker/price", "/api/v3/trades"):
            return UNKNOWN_PATH
        symbol = query.get("symbol", "")
        if not tape.lists(symbol):
            return cls.rest_error()._replace(status=400)
        if path == "/api/v3/ticker/price":
            return Answer(200, encode({"symbol": symbol, "price": tape.last(symbol, now_ns).price}))
        count = int(query.get("limit", "500"))
        return Answer(200, encode([_row(trade) for trade in tape.history(symbol, count, now_ns)]))

    @classmethod
    def rest_error(cls) -> Answer:
        return Answer(200, encode({"code": -1121, "msg": "Invalid symbol."}))


def _row(trade: Trade) -> Message:
    return {
        "id": trade.trade_id,
        "price": trade.price,
        "qty": trade.size,
        "quoteQty": trade.size,
        "time": ms(trade.time_ns),
        "isBuyerMaker": trade.side == "sell",
        "isBestMatch": True,
    }
