from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from exchanges.feed import line as module
from exchanges.feed.backoff import Pacing
from exchanges.feed.connection import Ended, FeedConnection, Network
from exchanges.feed.line import QUIET_AFTER_NS, Line, Redialling
from exchanges.feed.protocol import FeedProtocol
from tests.exchanges.feed.exchange import Record, trade
from tests.exchanges.feed.test_connection import no_token
from tests.exchanges.rows import feed_spec

LOOPBACK = Network(allow_loopback=True)
SECOND_NS = 10**9


class Slept:
    """Instead of sleeping, note how long was asked for and go on; the clock moves by as much."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.naps: list[float] = []

    async def sleep(self, delay_s: float) -> None:
        if delay_s > 0:
            self.naps.append(round(delay_s, 3))
            self.now_s += delay_s


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> Slept:
    clock = Slept()
    monkeypatch.setattr(module.asyncio, "sleep", clock.sleep)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now_s)
    monkeypatch.setattr(module.time, "monotonic_ns", lambda: int(clock.now_s * 1e9))
    return clock


def new_line(*, pacing: Pacing | None = None, redialling: Redialling | None = None) -> Line:
    return Line(
        feed_spec(ws_url="ws://127.0.0.1:9/"),
        ["BTC-USD"],
        network=LOOPBACK,
        sink=Record(),
        pacing=pacing or Pacing(min_gap_s=0),
        redialling=redialling or Redialling(),
        ask_token=no_token,
        uniform=lambda low, high: high,
    )


async def run_through(line: Line, ends: Iterator[Ended | Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each attempt end as told, until there is nothing left to tell."""

    async def run(self: FeedConnection) -> Ended:
        end = next(ends, None)
        if end is None:
            raise asyncio.CancelledError
        if isinstance(end, Exception):
            raise end
        return end

    monkeypatch.setattr(FeedConnection, "run", run)
    with pytest.raises(asyncio.CancelledError):
        await line.run()


async def test_delays_stay_short_for_two_minutes_and_then_double_to_a_minute(
    slept: Slept, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_through(new_line(), iter([Ended("closed")] * 52), monkeypatch)
    assert slept.naps[:4] == [1.0, 2.0, 3.0, 3.0]
    quick = slept.naps.index(1.0, 1)
    assert max(slept.naps[:quick]) == 3.0
    assert 120 <= sum(slept.naps[:quick]) <= 123
    assert slept.naps[quick : quick + 8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


async def test_exchange_that_asks_for_a_pause_gets_it(slept: Slept, monkeypatch: pytest.MonkeyPatch) -> None:
    await run_through(new_line(), iter([Ended("notice", retry_after_s=7.5)]), monkeypatch)
    assert slept.naps == [7.5]


async def test_pacing_of_the_row_is_kept(slept: Slept, monkeypatch: pytest.MonkeyPatch) -> None:
    line = new_line(pacing=Pacing(min_gap_s=5))
    await run_through(line, iter([Ended("closed")] * 3), monkeypatch)
    assert slept.naps == [1.0, 4.0, 2.0, 3.0, 3.0, 2.0]


async def test_error_of_the_program_is_logged_and_the_line_goes_on(
    slept: Slept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    line = new_line()
    await run_through(line, iter([RuntimeError("a bug"), Ended("closed")]), monkeypatch)
    assert "a bug" in caplog.text
    assert line.reconnects == 2
    assert slept.naps == [1.0, 2.0]


async def test_reachable_host_ends_the_wait_of_one_that_was_unreachable(
    slept: Slept, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = new_line(redialling=Redialling(first_s=60.0, quick_for_s=0.0, probe_s=1.5))
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: slept.now_s)
    answers = iter([False, False, True])

    async def is_reachable() -> bool:
        return next(answers)

    line._is_reachable = is_reachable  # type: ignore[method-assign]  # no network in this test
    await run_through(line, iter([Ended("no route", unreachable=True)]), monkeypatch)
    assert slept.naps == [1.5, 1.5, 1.5]


async def test_state_of_a_line_follows_what_happens() -> None:
    line = new_line()
    assert line.state(0) == ("connecting", "")
    line.ended, line.waiting = Ended("connection lost"), True
    assert line.state(0) == ("backoff", "connection lost")
    line.ended = Ended("refused to connect to x: private", refused=True)
    assert line.state(0) == ("refused", "refused to connect to x: private")


async def test_line_that_brings_only_trades_of_no_use_is_not_live() -> None:
    line = new_line()
    protocol = FeedProtocol(feed_spec(), ["BTC-USD"], uuid=lambda: "")
    line.connection = FeedConnection(protocol, network=LOOPBACK, sink=Record(), ask_token=no_token)
    line.connection.open = True
    assert line.state(SECOND_NS) == ("connecting", "waiting for the first trade")
    assert protocol.receive(trade("BTC-USD", "1.5"), SECOND_NS, SECOND_NS)
    assert line.state(SECOND_NS) == ("quiet", "no trade of use so far: all of them old, or refused")
    protocol.harvested(SECOND_NS)
    assert line.state(SECOND_NS) == ("live", "")
    assert line.state(SECOND_NS + QUIET_AFTER_NS + 1)[0] == "quiet"
