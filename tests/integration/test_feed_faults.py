"""Each fault of the simulator against the real manager: what protects, the neighbour's peace, and recovery.

OKX is the one that fails, Bybit its neighbour. Every test ends the fault and sees a fresh price within 5 s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from exchanges.feed.line import Redialling
from exchanges.feed.status import FeedStatus
from exchanges.rest import RestClient
from exchanges.simulator import faults as f
from exchanges.simulator.server import Simulator
from pricing.exceptions import FallbackError
from tests.exchanges.feed.node import LOOPBACK, QUICK, FeedNode, shipped_listings, shipped_spec

pytestmark = pytest.mark.quiet

RECOVERY_S = 5.0
RATE = 60
VICTIM, NEIGHBOUR = "okx", "bybit"
SILENCE_S = 1.0


class Drill:
    """A victim and its neighbour, both live."""

    def __init__(self, simulator: Simulator, node: FeedNode) -> None:
        self.simulator = simulator
        self.node = node

    @property
    def status(self) -> FeedStatus:
        return self.node.status(VICTIM)

    @property
    def reconnects(self) -> int:
        return self.node.manager.feeds[VICTIM].reconnects

    @property
    def reason(self) -> str:
        """Why the victim's last connection ended."""
        ended = next(iter(self.node.manager.feeds[VICTIM].lines)).ended
        return ended.reason if ended else ""

    @property
    def refusals(self) -> dict[str, int]:
        return dict(self.node.manager.feeds[VICTIM].intake.refusals)

    async def strike(self, fault: f.Fault, *, name: str = VICTIM) -> None:
        await self.simulator.fault(name, fault)

    async def until(self, condition: Callable[[], bool], *, timeout_s: float = 5.0, what: str = "") -> float:
        return await self.node.until(condition, timeout_s=timeout_s, what=what)

    async def recovers(self) -> None:
        """End the fault and wait for a new price; the neighbour must have been trading all along."""
        neighbour_ns = self.node.received_ns(NEIGHBOUR)
        assert time.monotonic_ns() - neighbour_ns < 2 * 10**9, "the neighbour suffers"
        assert self.node.manager.feeds[NEIGHBOUR].reconnects == 0
        await self.simulator.clear()
        took_s = await self.node.until_fresh(VICTIM, timeout_s=RECOVERY_S)
        assert took_s <= RECOVERY_S

    def assert_sane(self) -> None:
        """The victim's price on the board is one that the market has, not what the fault made of it."""
        mine, other = self.node.price(VICTIM), self.node.price(NEIGHBOUR)
        assert mine is not None
        assert other is not None
        assert abs(Decimal(mine.price) / Decimal(other.price) - 1) < Decimal("0.05")
        assert abs(mine.traded_ns - time.time_ns()) < 60 * 10**9


@asynccontextmanager
async def drill(
    victim: str = VICTIM, *, redialling: Redialling | None = None, silence_s: float = SILENCE_S
) -> AsyncIterator[Drill]:
    rhythm = QUICK if redialling is None else type(QUICK)(poll_s=0.05, beat_s=0.05, redialling=redialling)
    async with Simulator(rate=RATE) as simulator:
        node = FeedNode(simulator, names=[victim, NEIGHBOUR], rhythm=rhythm)
        node.feeds[victim] = shipped_spec(victim, silence_limit_s=silence_s)
        async with node:
            await node.until_live(victim, NEIGHBOUR)
            yield Drill(simulator, node)


# The line


async def test_silence_with_pongs_is_ended_by_the_limit_of_the_row() -> None:
    async with drill() as run:
        await run.strike(f.Silence(pongs=True))
        took_s = await run.until(lambda: run.reconnects > 0)
        assert took_s < SILENCE_S + 1
        assert run.reason == "no trade for 1 s"
        await run.recovers()


async def test_silence_without_pongs_is_found_by_the_keepalive() -> None:
    async with drill(silence_s=60) as run:
        await run.strike(f.Silence(pongs=False))
        took_s = await run.until(lambda: run.reconnects > 0)
        assert "keepalive ping timeout" in run.reason
        assert took_s < 2 * (LOOPBACK.ping_interval_s + LOOPBACK.ping_timeout_s + LOOPBACK.close_timeout_s)
        await run.recovers()


async def test_price_of_a_silent_exchange_ages_honestly() -> None:
    async with drill(silence_s=30) as run:
        await run.strike(f.Silence(pongs=True))
        await asyncio.sleep(0.2)
        price = run.node.price(VICTIM)
        assert price is not None
        await asyncio.sleep(1.5)
        later = run.node.price(VICTIM)
        assert later is not None
        assert later.received_mono_ns == price.received_mono_ns
        assert later.age_ns(time.monotonic_ns()) >= 1.5e9
        await run.recovers()


@pytest.mark.parametrize("code", [0, 1000, 1001, 1012, 4000])
async def test_disconnect_is_followed_by_a_new_connection(code: int) -> None:
    async with drill() as run:
        await run.strike(f.Disconnect(code=code))
        await run.until(lambda: run.reconnects == 1)
        await run.recovers()


@pytest.mark.parametrize("code", [0, 1013])
async def test_accept_then_close_is_not_redialled_without_end(code: int) -> None:
    """A handshake proves nothing: only trades that flow for a while start the delays over."""
    async with drill(redialling=Redialling(first_s=0.1, quick_cap_s=0.8)) as run:
        before = run.simulator.counts(VICTIM)["handshakes"]
        await run.strike(f.AcceptThenClose(code=code))
        await run.strike(f.Disconnect())
        await asyncio.sleep(2.5)
        attempts = run.simulator.counts(VICTIM)["handshakes"] - before
        assert 2 <= attempts <= 20
        await run.recovers()


@pytest.mark.parametrize("status", [429, 503])
async def test_refused_handshake_is_shown_and_tried_again(status: int) -> None:
    async with drill() as run:
        await run.strike(f.RefuseHandshake(status=status))
        await run.strike(f.Disconnect())
        await run.until(lambda: run.status.detail == f"handshake refused: HTTP {status}")
        await run.recovers()


async def test_slow_handshake_is_given_up() -> None:
    async with drill() as run:
        await run.strike(f.SlowHandshake(seconds=30))
        await run.strike(f.Disconnect())
        await run.until(lambda: run.status.detail == "timed out while connecting")
        await run.recovers()


@pytest.mark.parametrize("url", ["wss://169.254.169.254/", "ws://10.0.0.1/", "http://127.0.0.1:6379/"])
async def test_redirect_to_a_forbidden_address_is_refused(url: str) -> None:
    async with drill() as run:
        await run.strike(f.Redirect(url=url))
        await run.strike(f.Disconnect())
        await run.until(lambda: run.status.state == "refused")
        assert "refused to connect to" in run.status.detail
        await run.recovers()


async def test_slow_drip_is_ended() -> None:
    async with drill() as run:
        await run.strike(f.SlowDrip(bytes_per_s=20))
        await run.until(lambda: run.reconnects > 0)
        await run.recovers()


async def test_maintenance_notice_is_followed_by_a_new_connection() -> None:
    async with drill() as run:
        await run.strike(f.Maintenance())
        await run.until(lambda: run.status.detail == "the exchange asked to reconnect", timeout_s=2)
        await run.until(lambda: run.reconnects == 1)
        await run.simulator.clear()
        await run.node.until_fresh(VICTIM, timeout_s=RECOVERY_S + 2)  # it is left alone for 5 s


async def test_maintenance_state_pauses_without_hanging_up() -> None:
    async with drill("kraken", silence_s=1) as run:
        await run.strike(f.Maintenance(), name="kraken")
        await run.until(lambda: run.node.status("kraken").state == "paused")
        await asyncio.sleep(1.5)
        assert run.node.manager.feeds["kraken"].reconnects == 0
        await run.simulator.clear()
        await run.node.until_fresh("kraken", timeout_s=RECOVERY_S)


async def test_exchange_that_was_away_for_longer_than_patience_is_back_within_5_s() -> None:
    """The long delays have begun; a bare TCP connection tells that the host is back."""
    slow = Redialling(quick_for_s=0.0, probe_s=0.3)
    async with Simulator(rate=RATE) as first:
        port = int(first.url.rsplit(":", 1)[1])
        delays = iter([0.0])
        node = FeedNode(
            first,
            names=[VICTIM],
            rhythm=type(QUICK)(poll_s=0.05, redialling=slow),
            uniform=lambda low, high: next(delays, 60.0),
        )
        async with node:
            await node.until_live(VICTIM)
            await first.fault(VICTIM, f.Disconnect())
            first._server.close()
            await node.until(lambda: node.manager.feeds[VICTIM].reconnects == 2)
            await asyncio.sleep(1)
            async with Simulator(rate=RATE, port=port):
                await node.until_fresh(VICTIM, timeout_s=RECOVERY_S)
                assert node.manager.feeds[VICTIM].reconnects == 2


@pytest.mark.parametrize("fault", [f.AcceptThenClose(), f.RefuseHandshake(), f.Silence(pongs=False)])
async def test_recovery_within_5_s_with_the_shipped_delays(fault: f.Fault) -> None:
    async with drill(redialling=Redialling()) as run:
        await run.strike(fault)
        await run.strike(f.Disconnect())
        await asyncio.sleep(4)
        await run.recovers()


# Symbols


async def test_refused_symbol_does_not_take_the_others_down() -> None:
    async with drill() as run:
        await run.strike(f.RefusedSymbol(symbols=("BTC-USDT",)))
        await run.strike(f.Disconnect())
        await run.until(lambda: "BTC-USDT" in run.status.refused_symbols)
        await run.node.until_fresh(VICTIM, asset="ETH")
        await run.until(lambda: run.status.state == "live")


async def test_trades_of_unknown_symbols_are_ignored() -> None:
    async with drill() as run:
        await run.strike(f.UnknownSymbols(symbols=("EVIL-USDT",)))
        await run.node.until_fresh(VICTIM)
        line = next(iter(run.node.manager.feeds[VICTIM].lines))
        assert line.connection is not None
        protocol = line.connection.protocol
        await run.until(lambda: protocol.counts["unknown_symbol"] > 0)
        assert run.node.manager.assets() == {"BTC", "ETH", "SOL"}
        await run.recovers()


async def test_data_does_not_wait_for_an_acknowledgement() -> None:
    async with drill() as run:
        await run.strike(f.LateAck())
        await run.strike(f.Disconnect())
        await run.until(lambda: run.reconnects == 1)
        await run.node.until_fresh(VICTIM)
        await run.recovers()


# Trades


@pytest.mark.parametrize(
    ("fault", "reasons"),
    [
        (f.WrongUnit(shift=-3), {"implausible_time", "older", "bad_time"}),
        (f.WrongUnit(shift=3), {"implausible_time", "future", "bad_time"}),
        (f.WrongUnit(shift=6), {"implausible_time", "future", "bad_time"}),
        (f.OldTrades(), {"older"}),
        (f.FutureTimes(), {"future"}),
        (f.OutOfOrder(), {"older"}),
        (f.Duplicates(), {"repeat"}),
        (f.AbsurdPrice(price="x1000", symbols=("BTC-USDT",), count=1), {"jump_held"}),
        (f.AbsurdPrice(price="/1000", symbols=("BTC-USDT",), count=1), {"jump_held"}),
        (f.AbsurdPrice(price="x1000", symbols=("BTC-USDT",), count=1, fills=5), {"jump_held"}),
        (f.Wick(symbols=("BTC-USDT",)), {"jump_held"}),
        (f.Wick(symbols=("BTC-USDT",), fills=5), {"jump_held"}),
        (f.AbsurdPrice(price="0"), {"bad_price"}),
        (f.AbsurdPrice(price="-1"), {"bad_price"}),
        (f.AbsurdPrice(price="NaN"), {"bad_price"}),
        (f.AbsurdPrice(price="1e400"), {"bad_price"}),
        (f.Garbage(), {"bad_json"}),
        (f.Truncated(), {"bad_json"}),
        (f.Truncated(closed=True), {"bad_time", "implausible_time", "bad_json", "no_symbol"}),
    ],
)
async def test_wrong_trade_does_not_reach_the_board(fault: f.Fault, reasons: set[str]) -> None:
    async with drill(silence_s=30) as run:
        before = sum(run.refusals.get(reason, 0) for reason in reasons)
        await run.strike(fault)
        await run.until(lambda: sum(run.refusals.get(reason, 0) for reason in reasons) > before)
        for _ in range(20):
            run.assert_sane()
            await asyncio.sleep(0.02)
        assert reasons & {
            refused.reason for refused in run.node.manager.feeds[VICTIM].intake.recent_refusals()
        }
        await run.recovers()
        run.assert_sane()
        assert run.reconnects == 0, "a wrong trade is no reason to hang up"


async def test_older_trade_never_replaces_a_newer_one() -> None:
    async with drill() as run:
        await run.strike(f.OutOfOrder())
        newest = 0
        for _ in range(100):
            price = run.node.price(VICTIM)
            assert price is not None
            assert price.traded_ns >= newest
            newest = price.traded_ns
            await asyncio.sleep(0.005)
        assert run.refusals["older"] > 0


async def test_real_crash_gets_through() -> None:
    async with drill() as run:
        before = run.node.price(VICTIM)
        assert before is not None
        await run.strike(f.Crash(factor=0.5), name="all")
        limit = Decimal(before.price) * Decimal("0.6")

        def is_through(name: str) -> bool:
            price = run.node.price(name)
            return price is not None and Decimal(price.price) < limit

        await run.until(lambda: is_through(VICTIM) and is_through(NEIGHBOUR), timeout_s=3)


# Frames


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (f.Oversized(), "frame with 8388608 bytes exceeds limit"),
        (f.EndlessFragments(), "exceeds limit"),
        (f.DeflateBomb(), "reserved bits must be 0"),
        (f.BadUtf8(), "bad UTF-8"),
    ],
)
async def test_hostile_frame_ends_the_connection(
    fault: f.Fault, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "exchanges.feed.line")
    async with drill() as run:
        await run.strike(fault)
        await run.until(lambda: run.reconnects > 0)
        assert reason in run.reason
        run.assert_sane()
        await run.recovers()


async def test_flood_of_tiny_frames_lets_the_neighbour_trade() -> None:
    async with drill(silence_s=30) as run:
        line = next(iter(run.node.manager.feeds[VICTIM].lines))
        frames = line.frames
        await run.strike(f.TinyFrames(frames=20_000))
        await run.until(lambda: line.frames > frames + 20_000)
        await run.node.until_fresh(NEIGHBOUR, timeout_s=1)
        await run.recovers()


# REST


@pytest.mark.parametrize("mode", ["error-body", "500", "429", "slow", "oversized", "garbage"])
async def test_spoilt_rest_answer_is_a_reason_and_recovers(mode: str) -> None:
    async with Simulator(rate=RATE) as simulator:
        client = RestClient(allow_loopback=True, timeout_s=0.5)
        names = ("coinbase", "gemini", "kraken", "gateio", "bybit", "okx")
        client.follow(
            [shipped_spec(name).simulated(simulator.url) for name in names],
            [row for name in names for row in shipped_listings(name)],
        )
        await simulator.fault("all", f.RestFault(mode=mode))  # type: ignore[arg-type]  # one of its literals
        for name in names:
            with pytest.raises(FallbackError):
                await client.latest("BTC", name)
        await simulator.clear()
        for name in names:
            price = await client.latest("BTC", name)
            assert price is not None
            assert price.source == f"{name}-rest-sim"
        await client.aclose()
