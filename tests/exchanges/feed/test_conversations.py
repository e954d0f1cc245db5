"""Conversations with each exchange, from recorded frames: what is asked for, and what answers mean."""

import gzip
import itertools
import json
from typing import Any
from uuid import UUID

import pytest

from exchanges.feed.protocol import PING, RECONNECT_AFTER_NOTICE_S
from tests.exchanges.feed.replay import FIXTURES, OWN, SHARED, Recorded, recorded
from tests.exchanges.feed.samples import TRADES
from tests.exchanges.feed.talk import SECOND, WALL, Talk
from tests.exchanges.rows import feed_spec

ASSETS = [line.split(",") for line in (FIXTURES / "assets.csv").read_text().splitlines()[1:]]
TWENTY_FIVE = (
    "BTC ETH SOL XRP DOGE LINK LTC AVAX DOT BCH UNI AAVE SHIB PEPE BNB"
    " ATOM FIL ARB OP POL INJ WIF BONK HYPE CRV"
)
SIX = ("coinbase", "gemini", "kraken", "gateio", "bybit", "okx")


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
        ("binance", "btcusdt", {"result": None, "id": 1}),
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
            "coinbase",
            ["BTC-USD", "NO-USD"],
            "NO-USD",
            {"type": "error", "message": "NO-USD is not a valid product"},
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
    again = json.dumps(talk.listen() + talk.wait(1))
    assert bad not in again
    assert all(symbol in again for symbol in symbols if symbol != bad)
    assert talk.states == {symbol: "refused" if symbol == bad else "asked" for symbol in symbols}
    assert [(fault.reason, fault.symbol) for fault in talk.protocol.take_faults().samples] == [
        ("refused", bad)
    ]


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
    assert talk.reasons() == []


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


def test_unknown_answer_is_counted_and_changes_nothing() -> None:
    talk = Talk("upbit", "USDT-BTC")
    talk.hear({"result": None, "id": 1})
    assert (talk.states, talk.kinds()) == ({"USDT-BTC": "asked"}, {"other": 1})


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
    (fault,) = talk.protocol.take_faults().samples
    assert (fault.reason, fault.detail) == ("bad_json", "pong")


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
    assert talk.reasons() == []


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
