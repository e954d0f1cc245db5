from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection

from exchanges.feed.spec import Listing
from exchanges.feed.status import decode_status
from exchanges.simulator.faults import QuietSymbols
from exchanges.simulator.server import Simulator
from pricing._board import MAX_EXCHANGES
from pricing.health import readiness
from pricing.parameters import Parameters
from telemetry._counters import FEED_RECONNECTS, FEED_TICKS
from tests.exchanges.feed.exchange import ScriptedExchange, trade
from tests.exchanges.feed.node import SIX, FeedNode, shipped_listings, shipped_spec
from tests.exchanges.rows import feed_spec, listing


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(rate=40) as served:
        yield served


async def test_prices_of_all_six_reach_the_board(simulator: Simulator) -> None:
    async with FeedNode(simulator, names=SIX) as node:
        await node.until_live(*SIX)
        for name in SIX:
            price = node.price(name)
            assert price is not None
            assert (price.source, price.quote) == (f"{name}-ws-sim", node.feeds[name].quote_currency)
            assert 0 <= price.received_ns - price.traded_ns < 10**9
        assert node.board.home("BTC") == "coinbase"
        await node.until(lambda: all(node.status(name).state == "live" for name in SIX))


async def test_price_keeps_the_digits_of_the_exchange(simulator: Simulator) -> None:
    async with FeedNode(simulator, names=["gemini"]) as node:
        await node.until_live("gemini")
        price = node.price("gemini")
        assert price is not None
        assert len(price.price.split(".")[1]) == 5, "Gemini writes five digits behind the point"


async def test_status_and_counters_are_written(simulator: Simulator) -> None:
    async with FeedNode(simulator, names=["okx"]) as node:
        await node.until(lambda: node.status("okx").live == 3)
        status = node.status("okx")
        assert (status.state, status.connections, status.symbols) == ("live", 1, 3)
        assert status.frames >= status.ticks > 0
        assert (status.reconnects, status.refused_symbols) == (0, {})
        beat_ns = node.board.heartbeat_mono_ns
        await node.until(lambda: node.board.heartbeat_mono_ns > beat_ns)
    assert node.counters[FEED_TICKS] > 0
    assert node.counters[FEED_RECONNECTS] == 0


async def test_unchanged_tables_are_not_loaded_again(simulator: Simulator) -> None:
    async with FeedNode(simulator, names=["okx"]) as node:
        await node.until_live("okx")
        await asyncio.sleep(0.2)
        assert node.loads == 1


async def test_dead_database_changes_nothing_and_recovers(simulator: Simulator) -> None:
    class Flaky(FeedNode):
        dead = False

        async def revision(self) -> int:
            if self.dead:
                raise OSError("the database is away")
            return await super().revision()

    async with Flaky(simulator, names=["okx"]) as node:
        await node.until_live("okx")
        node.dead = True
        await node.until_fresh("okx")
        node.feeds["kraken"] = shipped_spec("kraken")
        node.listings += shipped_listings("kraken")
        node.publish()
        node.dead = False
        await node.until_live("okx", "kraken")


async def test_new_exchange_goes_live_and_touches_no_other(simulator: Simulator) -> None:
    async with FeedNode(simulator, names=["okx", "bybit"]) as node:
        await node.until_live("okx", "bybit")
        node.feeds["kraken"] = shipped_spec("kraken")
        node.listings += shipped_listings("kraken")
        node.publish()
        assert await node.until(lambda: node.price("kraken") is not None) < 2
        assert simulator.counts("okx")["handshakes"] == simulator.counts("bybit")["handshakes"] == 1


async def test_disabled_exchange_is_closed_and_its_prices_vanish(simulator: Simulator) -> None:
    async with FeedNode(simulator, names=["okx", "bybit"]) as node:
        await node.until_live("okx", "bybit")
        node.change("okx", enabled=False)
        assert await node.until(lambda: node.price("okx") is None) < 2
        await simulator.until(lambda: simulator.connections("okx") == 0)
        await node.until(lambda: node.status("okx").state == "disabled")
        await node.until_fresh("bybit")
        assert node.price("okx") is None, "a late trade brought it back"
        node.change("okx", enabled=True)
        await node.until_live("okx")
        assert simulator.counts("bybit")["handshakes"] == 1


async def test_deleted_exchange_is_closed_and_gone(simulator: Simulator) -> None:
    async with FeedNode(simulator, names=["okx", "bybit"]) as node:
        await node.until_live("okx", "bybit")
        del node.feeds["okx"]
        node.publish()
        await node.until(lambda: node.price("okx") is None)
        await node.until(lambda: "okx" not in (decode_status(node.board.status()) or node).feeds)


async def test_changed_row_restarts_only_its_own_feed_and_keeps_its_prices(simulator: Simulator) -> None:
    async with FeedNode(simulator, names=["okx", "bybit"]) as node:
        await node.until_live("okx", "bybit")
        node.change("okx", ping_interval_s=7)
        await simulator.until(lambda: simulator.counts("okx")["handshakes"] == 2)
        assert node.price("okx") is not None
        await node.until_fresh("okx")
        await simulator.until(lambda: simulator.connections("okx") == 1)
        assert simulator.counts("bybit")["handshakes"] == 1


async def test_changed_display_name_restarts_nothing(simulator: Simulator) -> None:
    async with FeedNode(simulator, names=["okx"]) as node:
        await node.until_live("okx")
        node.change("okx", display_name="OKX!")
        await node.until(lambda: node.loads == 2)
        await node.until_fresh("okx")
        assert simulator.counts("okx")["handshakes"] == 1


async def test_new_symbol_is_subscribed_on_the_live_connection(simulator: Simulator) -> None:
    async with FeedNode(simulator, names=["okx"]) as node:
        await node.until_live("okx")
        connection = next(iter(node.manager.feeds["okx"].lines)).connection
        node.listings += shipped_listings("okx", ["DOGE"])
        node.publish()
        assert await node.until(lambda: node.price("okx", "DOGE") is not None) < 2
        assert next(iter(node.manager.feeds["okx"].lines)).connection is connection
        assert simulator.counts("okx")["handshakes"] == 1


async def test_symbol_that_is_not_shown_is_live_all_the_same(simulator: Simulator) -> None:
    node = FeedNode(simulator, names=["okx"])
    node.listings = [msgspec.structs.replace(row, enabled=False) for row in node.listings]
    async with node:
        await node.until_live("okx")


@pytest.mark.parametrize("change", [{"prewarm": False}, None])
async def test_removed_symbol_vanishes_and_stays_away(
    change: dict[str, bool] | None, simulator: Simulator
) -> None:
    async with FeedNode(simulator, names=["okx"]) as node:
        await node.until_live("okx")
        btc = next(row for row in node.listings if row.asset == "BTC")
        node.listings.remove(btc)
        if change is not None:
            node.listings.append(msgspec.structs.replace(btc, **change))
        node.publish()
        assert await node.until(lambda: node.price("okx") is None) < 2
        await node.until_fresh("okx", asset="ETH")
        assert node.price("okx") is None
        assert node.status("okx").symbols == 2
        assert simulator.counts("okx")["handshakes"] == 1


async def test_symbol_that_now_means_another_asset_moves(simulator: Simulator) -> None:
    async with FeedNode(simulator, names=["okx"]) as node:
        await node.until_live("okx")
        node.listings = [
            msgspec.structs.replace(row, asset="XBT") if row.asset == "BTC" else row for row in node.listings
        ]
        node.publish()
        await node.until(lambda: node.price("okx", "XBT") is not None)
        assert node.price("okx", "BTC") is None


async def test_home_follows_the_tables(simulator: Simulator) -> None:
    async with FeedNode(simulator, names=["okx", "bybit"]) as node:
        await node.until_live("okx", "bybit")
        assert node.board.home("BTC") is None

        def home(name: str) -> list[Listing]:
            return [msgspec.structs.replace(row, home=row.exchange == name) for row in node.listings]

        node.listings = home("okx")
        node.publish()
        await node.until(lambda: node.board.home("BTC") == "okx")
        node.listings = home("bybit")
        node.publish()
        await node.until(lambda: node.board.home("BTC") == "bybit")
        node.listings = home("nobody")
        node.publish()
        await node.until(lambda: node.board.home("BTC") is None)


async def test_prices_left_by_an_earlier_writer_are_removed_where_unlisted(
    simulator: Simulator,
) -> None:
    node = FeedNode(simulator, names=["okx"])
    node.board.set_exchange("okx", source="okx-ws-sim", quote="USDT")
    node.board.set_exchange("gone", source="gone-ws", quote="USDT")
    node.listings = [
        msgspec.structs.replace(row, prewarm=False) if row.asset == "SOL" else row for row in node.listings
    ]
    left = [("SOL", "okx"), ("BTC", "okx"), ("DELETED", "okx"), ("BTC", "gone")]
    for asset, exchange in left:
        slot = node.board.place(asset, exchange)
        node.board.write(slot, "1.5", time.time_ns(), time.time_ns(), time.monotonic_ns())
        node.board.set_home(asset, exchange)
    async with node:
        await node.until(lambda: node.price("okx", "SOL") is None)
        kept = [(asset, exchange) for asset, exchange in left if node.price(exchange, asset)]
        assert kept == [("BTC", "okx")]
        await node.until(lambda: not any(node.board.home(asset) for asset, _ in left))


async def test_symbols_are_spread_over_connections(simulator: Simulator) -> None:
    node = FeedNode(simulator, names=["okx"])
    node.feeds["okx"] = shipped_spec("okx", symbols_per_connection=2)
    async with node:
        await node.until_live("okx")
        assert simulator.connections("okx") == 2
        await node.until(lambda: node.status("okx").connections == 2)
        first = next(iter(node.manager.feeds["okx"].lines)).connection
        node.listings += shipped_listings("okx", ["DOGE", "XRP"])
        node.publish()
        await node.until_live("okx")
        assert simulator.connections("okx") == 3, "one had room for one more"
        node.listings = node.listings[:1]
        node.publish()
        await simulator.until(lambda: simulator.connections("okx") == 1)
        assert next(iter(node.manager.feeds["okx"].lines)).connection is first


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("bybit", "NOPEUSDT"), ("gemini", "nopeusd"), ("kraken", "NOPE/USD"), ("okx", "NOPE-USDT")],
)
async def test_refused_symbol_is_shown_and_the_others_flow(
    name: str, symbol: str, simulator: Simulator
) -> None:
    node = FeedNode(simulator, names=[name])
    node.listings.append(Listing(asset="NOPE", exchange=name, symbol=symbol))
    async with node:
        await node.until(lambda: node.price(name) is not None)
        await node.until(lambda: symbol in node.status(name).refused_symbols)
        assert node.status(name).refused_symbols[symbol]
        await node.until(lambda: node.status(name).state == "live")
        assert simulator.counts(name)["handshakes"] == 1


async def test_unusable_row_is_shown_and_the_others_run(simulator: Simulator) -> None:
    node = FeedNode(simulator, names=["okx"])
    node.invalid["broken"] = "price_path: is not a path"
    async with node:
        await node.until_live("okx")
        await node.until(lambda: node.status("broken").state == "refused")
        assert node.status("broken").detail == "price_path: is not a path"


async def test_forbidden_address_is_shown_and_the_others_run(simulator: Simulator) -> None:
    node = FeedNode(simulator, names=["okx"])
    other = FeedNode(names=["kraken"])
    other.feeds["kraken"] = msgspec.structs.replace(other.feeds["kraken"], ws_url="wss://169.254.169.254/")
    async with node, other:
        await other.until(lambda: other.status("kraken").state == "refused")
        assert "link-local" in other.status("kraken").detail


async def test_full_board_is_shown_and_the_rest_runs(simulator: Simulator) -> None:
    node = FeedNode(simulator, names=["okx", "bybit"], slots=64)
    more = [Listing(asset=f"A{number}", exchange="okx", symbol=f"A{number}-USDT") for number in range(100)]
    node.listings += more
    async with node:
        await node.until(lambda: node.price("okx") is not None)
        await node.until(lambda: bool(node.status("okx").refused_symbols))
        assert "A99-USDT" in node.status("okx").refused_symbols


async def test_exchange_without_a_row_on_the_board_is_shown_and_the_others_run(simulator: Simulator) -> None:
    node = FeedNode(simulator, names=["okx", "bybit"])
    more = [f"exchange{number}" for number in range(MAX_EXCHANGES - 1)]
    for name in more:
        node.feeds[name] = msgspec.structs.replace(
            node.feeds["okx"], name=name, ws_url="ws://127.0.0.1:9/", rest_url=""
        )
    node.feeds |= {"bybit": node.feeds.pop("bybit")}  # the last one of 65
    node.listings += [Listing(asset="BTC", exchange=name, symbol="BTC-USDT") for name in more]
    node.listings = [msgspec.structs.replace(row, home=row.exchange == "bybit") for row in node.listings]
    async with node:
        await node.until(lambda: node.price("okx") is not None)
        await node.until(lambda: node.status("bybit").state == "refused")
        assert "the board is full" in node.status("bybit").detail
        assert node.board.home("BTC") is None
        assert node.loads == 1, "what could be taken over was"
        del node.feeds[more[0]]
        node.publish()
        await node.until(lambda: node.price("bybit") is not None and node.board.home("BTC") == "bybit")
        assert simulator.counts("okx")["handshakes"] == 1


async def test_exchange_that_sends_only_old_trades_is_not_fresh_and_is_hung_up_on() -> None:
    """Its prices arrive now, and are hours old: what counts is when they were traded."""
    hour_ms, now_ms = 3_600_000, time.time_ns() // 10**6

    async def old_trades(socket: ServerConnection) -> None:
        for number in itertools.count():
            text = trade("BTC-USD", "1.5", trade_id=1, ms=now_ms - 2 * hour_ms)
            await socket.send(text if number else trade("BTC-USD", "1.5", trade_id=0, ms=now_ms - hour_ms))
            await asyncio.sleep(0.05)

    async with ScriptedExchange(old_trades) as served:
        node = FeedNode()
        node.feeds["plain"] = feed_spec(ws_url=served.url, quirks={"silence_limit_s": 1})
        node.listings = [listing("BTC")]
        async with node:
            await node.until(lambda: node.price("plain") is not None)
            mono_ns = time.monotonic_ns()
            gate = SimpleNamespace(heartbeat_mono_ns=mono_ns, month=lambda mono_ns: 202611)
            ready, document = readiness(node.board, gate, ["plain"], Parameters(), mono_ns)
            assert not ready
            assert 3_600_000 <= document["exchanges"][0]["age_ms"] < 3_610_000  # type: ignore[index]
            await node.until(lambda: node.status("plain").detail == "no trade for 1 s")
            await node.until(lambda: node.status("plain").reconnects >= 2)
            assert node.status("plain").state != "live"


async def test_exchange_that_runs_an_hour_behind_is_never_live(simulator: Simulator) -> None:
    """Each trade is newer than the one before: a replay, or a queue that never empties."""
    seen = set()

    async def an_hour_behind(socket: ServerConnection) -> None:
        for number in itertools.count():
            hour_ago_ms = time.time_ns() // 10**6 - 3_600_000
            await socket.send(trade("BTC-USD", "83000", trade_id=number, ms=hour_ago_ms))
            await asyncio.sleep(0.05)

    async with ScriptedExchange(an_hour_behind) as served:
        node = FeedNode(simulator, names=["okx", "bybit"])
        node.feeds["plain"] = feed_spec(ws_url=served.url, quirks={"silence_limit_s": 2})
        node.listings.append(listing("BTC"))

        def is_dialled_again() -> bool:
            seen.add(node.status("plain").state)
            return node.status("plain").reconnects >= 1

        async with node:
            await node.until_live("okx", "bybit")
            await node.until(lambda: node.price("plain") is not None, what="shown, with its age")
            await node.until(lambda: node.status("plain").stuck_assets == ["BTC"])
            await node.until(is_dialled_again)
            assert "quiet" in seen
            assert "live" not in seen
            assert node.status("plain").refusals == {}


async def test_asset_that_trades_elsewhere_but_not_here_is_stuck(simulator: Simulator) -> None:
    async with FeedNode(simulator, names=["okx", "bybit", "kraken"]) as node:
        await node.until_live("okx", "bybit", "kraken")
        await simulator.fault("okx", QuietSymbols(symbols=("BTC-USDT",)))
        await node.until(lambda: node.status("okx").stuck_assets == ["BTC"])
        assert node.status("bybit").stuck_assets == node.status("kraken").stuck_assets == []
        await simulator.clear("okx")
        await node.until(lambda: node.status("okx").stuck_assets == [])


async def test_asset_that_trades_nowhere_is_not_stuck(simulator: Simulator) -> None:
    async with FeedNode(simulator, names=["okx", "bybit", "kraken"]) as node:
        await node.until_live("okx", "bybit", "kraken")
        for name, symbol in (("okx", "BTC-USDT"), ("bybit", "BTCUSDT"), ("kraken", "BTC/USD")):
            await simulator.fault(name, QuietSymbols(symbols=(symbol,)))
        await asyncio.sleep(0.8)
        liveness = {"stuck_after_ns": 5 * 10**8, "peer_fresh_ns": 3 * 10**8}
        stuck = node.manager.feeds["okx"].intake.stuck_assets(time.monotonic_ns(), **liveness)
        assert stuck == []


# Stopping


async def test_stop_event_closes_every_connection_and_keeps_the_prices(simulator: Simulator) -> None:
    before = asyncio.all_tasks()
    async with FeedNode(simulator, names=SIX) as node:
        await node.until_live(*SIX)
    await simulator.until(lambda: all(simulator.connections(name) == 0 for name in SIX))
    assert node.price("okx") is not None
    assert asyncio.all_tasks() == before


async def test_cancellation_closes_every_connection(simulator: Simulator) -> None:
    before = asyncio.all_tasks()
    node = FeedNode(simulator, names=SIX)
    task = asyncio.create_task(node.manager.run(node.stop))
    await node.until_live(*SIX)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await simulator.until(lambda: all(simulator.connections(name) == 0 for name in SIX))
    assert asyncio.all_tasks() == before


async def test_stopping_while_everything_is_down_is_quick() -> None:
    node = FeedNode(names=["okx"])
    node.feeds["okx"] = msgspec.structs.replace(node.feeds["okx"], ws_url="ws://127.0.0.1:9/")
    async with node:
        await node.until(lambda: node.status("okx").reconnects > 0)
        began = time.monotonic()
    assert time.monotonic() - began < 0.5
