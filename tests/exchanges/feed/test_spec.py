"""Rows: each column × bad values gives a message for that column and for no other."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchanges.feed.paths import Path
from exchanges.feed.protocol import FeedProtocol
from exchanges.feed.quirks import Quirks, quirks_schema
from exchanges.feed.spec import FEED_COLUMNS, Listing, SpecError, parse_feed
from tests.exchanges.feed.replay import FIXTURES
from tests.exchanges.rows import feed_row, feed_spec, listing

DOCUMENTS = {file.stem: json.loads(file.read_text()) for file in sorted(FIXTURES.glob("*/*.json"))}
NOT_TEXT: list[Any] = [None, 5, True, [], {}, "", "  ", "a\0b", "a\ud800", "x" * 20_001]
NOT_A_PATH = [*NOT_TEXT, "a..b", ".a", "a[", "a b", "[x]", "a|", "$a"]
NOT_A_MATCH: list[Any] = [None, 5, [], {}, "", "{", "[]", {"a..b": 1}, {"a": []}, {"a": {"starts_with": ""}}]
NOT_A_MATCH += [{"a": float("nan")}, '{"a":NaN}', {"a": "\0"}, {"a": "\ud800"}, {"a": {1, 2}}, "[" * 100_000]
NOT_SECONDS: list[Any] = [None, "20", True, -1, 0.5, 3601, float("nan"), float("inf"), 10**400, []]
NOT_A_URL: list[Any] = [*NOT_TEXT, "plain.example", "ftp://plain.example/", "//plain.example"]

BAD: dict[str, list[Any]] = {
    "name": [*NOT_TEXT, "A", "Plain", "9lives", "a", "x" * 25, "a b", "päin", "../x"],
    "display_name": [*NOT_TEXT, "x" * 61],
    "enabled": [None, 1, 0, "true", "", [], {}],
    "quote_currency": [None, 5, [], {}, "", "EUR", "usd", "USDC"],
    "ws_url": [
        *NOT_A_URL,
        "https://x/",
        "wss://",
        "wss:///path",
        "wss://u:p@x/",
        "wss://x:0/",
        "wss://x:99999/",
        "wss://[::1",
        "wss://a b/",
        "wss://x/\n\ty",
        "x" * 2001,
        "{ENDPOINT}?token={TOKEN}",
    ],
    "subscribe_template": [
        *NOT_TEXT,
        "{SYMBOLS}}",
        '{"args":[]}',
        '{"args":[{SYMBOLS}]',
        '{"a":[{SYMBOLS}],"b":{NOW}}',
    ],
    "symbol_template": [*NOT_TEXT, '"x"', '"{SYMBOL}', "{SYMBOL}", '"{SYMBOL}{NAME}"', "x" * 501],
    "symbols_per_frame": [None, "10", True, -1, 10_001, 2.0, 2.5, [], float("nan")],
    "trade_match": NOT_A_MATCH,
    "trades_path": NOT_A_PATH,
    "symbol_path": NOT_A_PATH,
    "price_path": NOT_A_PATH,
    "timestamp_path": NOT_A_PATH,
    "timestamp_format": [None, 5, [], {}, "", "rfc3339", "unix", "ms"],
    "ping_interval_s": NOT_SECONDS,
    "ping_payload": [None, 5, [], "a\0", "{", '{"a":{NOW}}', "{TIME}", "x" * 2001],
    "rest_url": [
        *(value for value in NOT_A_URL if value not in ("", "  ")),
        "wss://x/{SYMBOL}",
        "https://x/",
        "https://u@x/{SYMBOL}",
    ],
    "rest_price_path": [*(value for value in NOT_A_PATH if value not in ("", "  ")), "", " "],
    "quirks": [
        5,
        [],
        "x",
        "[]",
        {"nope": 1},
        {"tie": "first"},
        float("nan"),
        {"silence_limit_s": float("nan")},
    ],
}

BAD_QUIRKS: list[tuple[dict[str, Any], str]] = [
    ({"nope": 1}, "quirks"),
    ({"connect": {"nope": 1}}, "connect"),
    ({"confirm_s": "30"}, "confirm_s"),
    ({"confirm_s": 0}, "confirm_s"),
    ({"silence_limit_s": 0.5}, "silence_limit_s"),
    ({"max_jump_percent": 0}, "max_jump_percent"),
    ({"max_jump_percent": 2.5}, "max_jump_percent"),
    ({"symbol_join": "x" * 9}, "symbol_join"),
    ({"encoding": "zip"}, "encoding"),
    ({"trade_id_path": "a["}, "trade_id_path"),
    ({"trade_rules": [{}]}, "trade_rules[0]"),
    ({"trade_rules": [{"trade_match": {}}]}, "trade_rules[0].trade_match"),
    ({"trade_rules": [{"trade_match": {"a": 1}, "price_path": "]"}]}, "trade_rules[0].price_path"),
    (
        {"trade_rules": [{"trade_match": {"a": 1}, "timestamp_format": "x"}]},
        "trade_rules[0].timestamp_format",
    ),
    ({"acks": [{"match": {"a": 1}}, {"match": {}}]}, "acks[1].match"),
    ({"acks": [{"match": {"a": []}}]}, "acks[0].match"),
    ({"acks": [{"match": {"a": 1}, "symbol_path": "]"}]}, "acks[0].symbol_path"),
    ({"refusals": [{"match": {"a": 1}, "symbol_pattern": "(a)"}]}, "refusals[0]"),
    ({"refusals": [{"match": {"a": 1}, "symbol_after": 5}]}, "refusals[0].symbol_after"),
    ({"refusals": [{"match": {"a": 1}, "message_path": "a["}]}, "refusals[0].message_path"),
    ({"refusals": [{"match": {"a": 1}, "scope": "all"}]}, "refusals[0].scope"),
    ({"replies": [{"match": {"a": 1}, "frame": ""}]}, "replies[0].frame"),
    ({"replies": [{"match": {"a": 1}, "frame": '{"pong":{$.ping[}}'}]}, "replies[0].frame"),
    ({"pong": [{"a": {"starts_with": 5}}]}, "pong"),
    ({"reconnect": [{}]}, "reconnect[0]"),
    ({"connect": {"wait_for": {"a": []}}}, "connect.wait_for"),
    ({"connect": {"min_gap_s": -1}}, "connect.min_gap_s"),
    ({"connect": {"token": {"url": "https://x/"}}}, "connect.token"),
    (
        {"connect": {"token": {"url": "https://x/", "endpoint_path": "", "token_path": "a"}}},
        "connect.token.endpoint_path",
    ),
    (
        {"connect": {"token": {"url": "https://x/", "endpoint_path": "]", "token_path": "a"}}},
        "connect.token.endpoint_path",
    ),
    ({"channel": {"match": {"a": 1}, "id_path": "", "symbol_path": "s"}}, "channel.id_path"),
    ({"rest": {"rate_per_s": 0}}, "rest.rate_per_s"),
    ({"rest": {"error_match": [{"a": {}}]}}, "rest.error_match"),
    ({"unsubscribe_template": "[{SYMBOLS}"}, "unsubscribe_template"),
    ({"unsubscribe_template": '{"op":"stop"}'}, "unsubscribe_template"),
    ({"unsubscribe_template": '{"x":"{SYMBOLZ}"}'}, "unsubscribe_template"),
]


def errors(**changes: Any) -> dict[str, list[str]]:  # Any: JSON
    with pytest.raises(SpecError) as caught:
        parse_feed(feed_row(**changes))
    return caught.value.errors


def bad_values() -> Iterator[Any]:  # Any: pytest's parameter sets
    for column, values in BAD.items():
        for number, value in enumerate(values):
            yield pytest.param(column, value, id=f"{column}-{number}")


def test_every_column_has_bad_values() -> None:
    assert tuple(BAD) == FEED_COLUMNS
    assert len(FEED_COLUMNS) == 19


@pytest.mark.parametrize(("column", "value"), list(bad_values()))
def test_bad_value_is_refused_with_a_message_for_its_column_only(column: str, value: object) -> None:
    messages = errors(**{column: value})
    assert list(messages) == [column]
    assert messages[column]
    assert all(0 < len(message) < 1_000 for message in messages[column])


@pytest.mark.parametrize("column", FEED_COLUMNS)
def test_missing_column_is_named(column: str) -> None:
    row = feed_row()
    del row[column]
    with pytest.raises(SpecError) as caught:
        parse_feed(row)
    assert caught.value.errors == {column: ["is missing"]}


def test_unknown_column_is_named() -> None:
    assert errors(nmae="x") == {"nmae": ["there is no such column"]}


def test_all_bad_columns_are_named_at_once() -> None:
    assert set(errors(name="", trades_path="]", quirks=5)) == {"name", "trades_path", "quirks"}


@pytest.mark.parametrize(("quirks", "field"), BAD_QUIRKS)
def test_quirks_messages_name_the_field(quirks: dict[str, Any], field: str) -> None:
    messages = errors(quirks=quirks)
    assert list(messages) == ["quirks"]
    assert messages["quirks"][0].startswith(f"{field}: ")


def test_several_faults_in_quirks_have_a_message_each() -> None:
    assert len(errors(quirks={"tie": 1, "encoding": 2, "nope": 3})["quirks"]) == 3


def test_error_reads_as_a_sentence() -> None:
    with pytest.raises(
        SpecError, match=r"^enabled: must be true or false; quote_currency: must be USD or USDT$"
    ):
        parse_feed(feed_row(enabled=1, quote_currency=""))


def test_row_without_quirks_works() -> None:
    for quirks in ({}, None, "", "{}"):
        spec = feed_spec(quirks=quirks)
        assert spec.quirks == Quirks()
        protocol = FeedProtocol(spec, ["BTC-USD"], uuid=str)
        protocol.opened(0, 0)
        assert protocol.outgoing() == ['{"op":"subscribe","args":["BTC-USD"],"id":1}']
        assert (
            protocol.receive('{"e":"trade","s":"BTC-USD","p":"1.50","T":1790000000123}', 0, 0)[0].price
            == "1.50"
        )


@pytest.mark.parametrize(
    "good",
    [
        {"ws_url": "wss://ws.plain.example:8443/ws/v4/?a=1"},
        {"ws_url": "ws://127.0.0.1:9001/ws/{SYMBOL}"},
        {"ws_url": "wss://x/{SYMBOLS}", "subscribe_template": '{"op":"start"}'},
        {
            "ws_url": "{ENDPOINT}?t={TOKEN}",
            "quirks": {"connect": {"token": {"url": "https://x/", "endpoint_path": "a", "token_path": "b"}}},
        },
        {"rest_url": "", "rest_price_path": ""},
        {"ping_interval_s": 0.0},
        {"ping_interval_s": 1.5, "ping_payload": "ping"},
        {"subscribe_template": [{"op": "subscribe", "symbol": "{SYMBOL}"}, {"op": "heartbeats"}]},
        {"trade_match": '{"e":"trade"}'},
        {"quirks": '{"tie":"place"}'},
        {"quirks": {"max_jump_percent": 20.0}},
        {"display_name": "取引所 😀"},
        {"name": " plain "},
    ],
)
def test_usable_row(good: dict[str, Any]) -> None:
    assert parse_feed(feed_row(**good)).name == "plain"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_shipped_row_parses(name: str) -> None:
    spec = parse_feed(DOCUMENTS[name]["feed"])
    assert spec.name == name
    assert spec == parse_feed(DOCUMENTS[name]["feed"])


def test_six_exchanges_and_eight_more_are_shipped() -> None:
    assert {"coinbase", "gemini", "kraken", "gateio", "bybit", "okx"} <= set(DOCUMENTS)
    assert len(DOCUMENTS) == 14


def test_sources_are_tagged() -> None:
    spec = feed_spec()
    assert (spec.source, spec.rest_source) == ("plain-ws", "plain-rest")


def test_simulated_row_points_at_the_simulator_and_says_so() -> None:
    spec = feed_spec().simulated("http://127.0.0.1:9001")
    assert spec.ws_url == "ws://127.0.0.1:9001/ws/plain"
    assert spec.rest_url == "http://127.0.0.1:9001/rest/plain/last?symbol={SYMBOL}"
    assert (spec.source, spec.rest_source) == ("plain-ws-sim", "plain-rest-sim")
    assert feed_spec(rest_url="", rest_price_path="").simulated("http://x:1").rest_url == ""


def test_listing_is_asked_by_rest_under_its_own_name_there() -> None:
    assert listing("BTC").asked_by_rest == "BTC-USD"
    assert (
        Listing(asset="BTC", exchange="kraken", symbol="BTC/USD", rest_symbol="XBTUSD").asked_by_rest
        == "XBTUSD"
    )


def test_schema_describes_every_field_of_the_quirks() -> None:
    schema = quirks_schema()
    assert set(schema["$defs"]["Quirks"]["properties"]) == set(Quirks.__struct_fields__)
    assert schema["$defs"]["Quirks"]["additionalProperties"] is False


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(FEED_COLUMNS), json_values)
def test_any_value_in_any_column_is_used_or_refused(column: str, value: object) -> None:
    try:
        parse_feed(feed_row(**{column: value}))
    except SpecError as error:
        assert error.errors
        str(error)


@given(st.sampled_from(sorted(Quirks.__struct_fields__)), json_values)
def test_any_value_in_any_quirk_is_used_or_refused(field: str, value: object) -> None:
    try:
        spec = parse_feed(feed_row(quirks={field: value}))
    except SpecError as error:
        assert set(error.errors) == {"quirks"}
    else:
        assert Path(spec.quirks.trade_id_path or "$")
        FeedProtocol(spec, [], uuid=str).receive('{"a":1}', 0, 0)
