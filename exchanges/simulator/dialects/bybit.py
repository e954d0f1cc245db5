"""Bybit v5 spot: ten topics a frame, a bad or repeated one refuses it, always "snapshot". Sans-I/O."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from exchanges.simulator.dialects.base import (
    UNKNOWN_PATH,
    Ack,
    Answer,
    Limits,
    Message,
    Out,
    Session,
    TradeFrame,
    by_symbol,
    encode,
    ms,
    spread,
    strings,
)
from exchanges.simulator.tape import Notation, Tape, Trade

_PREFIX = "publicTrade."
_ARGS_CHARACTERS = 21_000
_ID_BASE = 2_290_000_000_000_000_000
_CONNECTION = 0x2324D924_AA4D_45B0_A858_7B8BE29AB52B


class Bybit(Session):
    NOTATION = Notation("{}USDT", "USDT")
    LIMITS = Limits(connections=500, connections_window_s=300, idle_s=600, symbols_per_frame=10)
    FIRST_ID = 50_703_789

    @classmethod
    def request(cls, symbols: Sequence[str], now_ns: int) -> list[str]:
        topics = [_PREFIX + symbol for symbol in symbols]
        return [
            encode({"op": "subscribe", "args": topics[n : n + 10], "req_id": f"sub{n // 10 + 1}"})
            for n in range(0, len(topics), 10)
        ]

    @classmethod
    def client_ping(cls, now_ns: int) -> str:
        return encode({"req_id": "100001", "op": "ping"})

    def handle(self, message: Message, now_ns: int) -> list[Out]:
        op = message["op"]
        if op == "ping":
            return [self._reply(message, success=True, text="pong")]
        if op not in ("subscribe", "unsubscribe"):
            return self.malformed(encode(message), now_ns)
        topics = strings(message["args"])
        if op == "unsubscribe":
            self.unsubscribe(topic.removeprefix(_PREFIX) for topic in topics)
        elif text := self._refused(topics):
            return [self._reply(message, success=False, text=text)]
        else:
            self.subscribed.update(dict.fromkeys(self.split(map(_symbol, topics))[0]))
        return [Ack(self._reply(message, success=True, text=op))]

    def malformed(self, text: str, now_ns: int) -> list[Out]:
        return [self._reply({}, success=False, text="Invalid request")]

    def trades(self, trades: Sequence[Trade], now_ns: int) -> list[TradeFrame]:
        return [
            TradeFrame(
                encode(
                    {
                        "topic": _PREFIX + symbol,
                        "ts": ms(now_ns),
                        "type": "snapshot",
                        "data": [_row(trade) for trade in group],
                    }
                ),
                group,
            )
            for symbol, group in by_symbol(trades).items()
        ]

    @classmethod
    def rest(cls, tape: Tape, path: str, query: Mapping[str, str], now_ns: int) -> Answer:
        if path not in ("/v5/market/tickers", "/v5/market/recent-trade"):
            return UNKNOWN_PATH
        symbol = query.get("symbol", "")
        if query.get("category") != "spot" or not tape.lists(symbol):
            return cls.rest_error()
        if path == "/v5/market/tickers":
            rows = [_ticker(tape.last(symbol, now_ns))]
        else:
            count = int(query.get("limit", "60"))
            rows = [_rest_row(trade) for trade in tape.history(symbol, count, now_ns)[::-1]]
        result = {"category": "spot", "list": rows}
        answer = {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": ms(now_ns)}
        return Answer(200, encode(answer))

    @classmethod
    def rest_error(cls) -> Answer:
        answer = {"retCode": 10001, "retMsg": "Not supported symbols", "result": {}, "retExtInfo": {}}
        return Answer(200, encode(answer | {"time": 1673859087947}))

    def _refused(self, topics: list[str]) -> str:
        """Return why the whole frame is refused, or nothing."""
        most = self.limits.symbols_per_frame
        if most and len(topics) > most:
            return f"args size >{most}"
        if sum(map(len, topics)) + sum(len(_PREFIX) + len(s) for s in self.subscribed) > _ARGS_CHARACTERS:
            return "args length exceeds the limit"
        for topic in topics:
            if not topic.startswith(_PREFIX):
                return f"Invalid topic: {topic}"
            if not self.tape.lists(_symbol(topic)):
                return f"Invalid symbol :[{topic}]"
            if _symbol(topic) in self.subscribed or topics.count(topic) > 1:
                return f"error:already subscribed,topic:{topic}"
        return ""

    def _reply(self, message: Message, *, success: bool, text: str) -> str:
        reply: Message = {
            "success": success,
            "ret_msg": text,
            "conn_id": str(UUID(int=_CONNECTION + self.number)),
        }
        if "req_id" in message:
            reply["req_id"] = message["req_id"]
        return encode(reply | {"op": message.get("op", "")})


def _symbol(topic: str) -> str:
    return topic.removeprefix(_PREFIX)


def _row(trade: Trade) -> Message:
    return {
        "i": str(_ID_BASE + trade.trade_id),
        "T": ms(trade.time_ns),
        "p": trade.price,
        "v": trade.size,
        "S": trade.side.title(),
        "seq": 2_189_232_173 + trade.trade_id,
        "s": trade.symbol,
        "BT": False,
        "RPI": False,
    }


def _rest_row(trade: Trade) -> Message:
    return {
        "execId": str(_ID_BASE + trade.trade_id),
        "symbol": trade.symbol,
        "price": trade.price,
        "size": trade.size,
        "side": trade.side.title(),
        "time": str(ms(trade.time_ns)),
        "isBlockTrade": False,
    }


def _ticker(trade: Trade) -> Message:
    bid, ask = spread(trade.price)
    return {
        "symbol": trade.symbol,
        "bid1Price": bid,
        "bid1Size": "2",
        "ask1Price": ask,
        "ask1Size": "1.862172",
        "lastPrice": trade.price,
        "prevPrice24h": trade.price,
        "price24hPcnt": "0.0068",
        "highPrice24h": ask,
        "lowPrice24h": bid,
        "turnover24h": "243765620.65899866",
        "volume24h": "11801.27771",
        "usdIndexPrice": trade.price,
    }
