"""The specification of reading a datagram: each kind by hand, and what another JSON reader makes of it."""

import json

import pytest

from telemetry._counters import DROP_REASONS
from tests.twins.datagram import Drop, Query, flat, judge, parse, read
from tests.udp_engine.datagrams import TABLE, Outcome
from tests.udp_engine.fuzz import check_with_json, datagrams, read_with_json


def named(datagram: bytes) -> str:
    return f"{len(datagram)}:{datagram[:48]!r}"


@pytest.mark.parametrize(("datagram", "expected"), TABLE, ids=[named(row[0]) for row in TABLE])
def test_datagram_is_read_as_it_must_be(datagram: bytes, expected: Outcome) -> None:
    assert flat(parse(datagram)) == expected


def test_table_has_every_reason_for_which_a_text_is_dropped() -> None:
    reasons = {expected[1] for _, expected in TABLE if expected[0] == "drop"}
    not_of_the_text = {"kernel", "bad_source", "too_short", "limited", "shed", "unsent", "stopped"}
    assert reasons == set(DROP_REASONS) - not_of_the_text
    assert len({datagram for datagram, _ in TABLE}) == len(TABLE) > 350


@pytest.mark.parametrize("datagram", [row[0] for row in TABLE], ids=[named(row[0]) for row in TABLE])
def test_json_agrees(datagram: bytes) -> None:
    check_with_json(datagram)


def test_json_agrees_on_anything() -> None:
    """`python -m tests.udp_engine.fuzz` asks more."""
    outcomes = {check_with_json(datagram) for datagram in datagrams(20_000, seed=7)}
    assert {"price", "prices", "bad_request", "malformed", "truncated", "bad_escape", "not_utf8"} <= outcomes


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b'{"x":NaN}', "malformed"),
        (b'{"asset":"A","asset":"A"}', "duplicate_field"),
        (b'{"x":[[[[]]]]}', "too_deep"),
        (b'{"x":"\\ud800"}', "bad_escape"),
        (b"[1]", "malformed"),
    ],
)
def test_json_takes_what_is_dropped_here_on_purpose(datagram: bytes, reason: str) -> None:
    assert parse(datagram) == Drop(reason)
    json.loads(datagram)


def test_cross_check_would_see_a_twin_that_takes_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.udp_engine.fuzz.parse", lambda datagram: judge(read('{"asset":"BTC"}')))
    with pytest.raises(AssertionError):
        check_with_json(b'{"asset":"ETH"}')
    with pytest.raises(AssertionError):
        check_with_json(b'{"asset":"BTC",}')


def test_cross_check_would_see_a_twin_that_takes_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.udp_engine.fuzz.parse", lambda datagram: Drop("malformed"))
    with pytest.raises(AssertionError):
        check_with_json(b'{"asset":"BTC"}')


def test_json_reads_the_fields_that_the_twin_reads() -> None:
    fields = read_with_json(b'{"asset":"\\u0062tc","max_age_ms":5}')
    assert fields == {"asset": "btc", "max_age_ms": "5"}
    found = parse(b'{"asset":"\\u0062tc","max_age_ms":5}')
    assert isinstance(found, Query)
    assert (found.asset, found.max_age_ms) == ("BTC", 5)
