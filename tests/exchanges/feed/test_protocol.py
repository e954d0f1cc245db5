"""What the protocol does by the clock, and what no frame makes it do."""

import gzip
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from exchanges.feed.protocol import MAX_FRAME_BYTES, MAX_INSERTED, PING
from tests.exchanges.feed.replay import FIXTURES, shipped_row
from tests.exchanges.feed.samples import TRADES, incoming
from tests.exchanges.feed.talk import SECOND, START, WALL, Talk
from tests.exchanges.rows import feed_spec

ROWS = sorted(file.stem for file in FIXTURES.glob("*/*.json"))


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


def test_trades_of_no_use_are_no_data() -> None:
    talk = Talk(feed_spec(quirks={"silence_limit_s": 30}), "A")
    for _ in range(30):
        talk.wait(1)
        assert talk.hear({"e": "trade", "s": "A", "p": "1", "T": 1790000000123}, useful=False)
    assert talk.protocol.hangup == ("no trade for 30 s", 0)
    assert not talk.protocol.connected_for_data


def test_trade_ends_a_pause() -> None:
    talk = Talk(feed_spec(quirks={"silence_limit_s": 30, "pause": [{"s": 0}]}), "A")
    trade = {"e": "trade", "s": "A", "p": "1", "T": 1790000000123}
    talk.hear({"s": 0})
    talk.hear(trade, useful=False)
    assert talk.protocol.paused
    talk.hear(trade)
    assert not talk.protocol.paused
    talk.wait(31)
    assert talk.protocol.hangup == ("no trade for 30 s", 0)


def test_every_frame_has_an_id_of_its_own() -> None:
    spec = feed_spec(symbols_per_frame=1, subscribe_template='{"ask":"{SYMBOL}","id":{ID}}')
    talk = Talk(spec, *"ABC", opened=False)
    talk.protocol.opened(talk.wall, talk.now)
    assert [frame["id"] for frame in talk.listen()] == [1, 2, 3]


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


def test_symbols_refused_together_are_each_retried_once_and_with_the_gap() -> None:
    refusals = [{"match": {"no": {"present": True}}, "symbol_path": "no"}]
    talk = Talk(feed_spec(quirks={"refusals": refusals, "frame_gap_ms": 250, "silence_limit_s": 600}), *"ABC")
    for symbol in "ABC":
        talk.hear({"no": symbol})
    assert [frame["args"] for frame in talk.wait(61)] == [["A"], ["B"], ["C"]]
    assert talk.wait(60) == []


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
    assert len(talk.wait(400)) <= 40 + 400 / (ping_s or 400), "what waits to be sent does not pile up"


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
        gzip.compress(TRADES["htx"][0].encode().ljust(MAX_FRAME_BYTES + 1)),
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
    assert len(talk.protocol.take_faults().samples[0].detail) <= 200


@pytest.mark.timeout(10)
@pytest.mark.parametrize("side", ["symbol_after", "symbol_before"])
@pytest.mark.parametrize("text", ["a", "((?:a+)+)$", "A" * 2_000])
def test_no_rule_for_the_symbol_takes_long(side: str, text: str) -> None:
    refusal = {"match": {"no": {"present": True}}, "message_path": "no", side: text}
    talk = Talk(feed_spec(quirks={"refusals": [refusal]}), "a")
    for _ in range(100):
        talk.hear({"no": "a" * 1_000 + "!"})


def test_value_too_long_for_a_reply_is_left_out() -> None:
    reply = {"match": {"ping": {"present": True}}, "frame": '{"pong":{$.ping}}'}
    talk = Talk(feed_spec(quirks={"replies": [reply]}), "A")
    talk.listen()
    for value in ("x" * (MAX_INSERTED - 2), "x" * MAX_INSERTED, list(range(10_000))):
        talk.hear({"ping": value})
    assert talk.listen() == [{"pong": "x" * (MAX_INSERTED - 2)}, {"pong": None}, {"pong": None}]


def test_channels_are_bounded() -> None:
    talk = Talk("bitfinex", "tBTCUSD")
    for number in range(10_001):
        talk.hear(f'{{"event":"subscribed","chanId":{number},"symbol":"tBTCUSD"}}')
    talk.hear('{"event":"subscribed","chanId":[],"symbol":5}')

    def heard(number: int) -> int:
        return len(talk.hear(f'[{number},"te",[401597395,1574694478808,0.005,7245.4]]'))

    assert (heard(9_999), heard(10_000)) == (1, 0)
