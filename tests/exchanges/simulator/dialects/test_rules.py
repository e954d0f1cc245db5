"""What each exchange accepts, refuses and closes; by table where they differ in words only."""

import json
from typing import Any

import pytest

from exchanges.simulator.dialects import DIALECTS, Session
from exchanges.simulator.dialects.base import Ack, Close, Limits, Ping, TradeFrame, Window
from exchanges.simulator.tape import Tape
from exchanges.simulator.walk import Walk

NOW_NS = 1_795_000_000_000_000_000
SECOND_NS = 1_000_000_000


def session(name: str, limits: Limits | None = None) -> Session:
    dialect = DIALECTS[name]
    tape = Tape(name, dialect.NOTATION, Walk(1), seed=1, first_id=dialect.FIRST_ID)
    return dialect(tape, 1, limits or dialect.LIMITS, NOW_NS)


def ask(one: Session, *assets: str) -> list[Any]:  # Any: frames and closes
    symbols = [one.NOTATION.symbol(asset) for asset in assets]
    return [out for frame in one.request(symbols, NOW_NS)[:1] for out in one.receive(frame, NOW_NS)]


def acks(outs: list[Any]) -> list[Any]:  # Any: JSON
    return [json.loads(out) for out in outs if isinstance(out, Ack)]


def refusals(outs: list[Any]) -> list[str]:  # Any: frames and closes
    return [str(out) for out in outs if isinstance(out, str) and not isinstance(out, Ack | TradeFrame)]


@pytest.mark.parametrize("name", list(DIALECTS))
def test_subscribed_symbols_are_confirmed_and_no_others_trade(name: str) -> None:
    one = session(name)
    outs = ask(one, "BTC", "ETH")
    assert len(acks(outs)) == (2 if name in ("kraken", "okx") else 1)
    assert refusals(outs) == []
    assert list(one.subscribed) == [one.NOTATION.symbol(asset) for asset in ("BTC", "ETH")]


@pytest.mark.parametrize(
    ("name", "subscribed", "says"),
    [
        ("coinbase", 0, "NOPE-USD is not a valid product"),
        ("gemini", 0, "Invalid stream name: nopeusd@trade"),
        ("kraken", 2, "Currency pair not supported NOPE/USD"),
        ("gateio", 0, "unknown currency pair NOPE_USDT"),
        ("bybit", 0, "Invalid symbol :[publicTrade.NOPEUSDT]"),
        ("okx", 2, "channel:trades,instId:NOPE-USDT doesn't exist"),
        ("binance", 2, ""),
    ],
)
def test_bad_symbol_refuses_what_it_refuses_there(name: str, subscribed: int, says: str) -> None:
    one = session(name)
    refused = refusals(ask(one, "BTC", "NOPE", "ETH"))
    assert len(one.subscribed) == subscribed
    assert [says in text for text in refused] == ([True] if says else [])


@pytest.mark.parametrize("name", ["coinbase", "gateio"])
def test_undocumented_scope_of_a_refusal_can_be_the_symbol(name: str) -> None:
    one = session(name, Limits(refuses_frame=False))
    assert len(refusals(ask(one, "BTC", "NOPE", "ETH"))) == 1
    assert len(one.subscribed) == 2


@pytest.mark.parametrize("name", list(DIALECTS))
def test_symbol_delisted_by_a_fault_is_refused(name: str) -> None:
    one = session(name)
    one.tape.refused.add(one.NOTATION.symbol("BTC"))
    ask(one, "BTC")
    assert not one.subscribed


@pytest.mark.parametrize("name", list(DIALECTS))
@pytest.mark.parametrize(
    "frame",
    ["", "[]", "null", "{", "{}", '"x"', '{"op":1,"method":[],"type":{},"time":"1"}', "\x00", "[" * 5_000],
)
def test_nonsense_is_answered_or_ignored_and_changes_nothing(name: str, frame: str) -> None:
    one = session(name)
    outs = one.receive(frame, NOW_NS)
    assert all(isinstance(out, str) for out in outs)
    assert not acks(outs) and not one.subscribed


@pytest.mark.parametrize("name", list(DIALECTS))
def test_subscription_of_a_wrong_shape_is_no_subscription(name: str) -> None:
    one = session(name)
    frame = json.loads(one.request(["X"], NOW_NS)[0])
    for key, value in frame.items():
        if isinstance(value, list | dict):
            assert one.receive(json.dumps(frame | {key: 7}), NOW_NS)
    assert not one.subscribed


def test_kraken_refuses_its_old_names_and_repeats() -> None:
    one = session("kraken")
    ask(one, "BTC")
    refused = refusals(ask(one, "XBT", "BTC"))
    assert [json.loads(text)["error"] for text in refused] == [
        "Currency pair not supported XBT/USD",
        "Already subscribed",
    ]


@pytest.mark.parametrize("snapshot", [True, False])
def test_kraken_sends_the_last_fifty_only_if_asked(snapshot: bool) -> None:
    one = session("kraken")
    params = {"channel": "trade", "symbol": ["BTC/USD"], "snapshot": snapshot}
    outs = one.receive(json.dumps({"method": "subscribe", "params": params}), NOW_NS)
    frames = [json.loads(out) for out in outs if isinstance(out, TradeFrame)]
    assert [len(frame["data"]) for frame in frames] == ([50] if snapshot else [])
    assert acks(outs)[0]["result"]["snapshot"] is snapshot


def test_kraken_says_its_status_first() -> None:
    (frame,) = session("kraken").opened(NOW_NS)
    assert json.loads(str(frame))["data"][0]["system"] == "online"


def test_kraken_beats_only_when_subscribed_and_idle() -> None:
    one = session("kraken")
    later = NOW_NS + 2 * SECOND_NS
    assert one.due(later) == []
    ask(one, "BTC")
    one.sent_ns = NOW_NS
    assert one.due(later) == ['{"channel":"heartbeat"}']
    one.sent_ns = later
    assert one.due(later) == []


def test_coinbase_beats_every_second_when_asked_to() -> None:
    one = session("coinbase")
    for frame in one.request(["BTC-USD"], NOW_NS):
        one.receive(frame, NOW_NS)
    assert one.due(NOW_NS + SECOND_NS // 2) == []
    frames = [json.loads(str(out)) for n in (1, 2, 3) for out in one.due(NOW_NS + n * SECOND_NS)]
    counters = [frame["events"][0]["heartbeat_counter"] for frame in frames]
    assert counters == [counters[0], counters[0] + 1, counters[0] + 2]
    assert [frame["sequence_num"] for frame in frames] == [3, 4, 5]


def test_bybit_takes_ten_topics_a_frame() -> None:
    one = session("bybit")
    eleven = list(one.tape.symbols)[:11]
    frame = {"op": "subscribe", "args": [f"publicTrade.{symbol}" for symbol in eleven], "req_id": "7"}
    (reply,) = one.receive(json.dumps(frame), NOW_NS)
    assert json.loads(str(reply))["ret_msg"] == "args size >10"
    assert json.loads(str(reply))["req_id"] == "7"
    assert not one.subscribed
    assert [len(json.loads(f)["args"]) for f in one.request(list(one.tape.symbols)[:25], NOW_NS)] == [
        10,
        10,
        5,
    ]


def test_bybit_refuses_a_frame_that_repeats_a_topic() -> None:
    one = session("bybit")
    ask(one, "BTC")
    (refused,) = refusals(ask(one, "ETH", "BTC"))
    assert json.loads(refused)["ret_msg"] == "error:already subscribed,topic:publicTrade.BTCUSDT"
    assert list(one.subscribed) == ["BTCUSDT"]


def test_gemini_takes_capitals_and_answers_in_small_letters() -> None:
    one = session("gemini")
    outs = one.receive('{"id":9,"method":"SUBSCRIBE","params":["BTCUSD@trade"]}', NOW_NS)
    assert outs == ['{"id":9,"status":200}']
    (frame,) = one.trades([one.tape.last("btcusd", NOW_NS)], NOW_NS)
    assert json.loads(frame)["s"] == "btcusd"


def test_binance_wants_small_letters_and_answers_in_capitals() -> None:
    one = session("binance")
    outs = one.receive('{"method":"SUBSCRIBE","params":["BTCUSDT@trade","ethusdt@trade"],"id":1}', NOW_NS)
    assert outs == ['{"result":null,"id":1}']
    assert list(one.subscribed) == ["ETHUSDT"]


def test_gateio_wants_its_time_as_an_integer() -> None:
    frame = {"time": "1606292218", "channel": "spot.trades", "event": "subscribe", "payload": ["BTC_USDT"]}
    (refused,) = session("gateio").receive(json.dumps(frame), NOW_NS)
    assert json.loads(str(refused))["error"]["code"] == 1


def test_okx_echoes_an_id_and_pushes_the_last_trade_after_the_ack() -> None:
    one = session("okx")
    args = [{"channel": "trades", "instId": "BTC-USDT"}]
    ack, trade = one.receive(json.dumps({"id": "5", "op": "subscribe", "args": args}), NOW_NS)
    assert json.loads(str(ack))["id"] == "5"
    assert isinstance(trade, TradeFrame) and trade.shown[0].symbol == "BTC-USDT"


@pytest.mark.parametrize(
    ("name", "pong"),
    [
        ("gemini", {"id": "ping", "status": 200}),
        ("kraken", {"method": "pong", "req_id": 101}),
        ("gateio", {"channel": "spot.pong", "result": None}),
        ("bybit", {"op": "ping", "ret_msg": "pong", "success": True}),
        ("okx", "pong"),
    ],
)
def test_ping_is_answered_in_kind(name: str, pong: Any) -> None:  # Any: JSON
    one = session(name)
    (out,) = one.receive(one.client_ping(NOW_NS), NOW_NS)
    assert not isinstance(out, Ack)
    assert out == pong if isinstance(pong, str) else pong.items() <= json.loads(str(out)).items()


@pytest.mark.parametrize(
    ("name", "seconds", "code"),
    [("coinbase", 5, 1008), ("kraken", 60, 1000), ("okx", 30, 4004), ("bybit", 600, 1000)],
)
def test_silent_client_is_closed_in_time_and_not_before(name: str, seconds: int, code: int) -> None:
    one = session(name)
    closes = [out for out in one.due(NOW_NS + seconds * SECOND_NS) if isinstance(out, Close)]
    assert closes == []
    (close,) = one.due(NOW_NS + seconds * SECOND_NS + 1)
    assert isinstance(close, Close) and close.code == code


@pytest.mark.parametrize("name", list(DIALECTS))
def test_client_that_subscribes_and_pings_is_never_closed(name: str) -> None:
    one = session(name)
    ask(one, "BTC")
    for n in range(0, 1_000, 10):
        now_ns = NOW_NS + n * SECOND_NS
        if ping := one.client_ping(now_ns):
            one.receive(ping, now_ns)
        assert not [out for out in one.due(now_ns) if isinstance(out, Close)]


@pytest.mark.parametrize("name", ["gemini", "binance"])
def test_server_pings_every_twenty_seconds(name: str) -> None:
    one = session(name)
    pings = [n for n in range(1, 61) if Ping() in one.due(NOW_NS + n * SECOND_NS)]
    assert pings == [20, 40, 60]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("coinbase", "rate limit exceeded"),
        ("gemini", "-1003"),
        ("kraken", "Exceeded msg rate"),
        ("okx", "60014"),
        ("binance", "too many messages"),
    ],
)
def test_too_many_messages_are_answered_in_kind(name: str, says: str) -> None:
    one = session(name, Limits(messages=2, messages_window_s=1))
    answers = [str(one.receive('{"id":1}', NOW_NS)) for _ in range(3)]
    assert [says in answer for answer in answers] == [False, False, True]
    assert says not in str(one.receive('{"id":1}', NOW_NS + SECOND_NS)), "the window has passed"


def test_okx_closes_on_a_frame_beyond_64_kilobytes() -> None:
    (close,) = session("okx").receive(" " * 65_537, NOW_NS)
    assert isinstance(close, Close) and close.code == 1009


@pytest.mark.parametrize("name", list(DIALECTS))
def test_unsubscribed_symbol_is_forgotten(name: str) -> None:
    one = session(name)
    ask(one, "BTC", "ETH")
    frame = one.request([one.NOTATION.symbol("BTC")], NOW_NS)[0]
    word = "SUBSCRIBE" if name == "binance" else "subscribe"
    one.receive(frame.replace(word, "UNSUBSCRIBE" if name == "binance" else "unsubscribe"), NOW_NS)
    assert list(one.subscribed) == [one.NOTATION.symbol("ETH")]


@pytest.mark.parametrize(
    ("name", "path", "status"),
    [
        ("coinbase", "/api/v3/brokerage/market/products/NOPE-USD/ticker", 404),
        ("gemini", "/v1/pubticker/nopeusd", 400),
        ("kraken", "/0/public/Ticker?pair=NOPE/USD", 200),
        ("gateio", "/api/v4/spot/tickers?currency_pair=NOPE_USDT", 400),
        ("bybit", "/v5/market/tickers?category=spot&symbol=NOPEUSDT", 200),
        ("okx", "/api/v5/market/ticker?instId=NOPE-USDT", 200),
        ("binance", "/api/v3/ticker/price?symbol=NOPEUSDT", 400),
    ],
)
def test_rest_answers_an_unknown_symbol_as_the_exchange_does(name: str, path: str, status: int) -> None:
    one = session(name)
    route, _, query = path.partition("?")
    pairs = dict(pair.split("=") for pair in query.split("&") if pair)
    answer = one.rest(one.tape, route, pairs, NOW_NS)
    assert answer == one.rest_error()._replace(status=status)
    assert one.rest(one.tape, "/nowhere", {}, NOW_NS).status == 404


@pytest.mark.parametrize(
    ("pair", "key"),
    [("XBTUSD", "XXBTZUSD"), ("BTC/USD", "BTC/USD"), ("SOLUSD", "SOLUSD"), ("XDGUSD", "XDGUSD")],
)
def test_kraken_rest_answers_under_its_own_name(pair: str, key: str) -> None:
    one = session("kraken")
    answer = json.loads(one.rest(one.tape, "/0/public/Ticker", {"pair": pair}, NOW_NS).body)
    assert list(answer["result"]) == [key]


def test_window_forgets_what_is_older_than_its_span() -> None:
    window = Window(2, 10)
    times = [0, 1, 2, 10, 10.5, 11, 30]
    admitted = [window.admits(int(t * SECOND_NS)) for t in times]
    assert admitted == [True, True, False, True, False, True, True]
    assert all(Window(0, 1).admits(0) for _ in range(100)), "0 is no limit"
