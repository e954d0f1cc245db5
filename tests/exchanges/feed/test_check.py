from __future__ import annotations

import json
from collections.abc import AsyncIterator

import msgspec
import pytest

from exchanges.feed.check import CheckReport, check_feed
from exchanges.feed.spec import FeedSpec
from exchanges.simulator import faults as f
from exchanges.simulator.server import Simulator
from tests.exchanges.feed.node import SIX, shipped_listings, shipped_spec


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(rate=40) as served:
        yield served


def symbols(name: str) -> list[str]:
    return [row.symbol for row in shipped_listings(name)]


async def check(spec: FeedSpec, asked: list[str], *, seconds: float = 3.0) -> CheckReport:
    return await check_feed(spec, asked, seconds=seconds, allow_loopback=True)


@pytest.mark.parametrize("name", SIX)
async def test_good_row_is_ready(name: str, simulator: Simulator) -> None:
    report = await check(shipped_spec(name).simulated(simulator.url), symbols(name))
    assert (report.ok, report.problem, report.faults) == (True, "", [])
    assert [one.symbol for one in report.symbols] == symbols(name)
    assert all(one.state == "live" and one.price and one.age_ms is not None for one in report.symbols)
    assert report.frames["trade"] > 0
    assert report.to_text().endswith(f"{name} is ready to go live.")
    assert json.loads(report.to_json())["symbols"][0]["symbol"] == symbols(name)[0]
    await simulator.until(lambda: simulator.connections(name) == 0)


@pytest.mark.parametrize(
    ("name", "bad"), [("bybit", "NOPEUSDT"), ("kraken", "NOPE/USD"), ("okx", "NOPE-USDT")]
)
async def test_refused_symbol_is_named_with_what_the_exchange_said(
    name: str, bad: str, simulator: Simulator
) -> None:
    report = await check(shipped_spec(name).simulated(simulator.url), [*symbols(name), bad])
    assert not report.ok
    assert report.problem == f"refused: {bad}"
    assert next(one for one in report.symbols if one.symbol == bad).detail
    assert all(one.state == "live" for one in report.symbols if one.symbol != bad)


async def test_wrong_price_path_is_named(simulator: Simulator) -> None:
    spec = msgspec.structs.replace(shipped_spec("okx"), price_path="pxx").simulated(simulator.url)
    report = await check(spec, symbols("okx"), seconds=1)
    assert report.problem.startswith("trades that could not be read: bad_price")


async def test_wrong_trade_match_brings_no_trade(simulator: Simulator) -> None:
    spec = msgspec.structs.replace(shipped_spec("okx"), trade_match={"nope": 1}).simulated(simulator.url)
    report = await check(spec, symbols("okx"), seconds=0.5)
    assert report.problem == "no trade came"
    assert report.frames["other"] > 0


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (f.RefuseHandshake(status=503), "handshake refused: HTTP 503"),
        (f.AcceptThenClose(code=1013), "closed by the exchange: 1013"),
        (
            f.Redirect(url="wss://169.254.169.254/"),
            "refused to connect to wss://169.254.169.254/: link-local",
        ),
    ],
)
async def test_failure_to_connect_is_the_problem(fault: f.Fault, problem: str, simulator: Simulator) -> None:
    await simulator.fault("okx", fault)
    report = await check(shipped_spec("okx").simulated(simulator.url), symbols("okx"))
    assert report.problem.startswith(problem)
    assert not report.ok


async def test_forbidden_address_is_the_problem() -> None:
    spec = msgspec.structs.replace(shipped_spec("okx"), ws_url="wss://10.0.0.1/")
    report = await check(spec, symbols("okx"))
    assert report.problem == "refused to connect to wss://10.0.0.1/: private"


async def test_exchange_without_symbols_is_not_ready() -> None:
    report = await check(shipped_spec("okx"), [])
    assert report.problem == "there are no symbols to subscribe"


async def test_silent_exchange_is_reported_in_time(simulator: Simulator) -> None:
    await simulator.fault("bybit", f.Silence())
    report = await check(shipped_spec("bybit").simulated(simulator.url), symbols("bybit"), seconds=0.4)
    assert report.problem == "no trade came"


async def test_symbols_are_spread_over_connections(simulator: Simulator) -> None:
    spec = shipped_spec("okx", symbols_per_connection=1).simulated(simulator.url)
    report = await check(spec, symbols("okx"))
    assert report.ok
    assert simulator.counts("okx")["handshakes"] == 3
