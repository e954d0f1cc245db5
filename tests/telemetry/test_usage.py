from __future__ import annotations

import pytest

from telemetry._spool import HTTP, INDEX, NO_SOURCE, PRICE, PRICES, REST, SIMULATED, UDP, WS, UsageLog
from telemetry.usage import NOTHING, Asked, Told, make_log, read_source

ASKED = Asked(key_id=7, account_id=8, month=202611, protocol=UDP, endpoint=PRICE, begun_ns=5)


@pytest.mark.parametrize(
    ("tag", "source", "flags"),
    [
        ("coinbase-ws", WS, 0),
        ("gate-io-rest", REST, 0),
        ("coinbase-ws-sim", WS, SIMULATED),
        ("index", INDEX, 0),
        ("index-sim", INDEX, SIMULATED),
        ("", NO_SOURCE, 0),
        ("coinbase", NO_SOURCE, 0),
        ("none", NO_SOURCE, 0),
    ],
)
def test_source_and_flags_of_a_tag(tag: str, source: int, flags: int) -> None:
    assert read_source(tag) == (source, flags)


def test_log_says_who_asked_and_what_was_told() -> None:
    told = Told("BTC", 1, 2, "kraken", "kraken-rest-sim", "67123.450", "USD")
    assert make_log(ASKED, told, status=200, time_ns=9, latency_us=42) == UsageLog(
        time_ns=9,
        key_id=7,
        account_id=8,
        month=202611,
        latency_us=42,
        status=200,
        assets=1,
        tier=2,
        source=REST,
        flags=SIMULATED,
        protocol=UDP,
        endpoint=PRICE,
        asset="BTC",
        exchange="kraken",
        price="67123.450",
        quote="USD",
    )


def test_log_of_an_answer_about_nothing_says_nothing() -> None:
    asked = ASKED._replace(month=0, protocol=HTTP, endpoint=PRICES)
    expected = UsageLog(9, 7, 8, 0, 0, 400, endpoint=PRICES)
    assert make_log(asked, NOTHING, status=400, time_ns=9, latency_us=0) == expected
