"""The words of the UDP interface: the bytes that the protocol's description has."""

import json
from typing import Any

import msgspec
import pytest

from pricing._board import Price as BoardPrice
from pricing.parameters import MS
from pricing.problems import PROBLEMS, Problem
from pricing.protocol import PriceAnswer
from pricing.tick import StoredPrice
from udp_engine import exceptions
from udp_engine.exceptions import BadReply, RequestTooLarge
from udp_engine.wire import (
    CODES,
    MAX_ASSETS,
    MAX_DATAGRAM_BYTES,
    Failure,
    Price,
    Prices,
    Refusal,
    Summary,
    build_request,
    code_of,
    parse_reply,
    render_price,
    render_prices,
    render_problem,
    render_refusal,
    render_summary,
)

TRADED_NS = 1_763_816_400_123_456_789
BTC = BoardPrice("BTC", "coinbase", "coinbase-ws", "USD", "67123.45", TRADED_NS, TRADED_NS + 40 * MS, 10**12)
PRICE = (
    b'"asset":"BTC","price":"67123.45","quote":"USD","source":"coinbase-ws","ts":1763816400123,"age_ms":42,'
    b'"tier":1}'
)


def answer(price: BoardPrice | StoredPrice = BTC, tier: int = 1) -> PriceAnswer:
    return PriceAnswer(price, 42 * MS + 999_999, tier, cached=True)


def problem(code: str, age_ms: int | None = None) -> Problem:
    return Problem(code, "", {} if age_ms is None else {"age_ms": age_ms})


def test_price_is_written_as_the_protocol_has_it() -> None:
    assert render_price(answer(), "7") == b'{"id":"7",' + PRICE
    assert render_price(answer(), None) == b"{" + PRICE


@pytest.mark.parametrize(
    ("id", "written"), [('a"b', r'"a\"b"'), ("a\\b", r'"a\\b"'), ("a/b<&'~ ", '"a/b<&\'~ "')]
)
def test_id_is_escaped_where_json_demands_it(id: str, written: str) -> None:
    assert render_refusal("stale", id) == f'{{"id":{written},"error":"stale"}}'.encode()


def test_price_without_a_time_of_trade_says_that_it_is_the_answers() -> None:
    price = StoredPrice("BTC", "okx", "okx-rest", "USDT", "67000", None, TRADED_NS, polled=True)
    assert render_price(answer(price, 3), None) == (
        b'{"asset":"BTC","price":"67000","quote":"USDT","source":"okx-rest","ts":1763816400123,"age_ms":42,'
        b'"tier":3,"time_is":"answer"}'
    )


def test_refusal_tells_its_figures_beside_the_code() -> None:
    assert render_refusal("stale", "7", age_ms=5120) == b'{"id":"7","error":"stale","age_ms":5120}'
    assert render_refusal("stale", None, age_ms=0) == b'{"error":"stale","age_ms":0}'
    assert (
        render_refusal("rate_limited", "7", retry_ms=120)
        == b'{"id":"7","error":"rate_limited","retry_ms":120}'
    )


def test_problem_becomes_a_refusal_with_its_age() -> None:
    assert render_problem(problem("too_few_sources"), "7") == b'{"id":"7","error":"stale"}'
    assert render_problem(problem("unavailable", 20_000), None) == b'{"error":"unavailable","age_ms":20000}'


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_problem_of_a_price_has_a_word_here(code: str) -> None:
    words = {
        "unknown_asset": "unknown_asset",
        "unknown_exchange": "unknown_asset",
        "stale": "stale",
        "too_few_sources": "stale",
    }
    assert code_of(problem(code)) == words.get(code, "unavailable")
    assert code_of(problem(code)) in CODES


def test_every_code_has_its_exception() -> None:
    assert list(exceptions.REFUSALS) == list(CODES)


def test_several_prices_are_each_a_price_or_an_error() -> None:
    found: list[tuple[str, PriceAnswer | Problem]] = [
        ("BTC", answer()),
        ("X", problem("unknown_asset")),
        ("Y", problem("stale", 5)),
    ]
    assert render_prices(found, "7") == (
        b'{"id":"7","prices":[{' + PRICE + b',{"asset":"X","error":"unknown_asset"},'
        b'{"asset":"Y","error":"stale","age_ms":5}]}'
    )


def test_what_has_no_room_is_named() -> None:
    names = [f"ASSET{number:02d}" for number in range(30)]
    reply = render_prices([(name, answer()) for name in names], "7")
    told = json.loads(reply)
    assert len(reply) <= MAX_DATAGRAM_BYTES < len(reply) + 112
    assert len(told["prices"]) + len(told["omitted"]) == 30
    assert told["omitted"] == names[len(told["prices"]) :]


def test_reply_fits_to_the_longest_question_that_does() -> None:
    """Even where nothing but names has room, a datagram holds them: they came in one with a key."""
    id, key = '"' * 64, "x" * 46
    names = ["A" * 31 + chr(65 + number) for number in range(26)]
    while len(build_request(names, key, id=id)) < MAX_DATAGRAM_BYTES - 35:
        names.append("B" * 31 + chr(65 + len(names) - 26))
    long = BoardPrice("A" * 32, "e", "s" * 40, "q" * 32, "1" * 40, TRADED_NS, TRADED_NS, 10**12)
    reply = render_prices([(name, answer(long)) for name in names], id)
    assert len(reply) <= MAX_DATAGRAM_BYTES
    assert json.loads(reply)["omitted"] == names


def test_request_has_the_fields_that_were_given() -> None:
    assert json.loads(build_request("BTC", "tb", id="7")) == {"asset": "BTC", "api_key": "tb", "id": "7"}
    asked = build_request(["BTC", "ETH"], "tb", id="7", exchange="okx", max_age_ms=0)
    assert json.loads(asked) == {
        "assets": ["BTC", "ETH"],
        "api_key": "tb",
        "id": "7",
        "exchange": "okx",
        "max_age_ms": 0,
    }


def test_request_that_fits_into_no_datagram_is_refused_here() -> None:
    with pytest.raises(RequestTooLarge, match="has room for 1200"):
        build_request(["A" * 32 + "B"] * (MAX_ASSETS + 10), "tb", id="7")


def test_reply_is_read_back_as_it_was_written() -> None:
    price = Price("BTC", "67123.45", "USD", "coinbase-ws", TRADED_NS // MS, 42, 1)
    assert parse_reply(render_price(answer(), "7") + b"    ") == ("7", price)
    assert str(price.decimal) == "67123.45"
    several = render_prices([("BTC", answer()), ("X", problem("stale", 7))], None)
    assert parse_reply(several) == (None, Prices([price, Failure("X", "stale", 7)], []))
    assert parse_reply(render_refusal("rate_limited", "8", retry_ms=3)) == (
        "8",
        Refusal("rate_limited", None, 3),
    )


def test_member_that_is_not_known_is_left_alone() -> None:
    assert parse_reply(b'{"id":"7","error":"new_code","more":[1]}') == ("7", Refusal("new_code"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"[]",
        b"\xff",
        b'{"id":"7"}',
        b'{"asset":"BTC","price":1.5,"quote":"USD","source":"s","ts":1,"age_ms":1,"tier":1}',
        b'{"asset":"BTC","price":"1","quote":"USD","source":"s","age_ms":1,"tier":1}',
        b'{"prices":[{"error":"stale"}]}',
        b'{"id":7,"error":"stale"}',
    ],
)
def test_what_is_no_reply_is_told_apart(data: bytes) -> None:
    with pytest.raises(BadReply):
        parse_reply(data)


def make_summary(**changes: Any) -> Summary:  # Any: members of a summary
    made = Summary(
        "2026-11", 12, 123, 50_000, 130, {"200": 120, "404": 10}, {"23": 130}, {"BTC": 70}, 0, 2, 10
    )
    return msgspec.structs.replace(made, **changes)


def test_summary_tells_its_figures_and_adds_up_what_it_leaves_out() -> None:
    assert render_summary(make_summary(), "7") == (
        b'{"id":"7","month":"2026-11","key":12,"used":123,"limit":50000,"answers":130,'
        b'"by_status":{"200":120,"404":10},"by_day":{"23":130},"by_asset":{"BTC":70},"other_assets":60,'
        b'"reports_used":2,"reports_limit":10}'
    )
    assert b'"limit":null' in render_summary(make_summary(limit=None), None)


def test_summary_has_the_largest_assets_as_many_as_have_room() -> None:
    assets = {f"ANASSET{number:02d}": 1_000 - number for number in range(64)}
    reply = render_summary(make_summary(by_asset=assets, answers=100_000), "7")
    told = json.loads(reply)
    assert len(reply) <= MAX_DATAGRAM_BYTES < len(reply) + 22
    assert list(told["by_asset"]) == list(assets)[: len(told["by_asset"])]
    assert sum(told["by_asset"].values()) + told["other_assets"] == 100_000


def test_summary_of_the_busiest_key_fits_with_the_longest_id() -> None:
    days = {f"{day:02d}": 10**10 for day in range(1, 32)}
    statuses = {
        str(status): 10**11 for status in (200, 400, 403, 404, 405, 408, 413, 429, 431, 499, 500, 503)
    }
    largest = make_summary(
        key=10**9, used=10**12, limit=10**12, answers=10**12, by_status=statuses, by_day=days
    )
    assert len(render_summary(largest, '"' * 64)) <= MAX_DATAGRAM_BYTES


def test_summary_is_read_as_it_was_written() -> None:
    id, told = parse_reply(render_summary(make_summary(), "7"))
    assert (id, told) == ("7", make_summary(other_assets=60))
    with pytest.raises(BadReply):
        parse_reply(b'{"id":"7","answers":1}')


def test_question_without_an_asset_asks_for_the_summary() -> None:
    assert json.loads(build_request(None, "tb", id="7")) == {"api_key": "tb", "id": "7"}
