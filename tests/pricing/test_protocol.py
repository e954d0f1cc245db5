from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.exceptions import BadRequest
from pricing.problems import PROBLEMS, Problem, render_problem
from pricing.protocol import (
    MAX_BODY_BYTES,
    PriceAnswer,
    PriceQuery,
    parse_assets,
    parse_nothing,
    parse_price,
    parse_prices,
    parse_prices_body,
    render_price,
    render_prices,
    render_time,
)
from pricing.tick import StoredPrice

TRADED_NS = 1_795_352_400_123_456_789  # 2026-11-22T13:00:00.123456789Z
BTC = StoredPrice(
    "BTC", "coinbase", "coinbase-ws", "USD", "67123.45", TRADED_NS, TRADED_NS + 37_545_999, polled=False
)
BTC_BODY = (
    b'{"asset":"BTC","price":"67123.45","quote":"USD","source":"coinbase-ws","exchange":"coinbase",'
    b'"timestamp":"2026-11-22T13:00:00.123456Z","received_at":"2026-11-22T13:00:00.161002Z",'
    b'"age_ms":42,"tier":1,"cached":true}'
)


def problem_of(parse: object, text: bytes) -> Problem:
    assert callable(parse)
    with pytest.raises(BadRequest) as caught:
        parse(text)
    return caught.value.problem


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        (b"asset=BTC", PriceQuery("BTC")),
        (b"asset=btc", PriceQuery("BTC")),
        (b"asset=%42TC", PriceQuery("BTC")),
        (b"asset=1INCH", PriceQuery("1INCH")),
        (b"exchange=Kraken&asset=BTC", PriceQuery("BTC", "kraken")),
        (b"asset=BTC&max_age_ms=0&min_sources=3", PriceQuery("BTC", None, 0, 3)),
        (b"asset=BTC&max_age_ms=86400000", PriceQuery("BTC", None, 86_400_000)),
    ],
)
def test_price_question_is_read(query: bytes, asked: PriceQuery) -> None:
    assert parse_price(query) == asked


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (b"", "asset is missing"),
        (b"asset=", "asset is empty"),
        (b"asset", "asset is empty"),
        (b"=BTC", "'' is not a parameter here; known are asset, exchange, max_age_ms, min_sources"),
        (b"asset=BTC&", "'' is not a parameter"),
        (b"asset=BTC&&max_age_ms=1", "'' is not a parameter"),
        (b"asset=BTC&asset=BTC", "asset is given more than once"),
        (b"asset=BTC&method=index", "'method' is not a parameter"),
        (b"Asset=BTC", "'Asset' is not a parameter"),
        (b"asset=BTC-USD", "'BTC-USD' cannot be an asset"),
        (b"asset=BTC%00", "cannot be an asset"),
        (b"asset=B+TC", "cannot be an asset"),
        (b"asset=%C3%9F", "cannot be an asset"),  # upper case of ß is SS
        (b"asset=%EF%BC%A2", "cannot be an asset"),  # full-width B
        (b"asset=BTC%0A", "cannot be an asset"),
        (b"asset=" + b"A" * 33, "cannot be an asset"),
        (b"asset=%FF", "not UTF-8"),
        (b"asset=\xff", "not UTF-8"),
        (b"asset=BTC&exchange=a%2Fb", "cannot be an exchange"),
        (b"asset=BTC&exchange=_x", "cannot be an exchange"),
        (b"asset=BTC&exchange=%E2%84%AAraken", "cannot be an exchange"),  # Kelvin sign, lower case k
        (b"asset=BTC&max_age_ms=-1", "max_age_ms must be a whole number"),
        (b"asset=BTC&max_age_ms=1.0", "max_age_ms must be a whole number"),
        (b"asset=BTC&max_age_ms=01", "max_age_ms must be a whole number"),
        (b"asset=BTC&max_age_ms=1e3", "max_age_ms must be a whole number"),
        (b"asset=BTC&max_age_ms=%D9%A1", "max_age_ms must be a whole number"),  # an Arabic one
        (b"asset=BTC&max_age_ms=" + b"9" * 500, "max_age_ms must be a whole number"),
        (b"asset=BTC&max_age_ms=86400001", "max_age_ms must be from 0 to 86400000"),
        (b"asset=BTC&min_sources=0", "min_sources must be from 1 to 64"),
        (b"asset=BTC&min_sources=65", "min_sources must be from 1 to 64"),
    ],
)
def test_bad_price_question_is_refused_with_its_reason(query: bytes, words: str) -> None:
    problem = problem_of(parse_price, query)
    assert (problem.code, problem.status) == ("bad_request", 400)
    assert words in problem.detail
    assert len(problem.detail) < 200


def test_too_long_query_string_is_refused_before_it_is_read() -> None:
    assert "2048 bytes" in problem_of(parse_price, b"asset=" + b"A" * 2_043).detail


@pytest.mark.parametrize(
    "name", ["key", "api_key", "API_KEY", "apikey", "token", "access_token", "X-API-Key"]
)
def test_key_in_a_query_string_is_refused_with_a_hint_and_never_repeated(name: str) -> None:
    problem = problem_of(parse_price, f"asset=BTC&{name}=tb_live_secret".encode())
    assert problem.code == "secret_in_query"
    assert "Authorization: Bearer" in problem.detail
    assert b"tb_live_secret" not in render_problem(problem)


@given(st.binary(max_size=300))
def test_any_query_string_is_a_question_or_a_bad_request(query: bytes) -> None:
    for parse in (parse_price, parse_prices, parse_assets, parse_nothing):
        try:
            parse(query)
        except BadRequest as error:
            msgspec.json.decode(render_problem(error.problem))


def test_assets_of_prices_lose_duplicates_and_keep_their_order() -> None:
    asked = parse_prices(b"assets=eth,BTC,ETH,UNI&max_age_ms=5")
    assert asked == [PriceQuery(name, None, 5) for name in ("ETH", "BTC", "UNI")]


def test_repetitions_do_not_count_but_have_a_limit_of_their_own() -> None:
    assert parse_prices(b"assets=" + b",".join([b"BTC", b"btc"] * 100)) == [PriceQuery("BTC")]
    assert parse_prices_body(msgspec.json.encode({"assets": ["BTC"] * 300})) == [PriceQuery("BTC")]
    problem = problem_of(parse_prices_body, msgspec.json.encode({"assets": ["BTC"] * 301}))
    assert "300, repetitions included" in problem.detail


def test_thirty_assets_are_allowed_and_thirty_one_are_not() -> None:
    names = [f"A{number}" for number in range(31)]
    assert len(parse_prices(b"assets=" + ",".join(names[:30]).encode())) == 30
    assert "At most 30" in problem_of(parse_prices, b"assets=" + ",".join(names).encode()).detail
    assert "At most 30" in problem_of(parse_prices_body, msgspec.json.encode({"assets": names})).detail


@pytest.mark.parametrize(
    "query", [b"", b"assets=", b"assets=,", b"assets=BTC,,ETH", b"assets=BTC,+ETH", b"asset=BTC"]
)
def test_prices_without_a_whole_list_of_assets_is_refused(query: bytes) -> None:
    assert problem_of(parse_prices, query).code == "bad_request"


def test_body_of_prices_is_read() -> None:
    body = b'{"assets":["btc","ETH","BTC"],"exchange":"Kraken","max_age_ms":5e3,"min_sources":2.0}'
    asked = [PriceQuery(name, "kraken", 5_000, 2) for name in ("BTC", "ETH")]
    assert parse_prices_body(body) == asked


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "truncated"),
        (b"assets=BTC", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"null", "got `null`"),
        (b"[]", "got `array`"),
        (b"{}", "missing required field `assets`"),
        (b'{"assets":[]}', "assets is empty"),
        (b'{"assets":"BTC"}', "Expected `array`, got `str`"),
        (b'{"assets":[1]}', "Expected `str`, got `int`"),
        (b'{"assets":[["BTC"]]}', "Expected `str`, got `array`"),
        (b'{"assets":["BTC\xff"]}', "codec"),
        (b'{"assets":["BTC"]} {}', "malformed"),
        (b'{"assets":["BTC"],"max_age_ms":1e400}', "max_age_ms"),
        (b'{"assets":["BTC"],"max_age_ms":true}', "max_age_ms"),
        (b'{"assets":["BTC"],"max_age_ms":0.5}', "max_age_ms must be a whole number"),
        (b'{"assets":["BTC"],"max_age_ms":1e300}', "max_age_ms must be from"),
        (b'{"assets":["BTC"],"max_age_ms":99999999999999999999999}', "max_age_ms must be from"),
        (b'{"assets":["BTC"],"min_sources":0}', "min_sources must be from"),
        (b'{"assets":["BTC"],"api_key":"x"}', "unknown field `api_key`"),
        (b'{"assets":["BTC"],"method":"index"}', "unknown field `method`"),
        (b"[" * MAX_BODY_BYTES, "got `array`"),
        (b'{"assets":' + b"[" * (MAX_BODY_BYTES - 10), "got `array`"),
        (b'{"x":' + b"[" * (MAX_BODY_BYTES - 5), "unknown field `x`"),
    ],
)
def test_bad_body_is_refused_with_its_reason(body: bytes, words: str) -> None:
    problem = problem_of(parse_prices_body, body)
    assert problem.code == "bad_request"
    assert words in problem.detail


def test_assets_may_be_asked_for_by_exchange_and_category() -> None:
    assert parse_assets(b"") == (None, None)
    assert parse_assets(b"exchange=Okx&category=AI+%26+Data") == ("okx", "AI & Data")


def test_price_body_has_exactly_the_promised_keys_in_order() -> None:
    assert render_price(BTC, age_ns=42_999_999, tier=1, cached=True) == BTC_BODY


def test_price_whose_trade_has_no_time_says_so_and_shows_when_it_was_received() -> None:
    untimed = msgspec.structs.replace(BTC, traded_ns=None, polled=True)
    body = render_price(untimed, age_ns=42_999_999, tier=1, cached=True)
    stamped = BTC_BODY.replace(
        b'"timestamp":"2026-11-22T13:00:00.123456Z"', b'"timestamp":"2026-11-22T13:00:00.161002Z"'
    )
    assert body == stamped.removesuffix(b"}") + b',"time_is":"answer"}'


@pytest.mark.parametrize("price", ["0.000000000000000001", "1000000000000", "1.10", "0.50000000"])
def test_price_keeps_every_digit(price: str) -> None:
    body = render_price(msgspec.structs.replace(BTC, price=price), age_ns=0, tier=1, cached=True)
    assert b'"price":"' + price.encode() + b'"' in body


@pytest.mark.parametrize(
    ("wall_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (999_999_999, "1970-01-01T00:00:00.999999Z"),
        (1_709_164_799_999_999_999, "2024-02-28T23:59:59.999999Z"),
        (1_709_164_800_000_000_000, "2024-02-29T00:00:00.000000Z"),
        (2**63 - 1, "2262-04-11T23:47:16.854775Z"),
    ],
)
def test_time_is_cut_to_microseconds_not_rounded(wall_ns: int, text: str) -> None:
    assert render_time(wall_ns) == text


@given(st.integers(0, 2**63 - 1))
def test_rendered_time_is_the_same_instant(wall_ns: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=wall_ns // 1_000)
    assert datetime.fromisoformat(render_time(wall_ns)) == moment


def test_prices_body_holds_a_price_or_an_error_per_asset() -> None:
    error = Problem("unknown_asset", "NOPE is not listed.", {"asset": "NOPE"})
    body = render_prices([("BTC", PriceAnswer(BTC, 42_000_000, 1, cached=True)), ("NOPE", error)])
    first, second = msgspec.json.decode(body)["prices"]
    assert first == msgspec.json.decode(BTC_BODY)
    assert second == {"asset": "NOPE", "error": msgspec.json.decode(render_problem(error))}


def test_problem_has_the_members_of_rfc_9457_and_its_figures() -> None:
    problem = Problem("stale", "Too old.", {"age_ms": 7})
    assert msgspec.json.decode(render_problem(problem)) == {
        "type": "/docs#stale",
        "title": "No price is as fresh as asked",
        "status": 503,
        "detail": "Too old.",
        "code": "stale",
        "age_ms": 7,
    }


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_problem_has_an_error_status_and_a_title(code: str) -> None:
    problem = Problem(code, "")
    assert 400 <= problem.status < 600
    assert problem.title
