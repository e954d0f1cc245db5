"""What becomes of a datagram: by hand for the twin, and the compiled batch held to it, byte for byte."""

from __future__ import annotations

import msgspec
import pytest

from billing import keys
from billing._gate import SCOPE_PRICES, GateKey
from billing.ratelimit import SECOND_NS
from pricing.protocol import PriceAnswer
from telemetry._counters import DROP_REASONS
from tests.pricing.doubles import KEYS, START_MONO_NS
from tests.twins.datagram import Refusal
from tests.twins.udp import render_refusal
from tests.udp_engine.datagrams import TABLE
from tests.udp_engine.engines import (
    ADDRESSES,
    HOME,
    OWN,
    REFUSAL_BURST,
    REFUSALS_PER_S,
    Circumstances,
    Engines,
    Reply,
    address_of,
    both_by_chance,
    compared,
)
from tests.udp_engine.fuzz import compare
from udp_engine import wire

TOLD = (
    b'"asset":"BTC","price":"67123.450","quote":"USD","source":"coinbase-ws","ts":1763816400083,"age_ms":40,'
    b'"tier":1}'
)


@pytest.fixture
def engines() -> Engines:
    engines = Engines()
    engines.tick("BTC", "coinbase", "67123.450", START_MONO_NS)
    return engines


def answer(engines: Engines, datagram: bytes, at: Circumstances = HOME) -> Reply:
    """Give the answer of both."""
    reply = engines.by_twin(datagram, at)
    assert engines.by_batch(datagram, at) == reply
    compared(engines)
    return reply


def request(key: str | None = "partner", /, **fields: object) -> bytes:
    known = {} if key is None else {"api_key": KEYS.get(key, key)}
    return msgspec.json.encode({"asset": "BTC", **known, **fields})


def test_fresh_price_is_answered_at_once(engines: Engines) -> None:
    assert answer(engines, request(id="7")) == b'{"id":"7",' + TOLD
    assert answer(engines, request()) == b"{" + TOLD
    assert answer(engines, request(id='"\\')) == b'{"id":"\\"\\\\",' + TOLD


def test_price_is_written_as_asyncio_would(engines: Engines) -> None:
    price = engines.boards[0].get("BTC", "coinbase")
    told = PriceAnswer(price, price.age_ns(START_MONO_NS), 1, cached=True)
    for id in (None, "7", '"\\'):
        fields = {} if id is None else {"id": id}
        assert answer(engines, request(**fields)) == wire.render_price(told, id)


@pytest.mark.parametrize("id", [None, "7", '"\\'])
@pytest.mark.parametrize("code", wire.CODES)
def test_refusal_is_written_as_asyncio_would(code: str, id: str | None) -> None:
    for retry_ms in (None, 0, 120):
        assert render_refusal(Refusal(code, id, retry_ms)) == wire.render_refusal(code, id, retry_ms=retry_ms)


@pytest.mark.parametrize(
    "fields",
    [
        {"asset": "ETH"},
        {"asset": "NOPE"},
        {"exchange": "kraken"},
        {"exchange": "nowhere"},
        {"max_age_ms": 39},
    ],
)
def test_what_the_board_cannot_answer_is_a_question(engines: Engines, fields: dict[str, object]) -> None:
    datagram = request(id="7", **fields)
    asked = (
        fields.get("asset", "BTC"),
        (),
        fields.get("exchange"),
        fields.get("max_age_ms"),
        "7",
        len(datagram),
    )
    assert answer(engines, datagram) == asked
    assert engines.twin.counts["udp_requests"] == 1


def test_several_assets_are_a_question(engines: Engines) -> None:
    datagram = b'{"assets":["btc","ETH","BTC"],"api_key":"%b"}' % KEYS["partner"].encode()
    assert answer(engines, datagram) == (None, ("BTC", "ETH"), None, None, None, len(datagram))


def test_price_as_old_as_asked_is_still_told(engines: Engines) -> None:
    assert answer(engines, request(max_age_ms=40)) == b"{" + TOLD


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (None, b"unauthorized"),
        ("", b"unauthorized"),
        ("x" * 46, b"unauthorized"),
        ("é" * 23, b"unauthorized"),
        ("unknown", b"unauthorized"),
        ("reports", b"unauthorized"),
        ("elsewhere", b"unauthorized"),
        ("revoked", b"revoked"),
        ("expired", b"revoked"),
    ],
)
def test_bad_key_is_refused_with_a_word(engines: Engines, key: str | None, code: bytes) -> None:
    assert answer(engines, request(key, id="7", exchange="coinbase")) == b'{"id":"7","error":"%b"}' % code
    assert engines.twin.counts["auth_failures"] == 1


def test_key_of_a_network_is_good_there(engines: Engines) -> None:
    assert (
        answer(engines, request("elsewhere"), HOME._replace(address=address_of("198.51.100.9")))
        == b"{" + TOLD
    )


def test_rate_and_cap_are_refused_with_their_codes(engines: Engines) -> None:
    for _ in range(5):
        assert answer(engines, request("free")) == b"{" + TOLD
    assert answer(engines, request("free"), HOME._replace(mono_ns=START_MONO_NS + 1)) == (
        b'{"error":"rate_limited","retry_ms":1000}'
    )
    engines.use_up("pro", 50_000)
    assert answer(engines, request("pro")) == b'{"error":"quota_exceeded"}'


def test_gate_that_nobody_has_filled_refuses_as_unavailable() -> None:
    assert answer(Engines(is_filled=False), request(id="7")) == b'{"id":"7","error":"unavailable"}'


def test_refusal_is_never_longer_than_the_datagram(engines: Engines) -> None:
    assert answer(engines, b'{"asset":"BTC"}') is None
    assert engines.twin.drops == {"too_short": 1}
    padded = b'{"asset":"BTC"}'.ljust(len(b'{"error":"unauthorized"}'))
    assert answer(engines, padded) == b'{"error":"unauthorized"}'


def test_refusals_to_a_network_are_few(engines: Engines) -> None:
    one, neighbour = (HOME._replace(address=address) for address in ADDRESSES[:2])
    refused = b'{"error":"bad_request"}'
    for _ in range(REFUSAL_BURST):
        assert answer(engines, b'{"asset":"BTC","unknown":1}', one) == refused
    assert answer(engines, b'{"asset":"BTC","unknown":1}', neighbour) is None
    later = neighbour._replace(mono_ns=START_MONO_NS + SECOND_NS // REFUSALS_PER_S)
    assert answer(engines, b'{"asset":"BTC","unknown":1}', later) == refused
    assert answer(engines, b'{"asset":"BTC","unknown":1}', later) is None
    assert engines.twin.drops == {"limited": 2}


def test_prices_to_a_network_without_refusals_left_go_on(engines: Engines) -> None:
    for _ in range(REFUSAL_BURST + 1):
        answer(engines, b'{"asset":"BTC","unknown":1}')
    assert answer(engines, request()) == b"{" + TOLD


@pytest.mark.parametrize("port", [0, 7, 13, 17, 19, 53, 111, 123, 137, 161, 389, 520, 1900, 5353, 11211])
def test_reflector_is_never_answered(engines: Engines, port: int) -> None:
    assert answer(engines, request(), HOME._replace(port=port)) is None
    assert engines.twin.drops == {"bad_source": 1}
    assert engines.twin.counts["udp_requests"] == 0


def test_own_address_is_never_answered(engines: Engines) -> None:
    address, port = OWN
    assert answer(engines, request(), HOME._replace(address=address, port=port)) is None
    assert answer(engines, request(), HOME._replace(address=address, port=port + 1)) == b"{" + TOLD
    assert answer(engines, request(), HOME._replace(port=port)) == b"{" + TOLD


def test_no_reply_is_ever_answered(engines: Engines) -> None:
    replies = [
        b'{"id":"7",' + TOLD,
        b'{"prices":[{' + TOLD + b"]}",
        *(wire.render_refusal(code, "7", age_ms=5, retry_ms=5) for code in wire.CODES),
    ]
    for reply in replies:
        assert answer(engines, reply.ljust(400)) is None
    assert engines.twin.drops == {"reply_shaped": len(replies)}


def test_batch_says_what_its_twin_says_to_the_table(engines: Engines) -> None:
    for number, (datagram, _) in enumerate(TABLE):
        answer(engines, datagram, HOME._replace(mono_ns=START_MONO_NS + number * SECOND_NS))


def test_batch_says_what_its_twin_says_to_anything() -> None:
    engines = Engines()
    engines.use_up("pro", 49_900)
    batch, twin = both_by_chance(engines, seed=9)
    compare(batch, twin, 200_000, seed=9)
    drops, counts = compared(engines), engines.twin.counts
    by_the_batch = set(DROP_REASONS) - {"kernel", "shed", "unsent", "stopped"}
    assert {reason for reason, count in drops.items() if count > 5} == by_the_batch
    assert min(counts[name] for name in ("syncmap_hits", "rate_limited", "quota_exceeded")) > 50
    assert counts["udp_packets_received"] == 200_000
    answered = counts["udp_packets_sent"] + counts["bg_work_submitted"]
    assert counts["udp_packets_received"] == answered + sum(drops.values())


def test_no_refusal_is_longer_than_its_question() -> None:
    """Nobody without a key is made to hear more than was sent in his name."""
    engines = Engines()
    batch, twin = both_by_chance(engines, seed=10)

    def checked(datagram: bytes) -> Reply:
        reply = batch(datagram)
        if isinstance(reply, bytes) and b'"error"' in reply:
            assert len(reply) <= len(datagram)
        return reply

    compare(checked, twin, 20_000, seed=10)


# -- where summaries are asked for


@pytest.fixture
def summaries() -> Engines:
    return Engines(are_summaries=True)


def summary(key: str | None = "partner", /, **fields: object) -> bytes:
    known = {} if key is None else {"api_key": KEYS.get(key, key)}
    return msgspec.json.encode({**known, **fields})


def test_summary_is_a_question_and_takes_nothing(summaries: Engines) -> None:
    summaries.gate.changed()  # what furnishing has counted
    datagram = summary(id="7")
    assert answer(summaries, datagram) == (None, (), None, None, "7", len(datagram))
    assert (summaries.twin.counts["lrs_requests"], summaries.twin.counts["udp_requests"]) == (1, 0)
    assert summaries.gate.changed() == []
    assert summaries.spool.appender.tally.opened == 0


@pytest.mark.parametrize("name", ["partner", "reports"])
def test_keys_for_reports_may_ask_for_summaries(summaries: Engines, name: str) -> None:
    assert isinstance(answer(summaries, summary(name)), tuple)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (None, b"unauthorized"),
        ("unknown", b"unauthorized"),
        ("elsewhere", b"unauthorized"),
        ("revoked", b"revoked"),
        ("expired", b"revoked"),
    ],
)
def test_others_are_refused_a_summary(summaries: Engines, name: str | None, code: bytes) -> None:
    assert answer(summaries, summary(name, id="7").ljust(64)) == b'{"id":"7","error":"%b"}' % code


def test_key_for_prices_alone_is_refused_a_summary(summaries: Engines) -> None:
    for gate in (summaries.gate, summaries.gate_twin):
        gate.put(GateKey(keys.digest(KEYS["unknown"]), 99, flags=SCOPE_PRICES))
    assert answer(summaries, summary("unknown")) == b'{"error":"unauthorized"}'


def test_stranger_gets_no_more_bytes_than_came(summaries: Engines) -> None:
    assert answer(summaries, summary(None, id="7")) is None
    assert summaries.twin.drops == {"too_short": 1}


def test_key_whose_month_is_used_up_may_ask_for_its_summary(summaries: Engines) -> None:
    summaries.use_up("free", 1_000_000)
    assert isinstance(answer(summaries, summary("free")), tuple)


def test_account_gets_only_so_many_summaries(summaries: Engines) -> None:
    """The limits of the key are not touched, so something else has to bound what a spoofer can have sent."""
    asked = [answer(summaries, summary()) for _ in range(REFUSAL_BURST + 5)]
    assert [reply is None for reply in asked] == [False] * REFUSAL_BURST + [True] * 5
    assert summaries.twin.drops == {"limited": 5}
    assert summaries.spool.take() == []  # so nobody can fill the spool
    later = HOME._replace(mono_ns=HOME.mono_ns + SECOND_NS // REFUSALS_PER_S)
    assert isinstance(answer(summaries, summary(), later), tuple)


def test_refusals_leave_an_account_its_summaries(summaries: Engines) -> None:
    for _ in range(REFUSAL_BURST + 5):
        answer(summaries, summary("unknown"))
    assert isinstance(answer(summaries, summary()), tuple)


@pytest.mark.parametrize(
    "fields", [{"asset": "BTC"}, {"assets": ["BTC"]}, {"exchange": "kraken"}, {"month": 1}]
)
def test_summary_has_no_other_fields(summaries: Engines, fields: dict[str, object]) -> None:
    assert answer(summaries, summary(**fields, id="7")) == b'{"id":"7","error":"bad_request"}'


def test_summary_is_no_price(engines: Engines) -> None:
    assert answer(engines, summary(id="7")) == b'{"id":"7","error":"bad_request"}'


def test_summaries_by_chance_are_judged_alike(summaries: Engines) -> None:
    seen = compare(*both_by_chance(summaries, 9), 100_000, seed=9)
    assert seen["Question"] > 500
    assert set(compared(summaries)) >= {"limited", "too_short", "reply_shaped", "bad_source"}
