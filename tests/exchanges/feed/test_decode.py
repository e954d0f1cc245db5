"""From a frame to its trades: digits, rules, and the decoder and the walk saying the same."""

import json
import random
import re
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchanges.feed.decode import MAX_SAMPLES, RestRule, price_text
from exchanges.feed.decoders import MAX_TRADES
from exchanges.feed.paths import load
from exchanges.feed.protocol import FeedProtocol
from exchanges.feed.spec import FeedSpec
from pricing.tick import Tick
from tests.exchanges.feed.replay import FIXTURES, protocol_for, shipped_row, walking_protocol
from tests.exchanges.feed.samples import TRADES, incoming, spoilt
from tests.exchanges.rows import feed_spec

ROWS = sorted(file.stem for folder in ("feeds", "more") for file in (FIXTURES / folder).glob("*.json"))
MS = 1_790_000_000_123
PRICE = re.compile(r"(?:0|[1-9][0-9]{0,15})(?:\.[0-9]+)?", re.ASCII)


def both(spec: FeedSpec, frame: str | bytes) -> list[Tick]:
    """Return the ticks of a frame, read both ways."""
    fast, slow = protocol_for(spec), walking_protocol(spec)
    ticks = fast.receive(frame, 0, 0)
    assert fields(ticks) == fields(slow.receive(frame, 0, 0))
    assert fast.faults.counts == slow.faults.counts
    return ticks


def fields(ticks: list[Tick]) -> list[tuple[str, str, int | None, str]]:
    return [(tick.symbol, tick.price, tick.traded_ns, str(tick.trade_id)) for tick in ticks]


def plain(price: str, **changes: Any) -> str:  # Any: JSON
    """Return a frame of the plain exchange with the price as it is to be written."""
    frame = {"e": "trade", "s": "BTC-USD", "T": MS, "p": None, **changes}
    return json.dumps({key: value for key, value in frame.items() if value is not ...}).replace(
        "null", price, 1
    )


# Digits


@pytest.mark.parametrize(
    ("literal", "digits"),
    [
        ("105944.20", "105944.20"),
        ("120649.97000", "120649.97000"),
        ("1", "1"),
        ("0.00001234", "0.00001234"),
        ("9.2E-7", "0.00000092"),
        ("1.16539E8", "116539000"),
        ("1.50e3", "1500"),
        ("1e0", "1"),
        ("1E+2", "100"),
        ("0.000000000000000000000001", "0.000000000000000000000001"),
        ("1e15", "1000000000000000"),
        ("999999999999999.999", "999999999999999.999"),
    ],
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_price_keeps_its_digits(literal: str, digits: str, quote: str) -> None:
    assert price_text(literal) == digits
    assert [tick.price for tick in both(feed_spec(), plain(f"{quote}{literal}{quote}"))] == [digits]


@pytest.mark.parametrize(
    "literal",
    [
        "",
        "0",
        "0.0",
        "0e5",
        "-1",
        "-0.5",
        "+1",
        "NaN",
        "nan",
        "Infinity",
        "-Infinity",
        "inf",
        "1e16",
        "1e-25",
        "1e999",
        "1e99999",
        "1" * 50,
        "1." + "1" * 50,
        "1" * 16,
        "1,5",
        "1,000.00",
        "１２",
        "1_000",
        "007",
        "00.5",
        ".5",
        "5.",
        " 1",
        "1 ",
        "1e",
        "0x1F",
        "1/2",
        "$1",
        "1e1.5",
        "٣",
        "--1",
        "1\n",
        "true",
        "1e-1000",
    ],
)
def test_price_is_refused(literal: str) -> None:
    assert price_text(literal) is None
    assert both(feed_spec(), plain(json.dumps(literal))) == []


@pytest.mark.parametrize(
    "price", ["null", "true", "false", "[]", "{}", '["1"]', '{"p":"1"}', "-1", "0", '"\\u0031\\n"']
)
def test_price_of_another_type_is_refused(price: str) -> None:
    spec = feed_spec()
    protocol = protocol_for(spec)
    assert both(spec, plain(price)) == protocol.receive(plain(price), 0, 0) == []
    assert protocol.take_faults().counts == {"bad_price": 1}


def test_escaped_digits_are_digits() -> None:
    assert [tick.price for tick in both(feed_spec(), plain('"\\u0031.5"'))] == ["1.5"]


@given(st.integers(0, 10**20), st.integers(0, 30), st.sampled_from(["", "e0", "E-3", "e+2"]))
def test_price_is_the_same_number_or_refused(digits: int, places: int, exponent: str) -> None:
    literal = f"{Decimal(digits).scaleb(-places):f}{exponent}"
    written = price_text(literal)
    if written is None:
        assert (
            not Decimal("1e-24") <= Decimal(literal) <= Decimal("1e15") or len(f"{Decimal(literal):f}") > 40
        )
    else:
        assert Decimal(written) == Decimal(literal)
        assert PRICE.fullmatch(written)


@given(st.text())
def test_any_text_as_a_price(text: str) -> None:
    written = price_text(text)
    assert written is None or PRICE.fullmatch(written)


# Trades that cannot be read


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"s": ...}, "no_symbol"),
        ({"s": ""}, "no_symbol"),
        ({"s": []}, "no_symbol"),
        ({"T": ...}, "bad_time"),
        ({"T": "soon"}, "bad_time"),
        ({"T": [MS]}, "bad_time"),
        ({"T": True}, "bad_time"),
        ({"T": MS // 1000}, "implausible_time"),
        ({"T": MS * 10**6}, "implausible_time"),
        ({"T": 10**30}, "implausible_time"),
    ],
)
def test_fault_says_what_is_wrong(changes: dict[str, Any], reason: str) -> None:
    spec = feed_spec()
    assert both(spec, plain('"1.5"', **changes)) == []
    protocol = protocol_for(spec)
    protocol.receive(plain('"1.5"', **changes), 0, 0)
    assert protocol.take_faults().counts == {reason: 1}


def test_bad_trade_does_not_take_the_good_ones_along() -> None:
    row = shipped_row("okx")
    frame = (
        '{"arg":{"channel":"trades"},"data":['
        '{"instId":"A","px":"0","ts":"1790000000123","tradeId":"1"},'
        '{"instId":"B","px":"2","ts":"1790000000123","tradeId":"2"},'
        '{"px":"3","ts":"1790000000123"}]}'
    )
    assert fields(both(row, frame)) == [("B", "2", MS * 10**6, "2")]


@pytest.mark.parametrize(
    ("trade_id", "text"), [("0", "0"), ('"0"', "0"), ("1" * 25, "1" * 25), ('"u-1"', "u-1"), ("1.5", "1.5")]
)
def test_trade_id_of_any_kind(trade_id: str, text: str) -> None:
    spec = feed_spec(quirks={"trade_id_path": "i"})
    frame = plain('"1"', i=7).replace('"i": 7', f'"i": {trade_id}')
    assert fields(both(spec, frame))[0][3] == text


# Rules


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bitstamp", [("btcusd", "38145.12", 1643640186364517000, "217321044")]),
        ("cryptocom", [("BTC_USDT", "83000.10", 1790000000124000000, "4611686018427387905")]),
        ("htx", [("btcusdt", "52648.70", 1630994963173000000, "102523573487")]),
        ("kucoin", [("BTC-USDT", "7245.30", 1545913818099033203, "5c24c5da")]),
        ("upbit", [("USDT-BTC", "116539000", 1730336862047000000, "17303368620470000")]),
    ],
)
def test_further_exchanges(name: str, expected: list[tuple[str, str, int, str]]) -> None:
    assert fields(both(shipped_row(name), TRADES[name][0]))[:1] == expected


def test_bitfinex_trades_have_their_symbol_by_channel_number() -> None:
    protocol = protocol_for(shipped_row("bitfinex"))
    snapshot, update = TRADES["bitfinex"]
    assert protocol.receive(update, 0, 0) == []  # no channel known yet
    protocol.receive('{"event":"subscribed","channel":"trades","chanId":17470,"symbol":"tBTCUSD"}', 0, 0)
    assert [(tick.symbol, tick.price) for tick in protocol.receive(snapshot, 0, 0)] == [
        ("tBTCUSD", "7245.30"),
        ("tBTCUSD", "7245.3"),
    ]
    assert [tick.price for tick in protocol.receive(update, 0, 0)] == ["7245.4"]
    assert protocol.receive(update.replace("te", "tu"), 0, 0) == []  # repeats te
    assert protocol.receive('[17470,"hb"]', 0, 0) == []


def test_further_rule_takes_from_the_columns_what_it_does_not_say() -> None:
    spec = feed_spec(
        quirks={
            "trade_rules": [{"trade_match": {"e": "block"}, "price_path": "bp", "timestamp_format": "unix_s"}]
        }
    )
    frame = json.dumps({"e": "block", "s": "BTC-USD", "bp": "2", "T": MS // 1000})
    assert fields(both(spec, frame)) == [("BTC-USD", "2", MS // 1000 * 10**9, "")]


@pytest.mark.parametrize(
    ("columns", "frame", "found"),
    [
        ({"trades_path": "d[*]"}, {"d": [{"s": "A", "p": "1", "T": MS}]}, ["A"]),
        ({"trades_path": "d[*]"}, {"d": {"s": "A", "p": "1", "T": MS}}, ["A"]),
        ({"trades_path": "d"}, {"d": [{"s": "A", "p": "1", "T": MS}]}, ["A"]),
        (
            {"trades_path": "d[*].t[*]"},
            {"d": [{"t": [{"s": "A", "p": "1", "T": MS}]}, {"t": {"s": "B", "p": "1", "T": MS}}]},
            ["A", "B"],
        ),
        (
            {"trades_path": "d", "symbol_path": "$.x.s", "price_path": "a.p"},
            {"x": {"s": "A"}, "d": {"a": {"p": "1"}, "T": MS}},
            ["A"],
        ),
        ({"trades_path": "d[-1]"}, {"d": [{}, {"s": "A", "p": "1", "T": MS}]}, ["A"]),
        ({"trades_path": "d.*"}, {"d": {"k": {"s": "A", "p": "1", "T": MS}}}, ["A"]),
        ({"price_path": "q|p"}, {"s": "A", "p": "1", "T": MS}, ["A"]),
        ({"symbol_path": "r[0]"}, {"r": ["A"], "p": "1", "T": MS}, ["A"]),
        (
            {"trade_match": {"e": {"starts_with": "tr"}, "x": {"present": False}}},
            {"s": "A", "p": "1", "T": MS},
            ["A"],
        ),
        (
            {"trade_match": {"e": {"starts_with": "tr"}, "x": {"present": False}}},
            {"s": "A", "p": "1", "T": MS, "x": None},
            [],
        ),
        ({"trade_match": {"e": "trade", "n": 5}}, {"s": "A", "p": "1", "T": MS, "n": 5}, ["A"]),
        ({"trade_match": {"e": "trade", "$.e": {"starts_with": "x"}}}, {"s": "A", "p": "1", "T": MS}, []),
        ({"trade_match": {"p": {"present": True}}}, {"s": "A", "p": "1", "T": MS}, ["A"]),
        ({"trade_match": {"d": {"present": True}}, "trades_path": "d[*]"}, {"d": None}, []),
        ({"symbol_path": "e", "trade_match": {"e": "trade"}}, {"p": "1", "T": MS}, ["trade"]),
        ({"symbol_path": "s.t", "trade_match": {"s": "x"}}, {"s": "x", "p": "1", "T": MS}, []),
        (
            {"trade_match": {"d.e": {"starts_with": "t"}}, "trades_path": "d"},
            {"d": {"e": "t", "s": "A", "p": "1", "T": MS}},
            ["A"],
        ),
        (
            {"trade_match": {"d.e": "t"}, "trades_path": "d"},
            {"d": [{"e": "t", "s": "A", "p": "1", "T": MS}]},
            [],
        ),
        ({"symbol_path": "$.d.s", "trades_path": "d[*]"}, {"d": {"s": "A", "p": "1", "T": MS}}, ["A"]),
        ({"symbol_path": "$.d.s", "trades_path": "d[*]"}, {"d": [{"s": "A", "p": "1", "T": MS}]}, []),
        ({"symbol_path": "$", "price_path": "$"}, {"s": "x"}, []),
    ],
)
def test_paths_of_every_kind(columns: dict[str, Any], frame: dict[str, Any], found: list[str]) -> None:
    assert [tick.symbol for tick in both(feed_spec(**columns), json.dumps({"e": "trade", **frame}))] == found


# Frames with far too much in them


@pytest.mark.parametrize(
    "frame",
    [
        '{"e":"trade","data":[' + "{}," * 340_000 + "{}]}",
        '{"e":"trade","data":[' + '{"s":"A"},' * 100_000 + "{}]}",
        '{"e":"trade","data":[' + "1," * 500_000 + "1]}",
    ],
    ids=["empty", "half a trade", "numbers"],
)
def test_frame_of_a_megabyte_is_refused_before_it_becomes_objects(frame: str) -> None:
    protocol = protocol_for(feed_spec(trades_path="data[*]"))
    tracemalloc.start()
    try:
        assert protocol.receive(frame, 0, 0) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
    assert (protocol.counts, protocol.faults.counts) == ({"too_many_trades": 1}, {"too_many_trades": 1})
    assert len(protocol.faults.samples) == 1


@pytest.mark.parametrize(("trades", "refused"), [(MAX_TRADES, False), (MAX_TRADES + 1, True)])
@pytest.mark.parametrize("path", ["data[*]", "data[*].in[*]"])
def test_trades_of_a_frame_are_bounded(trades: int, refused: bool, path: str) -> None:
    row: dict[str, Any] = {"s": "A", "p": "1", "T": MS}
    one = row if path == "data[*]" else {"in": [row]}
    frame = json.dumps({"e": "trade", "data": [one] * trades})
    ticks = both(feed_spec(trades_path=path), frame)
    assert len(ticks) == (0 if refused else trades)


@pytest.mark.parametrize("make", [protocol_for, walking_protocol])
def test_every_fault_is_counted_and_few_are_kept(make: Callable[[FeedSpec], FeedProtocol]) -> None:
    protocol = make(feed_spec(trades_path="data[*]"))
    protocol.receive('{"e":"trade","data":[' + "{}," * 999 + '{"s":"A"}]}', 0, 0)
    taken = protocol.take_faults()
    assert taken.counts == {"no_symbol": 999, "bad_price": 1}
    assert len(taken.samples) == MAX_SAMPLES
    assert protocol.take_faults().counts == {}


# The two ways agree on anything


def _agree(name: str, frame: str | bytes, fast: FeedProtocol, slow: FeedProtocol) -> None:
    ticks, walked = fast.receive(frame, 0, 0), slow.receive(frame, 0, 0)
    assert _comparable(ticks) == _comparable(walked), (name, frame)
    assert all(PRICE.fullmatch(tick.price) and tick.symbol for tick in ticks), (name, frame)
    for fault in fast.take_faults().samples:
        "".join(fault).encode()  # can be shown and stored
    slow.take_faults()


def _comparable(ticks: list[Tick]) -> list[tuple[object, ...]]:
    return [(*row[:3], re.sub("^-0$", "0", row[3])) for row in fields(ticks)]


def _compare_both_ways(count: int, seed: int) -> None:
    rng = random.Random(seed)
    frames = incoming()
    specs = {name: shipped_row(name) for name in frames}
    protocols = {name: (protocol_for(spec), walking_protocol(spec)) for name, spec in specs.items()}
    texts = [(name, text) for name, listed in frames.items() for text in listed if len(text) < 2_000]
    for _ in range(count):
        name, text = rng.choice(texts)
        if rng.random() < 0.01:  # a new connection: its decoder has not met this exchange's prices yet
            protocols[name] = protocol_for(shipped_row(name)), walking_protocol(shipped_row(name))
        _agree(name, spoilt(text, rng), *protocols[name])


@pytest.mark.parametrize("seed", range(5))
def test_decoder_and_walk_agree_on_spoilt_frames(seed: int) -> None:
    _compare_both_ways(10_000, seed)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_decoder_and_walk_agree_on_a_million_spoilt_frames() -> None:
    for seed in random.sample(range(2**32), 100):
        print(f"seed {seed}")  # noqa: T201 - shown when it fails
        _compare_both_ways(10_000, seed)


@settings(max_examples=30)  # building a row's decoders is the slow part
@given(st.sampled_from(ROWS), st.integers())
def test_decoder_and_walk_agree(name: str, seed: int) -> None:
    """The same, one frame at a time, so that a failure names the smallest seed."""
    frame = random.Random(seed).choice(incoming().get(name, ["{}"]))
    spec = shipped_row(name)
    _agree(name, spoilt(frame, random.Random(seed)), protocol_for(spec), walking_protocol(spec))


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x00" * 100,
        b"[" * 10_000,
        b'"' * 999,
        b"1" * 9_999,
        b"{}",
        b"null",
        b"0",
        b"[]",
        b'""',
        b"\xff\xfe",
    ],
)
def test_hostile_frame_is_counted(name: str, frame: bytes) -> None:
    protocol = protocol_for(shipped_row(name))
    assert protocol.receive(frame, 0, 0) == []
    assert protocol.counts.total() == 1


# REST


def rest(**changes: Any) -> RestRule:  # Any: JSON
    return RestRule(feed_spec(**changes))


def test_rest_address_names_the_symbol() -> None:
    assert rest().url("BTC-USD") == "https://api.plain.example/last?symbol=BTC-USD"


@pytest.mark.parametrize(
    ("quirks", "body", "read"),
    [
        ({}, '{"last":"1.50"}', Tick("A", "1.50", None)),
        ({}, '{"last":1.50}', Tick("A", "1.50", None)),
        ({}, '{"last":null}', "no price"),
        ({}, '{"last":"-1"}', "no price"),
        ({}, "{}", "no price"),
        ({}, "Not Found", "not JSON"),
        ({}, "[" * 100_000, "not JSON"),
        ({}, b"\xff", "not JSON"),
        ({"time_path": "t"}, '{"last":"1","t":1790000000123}', Tick("A", "1", MS * 10**6)),
        ({"time_path": "t", "time_format": "RFC3339"}, '{"last":"1","t":"1970-01-01T00:00:00Z"}', "bad time"),
        ({"time_path": "t", "time_format": "RFC3339"}, '{"last":"1","t":""}', "bad time"),
        ({"time_path": "t"}, '{"last":"1","t":{}}', "bad time"),
        ({"time_path": "t"}, '{"last":"1"}', "bad time"),
        ({"error_match": [{"code": "51001"}]}, '{"code":"51001","last":"1"}', "error answer"),
        ({"symbol_path": "s"}, '{"last":"1","s":"a"}', Tick("a", "1", None)),
        ({"symbol_path": "s"}, '{"last":"1","s":"B"}', "answered for B"),
        ({"symbol_path": "s"}, '{"last":"1"}', Tick("A", "1", None)),
    ],
)
def test_rest_answer(quirks: dict[str, Any], body: str | bytes, read: Tick | str) -> None:
    answer = body if isinstance(body, bytes) else body.encode()
    assert rest(quirks={"rest": quirks}).read(answer, "A") == read


def test_row_without_rest_has_no_price() -> None:
    assert rest(rest_url="", rest_price_path="").read(b"{}") == "no rest_price_path"


def test_rest_price_under_a_key_that_is_not_the_pair() -> None:
    body = b'{"error":[],"result":{"XXBTZUSD":{"c":["30303.20000","0.00067643"]}}}'
    assert RestRule(shipped_row("kraken")).read(body, "XBTUSD") == Tick("XBTUSD", "30303.20000", None)


@given(st.binary(max_size=60))
def test_no_rest_body_raises(body: bytes) -> None:
    rest(quirks={"rest": {"time_path": "t", "symbol_path": "s"}}).read(body, "A")


def test_samples_are_json() -> None:
    assert all(load(text) for texts in TRADES.values() for text in texts)
