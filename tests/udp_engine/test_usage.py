"""Which usage records a worker leaves: of what the board answers, of what waits, of what comes to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from pricing.problems import Problem
from telemetry._spool import NO_SOURCE, PRICE, PRICES, UDP, WS, UsageLog
from tests.pricing.doubles import KEYS, MONTH
from tests.telemetry.spooling import SpoolInMemory
from tests.udp_engine.live import Live, request
from tests.udp_engine.working import PricesDouble, make_worker, replies, until, working
from udp_engine import prices as price_answers
from udp_engine import slow

PARTNER = list(KEYS).index("partner") + 1


@pytest.fixture
def live() -> Iterator[Live]:
    with Live() as live:
        yield live


@pytest.fixture
def prices() -> PricesDouble:
    return PricesDouble()


def seen(live: Live) -> list[tuple[int, str, int, int]]:
    """Take what was recorded: each by status, asset, assets and tier; the rest is looked at here."""
    logs = live.spool.take()
    assert all((log.key_id, log.account_id, log.month) == (PARTNER, 100 + PARTNER, MONTH) for log in logs)
    assert all(log.protocol == UDP for log in logs)
    assert all(log.endpoint == (PRICES if log.assets > 1 else PRICE) for log in logs)
    return [(log.status, log.asset, log.assets, log.tier) for log in logs]


def tally(live: Live) -> tuple[int, int, int]:
    """Say how many brackets were begun, which must all have ended, and how many answers opened and closed."""
    entered, left, opened, closed, shed = live.spool.appender.tally
    assert (entered, shed) == (left, 0)
    return entered, opened, closed


def several(*assets: str) -> bytes:
    return b'{"assets":["%b"],"api_key":"%b"}' % ('","'.join(assets).encode(), KEYS["partner"].encode())


async def test_price_of_the_board_is_recorded_before_it_is_sent(live: Live) -> None:
    client = live.client()
    live.ask(client, request())
    (log,) = live.spool.take()
    assert log == UsageLog(
        time_ns=log.time_ns,
        key_id=PARTNER,
        account_id=100 + PARTNER,
        month=MONTH,
        latency_us=log.latency_us,
        status=200,
        assets=1,
        tier=1,
        source=WS,
        protocol=UDP,
        endpoint=PRICE,
        asset="BTC",
        exchange="coinbase",
        price="67123.45",
        quote="USD",
        sequence=1,
    )
    assert abs(log.time_ns - live.clock.wall) < 60 * 10**9
    assert log.latency_us < 10**6
    assert tally(live) == (1, 0, 0)
    assert live.account().totals["batch_rows_queued"] == 1


async def test_what_the_board_cannot_answer_is_owed_until_it_is_answered(
    live: Live, prices: PricesDouble
) -> None:
    prices.gate.clear()
    client = live.client()
    async with working(live, prices):
        live.send(client, request(asset="ETH"))
        await until(lambda: len(prices.asked) == 1)
        assert (seen(live), tally(live)) == ([], (1, 1, 0))
        prices.gate.set()
        await replies(client, 1)
    (log,) = live.spool.take()
    assert (log.status, log.asset, log.exchange, log.price, log.tier) == (200, "ETH", "kraken", "3100.5", 2)
    assert (log.month, log.source, log.quote) == (MONTH, WS, "USD")
    assert tally(live) == (2, 1, 1)
    assert live.account().totals["batch_rows_queued"] == 1


async def test_answers_of_the_slow_path_are_recorded_with_https_numbers(
    live: Live, prices: PricesDouble
) -> None:
    prices.lower["BAD"] = RuntimeError("no")
    prices.lower["NONE"] = Problem("unavailable", "")
    client = live.client()
    asked = [request(asset=asset) for asset in ("XXX", "OLD", "BAD", "NONE")]
    async with working(live, prices):
        for number, datagram in enumerate([*asked, several("UNI", "XXX", "ETH")], 1):
            live.send(client, datagram)
            await replies(client, 1)
            assert live.account().sent == number
    assert seen(live) == [
        (404, "XXX", 1, 0),
        (503, "OLD", 1, 0),
        (503, "BAD", 1, 0),
        (503, "NONE", 1, 0),
        (200, "UNI", 3, 0),
    ]
    assert tally(live) == (10, 5, 5)


async def test_what_is_shed_is_recorded(live: Live, prices: PricesDouble) -> None:
    prices.gate.clear()
    client = live.client()
    async with working(live, prices, waiting=1):
        live.send(client, request(asset="ETH"), several("ETH", "UNI"))
        await until(lambda: live.account().drops == {"shed": 1})
        assert seen(live) == [(503, "ETH", 2, 0)]
        prices.gate.set()
        await replies(client, 1)
    assert seen(live) == [(200, "ETH", 1, 2)]
    assert tally(live) == (4, 2, 2)


async def test_what_is_given_up_at_the_end_is_recorded(live: Live, prices: PricesDouble) -> None:
    prices.gate.clear()
    stop = asyncio.Event()
    running = asyncio.create_task(make_worker(live, prices, grace_ms=20).run(stop))
    live.send(live.client(), request(asset="ETH"), several("ETH", "UNI"))
    await until(lambda: len(prices.asked) == 3)
    stop.set()
    await running
    assert sorted(seen(live)) == [(503, "ETH", 1, 0), (503, "ETH", 2, 0)]
    assert tally(live) == (4, 2, 2)


async def test_what_waits_its_turn_when_all_is_cancelled_is_recorded(
    live: Live, prices: PricesDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow.SlowPath, "_work", lambda self: None)  # nobody ever has a turn
    running = asyncio.create_task(make_worker(live, prices).run(asyncio.Event()))
    live.send(live.client(), request(asset="ETH"))
    await until(lambda: tally(live)[1] == 1)
    running.cancel()
    await asyncio.wait([running])
    assert (seen(live), tally(live)) == ([(503, "ETH", 1, 0)], (2, 1, 1))


async def test_answer_that_cannot_be_written_is_recorded(
    live: Live, prices: PricesDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> bytes:
        raise RuntimeError

    monkeypatch.setattr(price_answers, "render", fail)
    async with working(live, prices):
        live.send(live.client(), request(asset="ETH"))
        await until(lambda: live.account().drops == {"unsent": 1})
    assert (seen(live), tally(live)) == ([(503, "ETH", 1, 0)], (2, 1, 1))


@pytest.mark.parametrize("name", ["revoked", "expired", "reports", "elsewhere"])
def test_refusal_that_names_a_key_is_recorded_when_it_is_told(live: Live, name: str) -> None:
    client, number = live.client(), list(KEYS).index(name) + 1
    live.ask(client, request(name), *[request(name)] * 99)
    told = live.account().sent
    logs = live.spool.take()
    assert 1 <= len(logs) == told < 100  # the others were dropped in silence
    for log in logs:
        assert (log.key_id, log.account_id, log.month) == (number, 100 + number, 0)
        assert (log.status, log.asset, log.assets, log.source) == (403, "BTC", 1, NO_SOURCE)


@pytest.mark.parametrize("datagram", [request("unknown"), request(None), b"{}", b"hello"])
def test_without_a_key_nothing_is_recorded(live: Live, datagram: bytes) -> None:
    live.ask(live.client(), datagram)
    assert live.spool.take() == []


def used(live: Live) -> int:
    return sum(usage.counted for usage in live.gate.changed() if usage.key_id == PARTNER)


def test_without_room_nothing_is_answered_and_nothing_taken() -> None:
    spool = SpoolInMemory(has_room=False)
    with Live(spool=spool) as live:
        client = live.client()
        assert live.ask(client, request(id="1")) == [b'{"id":"1","error":"unavailable"}']
        assert (used(live), spool.appender.refused) == (0, 1)
        spool.give_room()
        assert live.ask(client, request())[0].startswith(b'{"asset"')
        assert used(live) == 1


def test_without_room_answers_go_on_where_the_operator_chose_so() -> None:
    spool = SpoolInMemory(has_room=False)
    spool.appender.sheds = True
    with Live(spool=spool) as live:
        assert live.ask(live.client(), request())[0].startswith(b'{"asset"')
        assert (used(live), spool.appender.tally.shed) == (1, 1)
        assert live.account().totals["batch_rows_queued"] == 0
