"""Conversations with each exchange, and what the protocol does by the clock."""

import gzip
import itertools
import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from exchanges.feed.protocol import MAX_FAULTS, MAX_FRAME_BYTES, PING, RECONNECT_AFTER_NOTICE_S, FeedProtocol
from exchanges.feed.spec import FeedSpec
from pricing.tick import Tick
from tests.exchanges.feed.replay import FIXTURES, OWN, SHARED, Recorded, recorded, shipped_row
from tests.exchanges.feed.samples import TRADES, incoming
from tests.exchanges.rows import feed_spec

SECOND = 10**9
WALL = 1_790_000_000 * SECOND
START = 5_000 * SECOND
ID = "00000000-0000-4000-8000-000000000000"
ASSETS = [line.split(",") for line in (FIXTURES / "assets.csv").read_text().splitlines()[1:]]
TWENTY_FIVE = (
    "BTC ETH SOL XRP DOGE LINK LTC AVAX DOT BCH UNI AAVE SHIB PEPE BNB"
    " ATOM FIL ARB OP POL INJ WIF BONK HYPE CRV"
)
ROWS = sorted(file.stem for file in FIXTURES.glob("*/*.json"))
SIX = ("coinbase", "gemini", "kraken", "gateio", "bybit", "okx")


class Talk:
    """A conversation on a clock that the test moves."""

    def __init__(self, spec: FeedSpec | str, *symbols: str, opened: bool = True) -> None:
        self.spec = shipped_row(spec) if isinstance(spec, str) else spec
        self.now = START
        self.protocol = FeedProtocol(self.spec, symbols, uuid=lambda: ID)
        self.sent: list[Any] = []  # Any: decoded frames, texts and PING
        if opened:
            self.protocol.opened(self.wall, self.now)
            self.listen()

    @property
    def wall(self) -> int:
        return WALL + self.now - START

    def listen(self) -> list[Any]:
        """Return what the protocol sends now, decoded where it is JSON."""
        frames = [_decoded(frame) for frame in self.protocol.outgoing()]
        self.sent += frames
        return frames

    def hear(self, frame: str | bytes | dict[str, Any]) -> list[Tick]:
        return self.protocol.receive(
            json.dumps(frame) if isinstance(frame, dict) else frame, self.wall, self.now
        )

    def wait(self, seconds: float) -> list[Any]:
        """Move the clock from deadline to deadline and return what was sent meanwhile."""
        end, sent = self.now + int(seconds * SECOND), len(self.sent)
        while (at := self.protocol.next_deadline()) is not None and at <= end and not self.protocol.hangup:
            self.now = max(self.now, at)
            self.protocol.tick_due(self.wall, self.now)
            self.listen()
            following = self.protocol.next_deadline()
            assert self.protocol.hangup or following is None or following > self.now, "would spin"
        self.now = end
        return self.sent[sent:]

    @property
    def states(self) -> dict[str, str]:
        return {symbol: state.state for symbol, state in self.protocol.symbol_states().items()}

    def kinds(self) -> dict[str, int]:
        return dict(self.protocol.counts)


def _decoded(frame: str | object) -> Any:  # Any: JSON
    try:
        return json.loads(str(frame)) if frame is not PING else PING
    except ValueError:
        return frame


def symbols_of(exchange: str) -> list[str]:
    listed = {row[0]: row[3] for row in ASSETS if row[2] == exchange}
    return [listed[asset] for asset in TWENTY_FIVE.split()]


def recorded_texts(exchange: str, kind: str) -> list[str]:
    return [
        line.line["text"] for line in recorded(SHARED) if (line.name, line.line["kind"]) == (exchange, kind)
    ]


# What is asked for


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no recorded frames at {SHARED}")
@pytest.mark.parametrize("exchange", SIX)
def test_subscribe_frames_are_those_recorded(exchange: str) -> None:
    talk = Talk(exchange, *symbols_of(exchange))
    talk.wait(1)
    asked = [_without_ids(frame) for frame in talk.sent if frame is not PING]
    written = [_without_ids(json.loads(text)) for text in recorded_texts(exchange, "subscribe")]
    assert asked == written[: len(asked)]
    assert len(asked) == {"bybit": 3, "coinbase": 2}.get(exchange, 1)


def _without_ids(frame: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    """Leave out what differs from one recording to the next."""
    return {key: value for key, value in frame.items() if key not in ("id", "req_id", "time")}


def test_bybit_asks_for_ten_a_frame() -> None:
    assert [len(frame["args"]) for frame in Talk("bybit", *symbols_of("bybit")).sent] == [10, 10, 5]


def test_coinbase_asks_for_heartbeats_once_and_keeps_its_gap() -> None:
    talk = Talk("coinbase", "BTC-USD")
    assert [frame["channel"] for frame in talk.sent] == ["market_trades"]
    assert [frame["channel"] for frame in talk.wait(0.2)] == ["heartbeats"]


def test_gateio_time_is_a_bare_number() -> None:
    assert Talk("gateio", "BTC_USDT").sent[0]["time"] == WALL // SECOND


def test_okx_symbols_are_objects() -> None:
    assert Talk("okx", "BTC-USDT").sent == [
        {"op": "subscribe", "args": [{"channel": "trades", "instId": "BTC-USDT"}]}
    ]


def test_upbit_request_is_a_list_with_a_ticket() -> None:
    ticket, trades = Talk("upbit", "USDT-BTC", "USDT-ETH").sent[0]
    assert UUID(ticket["ticket"])
    assert trades == {"type": "trade", "codes": ["USDT-BTC", "USDT-ETH"]}


@pytest.mark.parametrize(
    ("exchange", "symbol"), [("bitstamp", "btcusd"), ("htx", "btcusdt"), ("bitfinex", "tBTCUSD")]
)
def test_one_frame_per_symbol(exchange: str, symbol: str) -> None:
    talk = Talk(exchange, symbol, symbol[::-1])
    assert len(talk.sent) == 2
    assert symbol in json.dumps(talk.sent[0])


def test_nothing_to_ask_for_sends_nothing() -> None:
    assert Talk("coinbase").sent == Talk("gemini").sent == []


def test_cryptocom_waits_a_second_before_asking() -> None:
    talk = Talk("cryptocom", "BTC_USDT")
    assert talk.sent == talk.wait(0.999) == []
    assert talk.wait(0.002)[0]["nonce"] == WALL // 10**6


def test_kucoin_asks_after_the_welcome() -> None:
    talk = Talk("kucoin", "BTC-USDT", "ETH-USDT")
    assert talk.wait(1) == []
    talk.hear({"id": "x", "type": "welcome"})
    assert [frame["topic"] for frame in talk.listen()] == ["/market/match:BTC-USDT,ETH-USDT"]


def test_frames_keep_their_gap() -> None:
    talk = Talk(feed_spec(symbols_per_frame=1, quirks={"frame_gap_ms": 100}), "A", "B", "C")
    assert [len(talk.sent), len(talk.wait(0.099)), len(talk.wait(0.002)), len(talk.wait(0.1))] == [1, 0, 1, 1]


# Live changes


def test_subscribe_and_unsubscribe_on_an_open_connection() -> None:
    talk = Talk("kraken", "BTC/USD")
    talk.protocol.subscribe(["BTC/USD", "ETH/USD"], talk.wall, talk.now)
    assert [frame["params"]["symbol"] for frame in talk.listen()] == [["ETH/USD"]]
    assert talk.protocol.unsubscribe(["BTC/USD", "X"], talk.wall, talk.now)
    assert [(frame["method"], frame["params"]["symbol"]) for frame in talk.listen()] == [
        ("unsubscribe", ["BTC/USD"])
    ]
    assert list(talk.states) == ["ETH/USD"]


def test_coinbase_does_not_ask_for_heartbeats_again() -> None:
    talk = Talk("coinbase", "BTC-USD")
    talk.wait(1)
    talk.protocol.subscribe(["ETH-USD"], talk.wall, talk.now)
    assert [frame.get("product_ids") for frame in talk.listen() + talk.wait(1)] == [["ETH-USD"]]


def test_changes_before_the_socket_is_open_are_asked_for_once() -> None:
    talk = Talk("bybit", "BTCUSDT", "ETHUSDT", opened=False)
    talk.protocol.subscribe(["SOLUSDT"], talk.wall, talk.now)
    assert talk.protocol.unsubscribe(["ETHUSDT"], talk.wall, talk.now)
    assert talk.listen() == []
    talk.protocol.opened(talk.wall, talk.now)
    assert [frame["args"] for frame in talk.listen()] == [["publicTrade.BTCUSDT", "publicTrade.SOLUSDT"]]


def test_row_without_a_way_to_unsubscribe_says_so() -> None:
    talk = Talk("upbit", "USDT-BTC")
    assert not talk.protocol.unsubscribe(["USDT-BTC"], talk.wall, talk.now)
    assert talk.protocol.unsubscribe(["USDT-XRP"], talk.wall, talk.now)
    assert talk.listen() == []
    assert talk.hear(TRADES["upbit"][0]) == []


# Answers


@pytest.mark.parametrize(
    ("exchange", "symbol", "ack"),
    [
        (
            "coinbase",
            "BTC-USD",
            {"channel": "subscriptions", "events": [{"subscriptions": {"market_trades": ["BTC-USD"]}}]},
        ),
        ("gemini", "btcusd", {"id": "1", "status": 200, "result": {}}),
        ("gemini", "btcusd", {"id": 1, "status": 200}),
        (
            "kraken",
            "BTC/USD",
            {"method": "subscribe", "result": {"channel": "trade", "symbol": "BTC/USD"}, "success": True},
        ),
        (
            "gateio",
            "BTC_USDT",
            {"channel": "spot.trades", "event": "subscribe", "result": {"status": "success"}},
        ),
        ("bybit", "BTCUSDT", {"success": True, "ret_msg": "", "op": "subscribe"}),
        ("okx", "BTC-USDT", {"event": "subscribe", "arg": {"channel": "trades", "instId": "BTC-USDT"}}),
        ("cryptocom", "BTC_USDT", {"id": 1, "method": "subscribe", "code": 0}),
        (
            "bitstamp",
            "btcusd",
            {"event": "bts:subscription_succeeded", "channel": "live_trades_btcusd", "data": {}},
        ),
        ("bitfinex", "tBTCUSD", {"event": "subscribed", "chanId": 17470, "symbol": "tBTCUSD"}),
        ("htx", "btcusdt", {"id": "1", "status": "ok", "subbed": "market.btcusdt.trade.detail"}),
        ("upbit", "USDT-BTC", {"status": "UP"}),
    ],
)
def test_ack_is_a_hint(exchange: str, symbol: str, ack: dict[str, Any]) -> None:
    talk = Talk(exchange, symbol)
    talk.wait(1.5)
    assert talk.hear(ack) == []
    assert talk.states == {symbol: "asked" if exchange == "upbit" else "acked"}
    assert talk.protocol.last_tick_mono_ns == 0
    assert not talk.protocol.connected_for_data


def test_data_before_the_ack_is_the_proof() -> None:
    talk = Talk("coinbase", "ETH-USD", "BTC-USD")
    assert talk.hear(_coinbase("ETH-USD"))
    assert talk.protocol.connected_for_data
    talk.hear({"channel": "subscriptions", "events": [{"subscriptions": {}}]})  # 2026: empty, and it works
    assert talk.states == {"ETH-USD": "live", "BTC-USD": "asked"}


def _coinbase(symbol: str) -> dict[str, Any]:  # Any: JSON
    trade = {"product_id": symbol, "price": "1.5", "time": "2026-09-30T02:39:59.5519Z", "trade_id": "1"}
    return {"channel": "market_trades", "events": [{"trades": [trade]}]}


@pytest.mark.parametrize(
    ("exchange", "symbols", "bad", "refusal"),
    [
        (
            "gemini",
            ["btcusd", "nousd", "ethusd"],
            "nousd",
            {"id": 1, "status": 400, "error": {"code": -1013, "msg": "Invalid stream name: nousd@trade"}},
        ),
        (
            "bybit",
            ["BTCUSDT", "NOPEUSDT", "ETHUSDT"],
            "NOPEUSDT",
            {"success": False, "ret_msg": "Invalid symbol :[publicTrade.NOPEUSDT]", "op": "subscribe"},
        ),
        (
            "gateio",
            ["BTC_USDT", "GIBBERISH_USD"],
            "GIBBERISH_USD",
            {
                "event": "subscribe",
                "error": {"code": 2, "message": "unknown currency pair GIBBERISH_USD"},
                "result": None,
            },
        ),
    ],
)
def test_whole_frame_refusal_asks_for_the_others_without_the_bad_one(
    exchange: str, symbols: list[str], bad: str, refusal: dict[str, Any]
) -> None:
    talk = Talk(exchange, *symbols)
    talk.hear(refusal)
    again = json.dumps(talk.listen())
    assert bad not in again
    assert all(symbol in again for symbol in symbols if symbol != bad)
    assert talk.states == {symbol: "refused" if symbol == bad else "asked" for symbol in symbols}
    assert [(fault.reason, fault.symbol) for fault in talk.protocol.take_faults()] == [("refused", bad)]


@pytest.mark.parametrize(
    ("exchange", "symbols", "bad", "refusal"),
    [
        (
            "kraken",
            ["BTC/USD", "XBT/USD"],
            "XBT/USD",
            {
                "error": "Currency pair not supported XBT/USD",
                "method": "subscribe",
                "success": False,
                "symbol": "XBT/USD",
            },
        ),
        (
            "okx",
            ["BTC-USDT", "NO-USDT"],
            "NO-USDT",
            {
                "event": "error",
                "code": "60018",
                "msg": "Subscribe failed, wrong URL or channel:trades,instId:NO-USDT doesn't exist.",
            },
        ),
        (
            "coinbase",
            ["BTC-USD", "NO-USD"],
            "NO-USD",
            {"type": "error", "message": "NO-USD is not a valid product"},
        ),
        (
            "bitstamp",
            ["btcusd", "nousd"],
            "nousd",
            {"event": "bts:error", "data": {"message": "Bad subscription: live_trades_nousd"}},
        ),
        (
            "bitfinex",
            ["tBTCUSD", "tNOUSD"],
            "tNOUSD",
            {"event": "error", "msg": "symbol: invalid", "symbol": "tNOUSD"},
        ),
        (
            "htx",
            ["btcusdt", "nousdt"],
            "nousdt",
            {"status": "error", "err-msg": "invalid topic market.nousdt.trade.detail"},
        ),
    ],
)
def test_symbol_refusal_touches_only_that_one(
    exchange: str, symbols: list[str], bad: str, refusal: dict[str, Any]
) -> None:
    talk = Talk(exchange, *symbols)
    talk.listen()
    talk.hear(refusal)
    assert talk.listen() == []
    assert talk.states[bad] == "refused"
    assert talk.states[symbols[0]] == "asked"


@pytest.mark.parametrize(
    "refusal", [{"success": False, "ret_msg": "args size >10", "op": "subscribe"}, {"success": False}]
)
def test_unnamed_refusal_is_split_one_by_one(refusal: dict[str, Any]) -> None:
    talk = Talk("bybit", "AUSDT", "BUSDT")
    talk.hear(refusal)
    assert [frame["args"] for frame in talk.listen()] == [["publicTrade.AUSDT"], ["publicTrade.BUSDT"]]
    talk.hear(refusal)
    talk.hear({"success": True, "op": "subscribe"})
    assert talk.listen() == []
    assert talk.states == {"AUSDT": "refused", "BUSDT": "acked"}


def test_already_subscribed_loses_only_the_others_and_asks_for_them() -> None:
    talk = Talk("bybit", "AUSDT", "BUSDT")
    talk.hear(
        {"success": False, "ret_msg": "error:already subscribed,topic:publicTrade.AUSDT", "op": "subscribe"}
    )
    assert [frame["args"] for frame in talk.listen()] == [["publicTrade.BUSDT"]]
    assert talk.states == {"AUSDT": "acked", "BUSDT": "asked"}
    assert talk.protocol.take_faults() == []


def test_refused_symbol_is_retried_alone_with_growing_pauses() -> None:
    talk = Talk(
        feed_spec(
            quirks={
                "refusals": [{"match": {"no": {"present": True}}, "symbol_path": "no"}],
                "silence_limit_s": 86_400,
            }
        ),
        "A",
        "B",
    )
    asked_at = []
    for _ in range(4):
        talk.hear({"no": "A"})
        while not talk.wait(1):
            pass
        asked_at.append(talk.now // SECOND)
        assert talk.sent[-1]["args"] == ["A"]
    assert [later - sooner for sooner, later in itertools.pairwise(asked_at)] == [120, 240, 480]


def test_unanswered_symbols_are_asked_for_again_alone_and_one_at_a_time() -> None:
    talk = Talk(
        feed_spec(quirks={"acks": [{"match": {"ok": 1}}], "frame_gap_ms": 250, "silence_limit_s": 600}),
        "A",
        "B",
        "C",
    )
    assert [frame["args"] for frame in talk.wait(31)] == [["A"], ["B"], ["C"]]
    assert len(talk.wait(58)) == 0
    assert len(talk.wait(10)) == 3


@pytest.mark.parametrize("ack", [{"result": None, "id": 1}])
def test_unknown_answer_is_counted_and_changes_nothing(ack: dict[str, Any]) -> None:
    talk = Talk("binance", "btcusdt")
    talk.hear(ack)
    assert (talk.states, talk.kinds()) == ({"btcusdt": "asked"}, {"other": 1})


@pytest.mark.parametrize(
    ("exchange", "frame"),
    [
        ("gateio", {"channel": "spot.pong", "event": "", "error": None, "result": None}),
        ("bybit", {"success": True, "ret_msg": "pong", "op": "ping"}),
        ("bybit", {"args": ["1672916271846"], "op": "pong"}),
        ("gemini", {"id": "ping", "status": 200}),
        ("kraken", {"method": "pong", "req_id": 101}),
        ("upbit", {"status": "UP"}),
        ("okx", "pong"),
        ("okx", b"pong"),
    ],
)
def test_pong_is_neither_ack_nor_error_nor_bad(exchange: str, frame: Any) -> None:  # Any: a frame
    talk = Talk(exchange, "A")
    talk.hear(frame)
    assert talk.kinds() == {"pong": 1}
    assert talk.states == {"A": "asked"}


def test_literal_pong_of_another_exchange_is_bad_json() -> None:
    talk = Talk("kraken", "A")
    talk.hear("pong")
    assert talk.kinds() == {"bad_json": 1}
    assert [(fault.reason, fault.detail) for fault in talk.protocol.take_faults()] == [("bad_json", "pong")]


def test_symbols_in_another_case_are_the_same() -> None:
    talk = Talk("binance", "btcusdt")
    ticks = talk.hear(
        {
            "stream": "btcusdt@trade",
            "data": {"e": "trade", "s": "BTCUSDT", "t": 1, "p": "1.50", "T": 1790000000123},
        }
    )
    assert [tick.symbol for tick in ticks] == ["BTCUSDT"]
    assert talk.states == {"btcusdt": "live"}


def test_trades_nobody_asked_for_are_counted_and_left_out() -> None:
    talk = Talk("coinbase", "BTC-USD")
    assert talk.hear(_coinbase("ETH-USD")) == []
    assert talk.kinds() == {"trade": 1, "unknown_symbol": 1}
    assert not talk.protocol.connected_for_data


@pytest.mark.parametrize(
    "line",
    [
        line
        for line in [*recorded(SHARED), *recorded(OWN)]
        if line.line["kind"] == "other" and line.line["direction"] == "in"
    ],
    ids=lambda line: f"{line.name}:{line.number}",
)
def test_other_channels_are_ignored(line: Recorded) -> None:
    talk = Talk(line.name, "A")
    assert talk.hear(line.line["text"]) == []
    assert talk.states == {"A": "asked"}
    assert talk.protocol.take_faults() == []


# Replies, notices, states


def test_cryptocom_heartbeat_is_answered_with_its_own_id() -> None:
    talk = Talk("cryptocom", "BTC_USDT")
    talk.hear('{"id":9007199254740993123,"method":"public/heartbeat","code":0}')
    assert talk.protocol.outgoing() == ['{"id":9007199254740993123,"method":"public/respond-heartbeat"}']


@pytest.mark.parametrize(
    ("ping", "pong"),
    [('{"ping":1492420473027}', '{"pong":1492420473027}'), ('{"ping":"a\\"b"}', '{"pong":"a\\"b"}')],
)
def test_htx_ping_is_answered_with_its_value(ping: str, pong: str) -> None:
    talk = Talk("htx")
    talk.hear(gzip.compress(ping.encode()))
    assert talk.protocol.outgoing() == [pong]


def test_reply_to_a_frame_without_the_value_says_null() -> None:
    talk = Talk("cryptocom")
    talk.hear('{"method":"public/heartbeat"}')
    assert talk.listen() == [{"id": None, "method": "public/respond-heartbeat"}]


@pytest.mark.parametrize(
    ("exchange", "frame"),
    [
        ("okx", {"event": "notice", "code": "64008", "msg": "The connection will soon be closed"}),
        ("gateio", {"time": 1777000000, "channel": "", "event": "upgrade", "result": None}),
        ("binance", {"stream": "!", "data": {"e": "serverShutdown"}}),
        ("bitstamp", {"event": "bts:request_reconnect", "channel": "", "data": ""}),
        ("bitfinex", {"event": "info", "code": 20051, "msg": "Stop/Restart Websocket Server"}),
    ],
)
def test_reconnect_notice_hangs_up(exchange: str, frame: dict[str, Any]) -> None:
    talk = Talk(exchange, "A")
    talk.hear(frame)
    assert talk.protocol.hangup is not None
    assert talk.protocol.hangup.retry_after_s == RECONNECT_AFTER_NOTICE_S


@pytest.mark.parametrize("system", ["maintenance", "cancel_only", "post_only", "emergency"])
def test_kraken_is_paused_until_it_is_online(system: str) -> None:
    talk = Talk("kraken", "BTC/USD")
    talk.hear({"channel": "status", "data": [{"system": system}]})
    assert system in talk.protocol.paused
    for _ in range(50):
        talk.hear({"channel": "heartbeat"})
        talk.wait(4)
    assert talk.protocol.hangup is None  # nobody expects trades
    talk.hear({"channel": "status", "data": [{"system": "online"}]})
    assert talk.protocol.paused == ""
    talk.hear({"channel": "status", "data": [{"system": "online"}]})
    for _ in range(30):
        talk.hear({"channel": "heartbeat"})
        talk.wait(4)
    assert talk.protocol.hangup is not None


def test_bitfinex_pause_and_resume() -> None:
    talk = Talk("bitfinex", "tBTCUSD")
    talk.hear({"event": "info", "code": 20060})
    assert talk.protocol.paused
    talk.hear({"event": "info", "code": 20061})
    assert not talk.protocol.paused


def test_resuming_does_not_make_a_connection_younger() -> None:
    spec = feed_spec(quirks={"pause": [{"s": 0}], "resume": [{"s": 1}], "connect": {"max_age_s": 50}})
    talk = Talk(spec, "A")
    talk.wait(40)
    talk.hear({"s": 0})
    talk.hear({"s": 1})
    talk.wait(11)
    assert talk.protocol.hangup == ("largest age of a connection", 0)


# The clock


@pytest.mark.parametrize(
    ("exchange", "period_s", "payload"),
    [
        ("bybit", 20, {"op": "ping"}),
        ("okx", 25, "ping"),
        ("gateio", 10, {"time": WALL // SECOND + 10, "channel": "spot.ping"}),
        ("upbit", 60, "PING"),
    ],
)
def test_ping(exchange: str, period_s: int, payload: Any) -> None:  # Any: JSON or text
    row = shipped_row(exchange)
    patient = replace(row, quirks=replace(row.quirks, silence_limit_s=600, frame_limit_s=0))
    talk = Talk(patient, "A")
    assert talk.wait(period_s - 0.001) == []
    assert talk.wait(0.002) == [payload]


def test_empty_ping_is_a_protocol_ping() -> None:
    talk = Talk(feed_spec(ping_interval_s=7), "A")
    assert talk.wait(22) == [PING, PING, PING]


def test_ping_with_an_id() -> None:
    talk = Talk("kucoin", "A")
    assert talk.wait(18) == [{"id": "2", "type": "ping"}]


def test_heartbeats_are_no_data() -> None:
    talk = Talk(feed_spec(quirks={"silence_limit_s": 30}), "A")
    for _ in range(31):
        talk.hear({"heartbeat": 1})
        talk.wait(1)
    assert talk.protocol.hangup == ("no trade for 30 s", 0)


def test_trades_keep_the_feed_alive() -> None:
    talk = Talk(feed_spec(quirks={"silence_limit_s": 30}), "A")
    for _ in range(5):
        talk.wait(29)
        assert talk.hear({"e": "trade", "s": "A", "p": "1", "T": 1790000000123})
    assert talk.protocol.hangup is None
    assert talk.protocol.first_tick_mono_ns == START + 29 * SECOND


def test_trade_that_cannot_be_read_is_no_data() -> None:
    talk = Talk(feed_spec(quirks={"silence_limit_s": 30}), "A")
    talk.wait(20)
    talk.hear({"e": "trade", "s": "A", "p": "0", "T": 1790000000123})
    talk.wait(10)
    assert talk.protocol.hangup is not None


def test_no_frame_at_all_is_noticed_sooner() -> None:
    talk = Talk("kraken", "A")
    talk.wait(4)
    talk.hear({"channel": "heartbeat"})
    talk.wait(4.9)
    assert talk.protocol.hangup is None
    talk.wait(0.2)
    assert talk.protocol.hangup == ("no frame for 5 s", 0)


def test_connection_has_a_largest_age() -> None:
    talk = Talk(feed_spec(quirks={"silence_limit_s": 86_400, "connect": {"max_age_s": 100}}), "A")
    talk.wait(99.9)
    assert talk.protocol.hangup is None
    talk.wait(0.2)
    assert talk.protocol.hangup == ("largest age of a connection", 0)


actions = st.one_of(
    st.tuples(st.just("wait"), st.floats(0, 90)),
    st.tuples(st.just("hear"), st.integers(0, 10**6)),
    st.tuples(st.just("subscribe"), st.sampled_from("abcdef")),
    st.tuples(st.just("unsubscribe"), st.sampled_from("abcdef")),
    st.tuples(st.just("refuse"), st.sampled_from("abcdefx")),
)
REFUSING = {
    "acks": [{"match": {"ok": 1}}],
    "refusals": [
        {"match": {"no": {"present": True}, "whole": {"present": False}}, "symbol_path": "no"},
        {"match": {"no": {"present": True}}, "symbol_path": "no", "scope": "frame"},
    ],
    "silence_limit_s": 300,
    "unsubscribe_template": '{"op":"stop","args":[{SYMBOLS}]}',
}


@settings(max_examples=60)
@given(
    st.lists(actions, max_size=25),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([0, 100, 2_000]),
    st.sampled_from([0, 5.5]),
    st.booleans(),
)
def test_next_deadline_is_never_in_the_past_after_tick_due(
    history: list[tuple[str, Any]], per_frame: int, gap_ms: int, ping_s: float, whole: bool
) -> None:
    quirks = {**REFUSING, "frame_gap_ms": gap_ms, "connect": {"delay_s": 1}}
    talk = Talk(feed_spec(symbols_per_frame=per_frame, ping_interval_s=ping_s, quirks=quirks), *"abc")
    for name, value in history:
        match name:
            case "wait":
                talk.wait(value)  # asserts that each deadline lies ahead
            case "hear":
                talk.hear(
                    {"e": "trade", "s": "abc"[value % 3], "p": "1", "T": 1790000000123}
                    if value % 2
                    else {"ok": 1}
                )
            case "refuse":
                talk.hear({"no": value, "whole": 1} if whole else {"no": value})
            case _:
                getattr(talk.protocol, name)([value], talk.wall, talk.now)
        assert len(talk.protocol._queue) <= 40
    talk.wait(400)


@settings(max_examples=60)
@given(st.sampled_from(ROWS), st.lists(st.tuples(st.floats(0, 30), st.integers(0)), max_size=12))
def test_shipped_rows_never_spin(name: str, history: list[tuple[float, int]]) -> None:
    frames = incoming().get(name, ["{}"])
    talk = Talk(name, "btcusd", "BTC-USD", "X")
    for pause, number in history:
        talk.wait(pause)
        talk.hear(frames[number % len(frames)])
        talk.listen()
    talk.wait(200)


# Frames that would do harm


def test_gzip_frames_are_inflated() -> None:
    talk = Talk("htx", "btcusdt")
    assert [tick.price for tick in talk.hear(gzip.compress(TRADES["htx"][0].encode()))] == [
        "52648.70",
        "52648.62",
    ]


@pytest.mark.parametrize(
    "frame",
    [
        gzip.compress(b" " * (MAX_FRAME_BYTES + 1)),
        gzip.compress(b" " * 100 * MAX_FRAME_BYTES),
        gzip.compress(TRADES["htx"][0].encode())[:-1],  # the checksum is not whole
        gzip.compress(TRADES["htx"][0].encode())[:-8] + b"\0" * 8,
        gzip.compress(b"\xff"),
        TRADES["htx"][0].encode(),
        b"",
    ],
    ids=["one too many", "bomb", "cut", "checksum", "UTF-8", "plain", "empty"],
)
def test_bad_gzip_is_counted(frame: bytes) -> None:
    talk = Talk("htx", "btcusdt")
    assert talk.hear(frame) == []
    assert talk.kinds() == {"bad_json": 1}


def test_binary_frames_are_utf8() -> None:
    talk = Talk("upbit", "USDT-BTC")
    frame = TRADES["upbit"][0].encode()
    assert [tick.price for tick in talk.hear(frame)] == ["116539000"]
    assert talk.hear(frame.replace(b"REALTIME", b"\xff")) == []
    assert talk.kinds() == {"trade": 1, "bad_json": 1}


@pytest.mark.parametrize("name", ROWS)
def test_no_depth_of_nesting_raises(name: str) -> None:
    talk = Talk(name, "A")
    heads = [
        '{"success":false,"x":',
        '{"channel":"status","data":[{"system":"maintenance"}],"x":',
        '{"ping":',
    ]
    heads += [
        '{"method":"public/heartbeat","id":',
        '{"error":{"code":1},"status":400,"x":',
        '{"event":"error","x":',
    ]
    heads += [
        '{"type":"error","x":',
        '{"method":"subscribe","success":true,"result":{"symbol":[0]},"x":',
        '{"event":"subscribe","arg":{"instId":',
    ]
    for head in heads:
        for depth in (10, *range(850, 1000, 3), 5000):
            talk.hear(head + "[" * depth + "]" * depth + "}" * (head.count("{") - head.count("}")))
    talk.listen()


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("exchange", "frame"),
    [
        ("bybit", {"success": False, "ret_msg": "publicTrade" * 90_000}),
        ("coinbase", {"type": "error", "message": "A" * 1_000_000}),
        ("gemini", {"id": 1, "status": 400, "error": {"code": -1013, "msg": "a" * 1_000_000}}),
        ("htx", {"status": "error", "err-msg": "a" * 1_000_000}),
    ],
)
def test_long_refusal_takes_no_time(exchange: str, frame: dict[str, Any]) -> None:
    talk = Talk(exchange, "A")
    talk.hear(frame)
    assert len(talk.protocol.take_faults()[0].detail) <= 200


def test_pattern_whose_group_took_no_part_names_nothing() -> None:
    refusal = {"match": {"no": {"present": True}}, "message_path": "no", "symbol_pattern": "x|(a)"}
    talk = Talk(feed_spec(quirks={"refusals": [refusal]}), "a")
    talk.hear({"no": "x"})
    assert talk.protocol.take_faults()[0].symbol == ""


def test_faults_are_handed_out_in_small_numbers() -> None:
    talk = Talk(feed_spec(), "A")
    for _ in range(2 * MAX_FAULTS):
        talk.hear("{")
    assert len(talk.protocol.take_faults()) == MAX_FAULTS
    assert talk.protocol.take_faults() == []


def test_channels_are_bounded() -> None:
    talk = Talk("bitfinex", "tBTCUSD")
    for number in range(10_050):
        talk.hear(f'{{"event":"subscribed","chanId":{number},"symbol":"tBTCUSD"}}')
    assert len(talk.protocol._channels) == 10_000
    talk.hear('{"event":"subscribed","chanId":[],"symbol":5}')
