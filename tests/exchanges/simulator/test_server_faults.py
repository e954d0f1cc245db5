"""Every fault over real sockets: what a client sees, that others see nothing of it, that it ends."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from exchanges.simulator import faults as f
from exchanges.simulator.dialects import DIALECTS
from exchanges.simulator.exchange import UnknownAnnouncement
from exchanges.simulator.server import Simulator
from tests.exchanges.simulator.client import FAST, frames_until, http, quiet, raw_http, subscribed

TRADE = '"px"'


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(rate=FAST) as simulator:
        yield simulator


PONGS = {"okx": "pong", "bybit": '"pong"', "kraken": '"pong"', "gemini": '"id":"ping"'}


async def drain(client: ClientConnection, name: str = "okx") -> None:
    """Read what was sent before now: the answer to a ping comes after all of it."""
    await client.send(DIALECTS[name].client_ping(0))
    await frames_until(client, PONGS[name])


async def drain_what_comes(client: ClientConnection) -> None:
    """Read for a moment, where nothing would answer a ping."""
    await quiet(client, seconds=0.2)


def rows(frames: list[str]) -> list[dict[str, str]]:
    """Return the trades in OKX's frames."""
    return [row for frame in frames if TRADE in frame for row in json.loads(frame)["data"]]


async def closing(client: ClientConnection, *, seconds: float = 5.0) -> int | None:
    """Read until the connection ends and return its close code as the client saw it."""
    with pytest.raises(ConnectionClosed):
        async with asyncio.timeout(seconds):
            while True:
                await client.recv()
    return client.close_code


# Connecting.


@pytest.mark.parametrize("status", [429, 503])
async def test_refused_handshake(sim: Simulator, status: int) -> None:
    await sim.fault("okx", f.RefuseHandshake(status=status, count=1))
    with pytest.raises(InvalidStatus) as refused:
        await connect(sim.ws_url("okx"), proxy=None)
    assert refused.value.response.status_code == status
    async with connect(sim.ws_url("okx"), proxy=None):
        assert sim.exchange("okx").faults == [], "a counted fault ends by itself"


async def test_redirect_is_followed_to_where_it_points(sim: Simulator) -> None:
    await sim.fault("okx", f.Redirect(url=sim.ws_url("kraken")))
    async with connect(sim.ws_url("okx"), proxy=None) as client:
        assert '"channel":"status"' in str(await client.recv())
    assert (sim.counts("okx")["handshakes"], sim.counts("okx").get("accepted")) == (1, None)


async def test_slow_handshake_keeps_the_client_waiting(sim: Simulator) -> None:
    await sim.fault("okx", f.SlowHandshake(seconds=0.2))
    began = time.monotonic()
    async with connect(sim.ws_url("okx"), proxy=None):
        assert time.monotonic() - began >= 0.2
    with pytest.raises(TimeoutError):
        await sim.fault("okx", f.SlowHandshake(seconds=60))
        await connect(sim.ws_url("okx"), proxy=None, open_timeout=0.2)


@pytest.mark.parametrize(("code", "seen"), [(1013, 1013), (1008, 1008), (0, 1006)])
async def test_accept_then_close(sim: Simulator, code: int, seen: int) -> None:
    await sim.fault("okx", f.AcceptThenClose(code=code))
    for _ in range(2):
        # Cut at once, the client may see its handshake fail instead.
        with contextlib.suppress(InvalidHandshake, ConnectionResetError):
            async with connect(sim.ws_url("okx"), proxy=None) as client:
                assert await closing(client) == seen
    assert sim.counts("okx")["accepted"] == 2
    assert sim.connections("okx") == 0


# Living.


async def test_silence_with_pongs_answers_pings_and_trades_nothing(sim: Simulator) -> None:
    async with subscribed(sim, "okx") as client, subscribed(sim, "bybit") as other:
        await sim.fault("okx", f.Silence())
        await drain(client)
        await client.send("ping")
        await (await client.ping())
        assert await quiet(client) == ["pong"]
        await frames_until(other, '"publicTrade.')
        await sim.clear("okx")
        await frames_until(client, TRADE)


@pytest.mark.parametrize("heartbeats", [True, False])
async def test_silence_with_or_without_heartbeats(heartbeats: bool) -> None:
    now = [time.time_ns()]
    async with Simulator(clock=lambda: now[0]) as sim, subscribed(sim, "kraken") as client:
        await sim.fault("kraken", f.Silence(heartbeats=heartbeats))
        await drain(client, "kraken")
        for _ in range(5):
            now[0] += 1_100_000_000
            sim.exchange("kraken").step(now[0])
        frames = await quiet(client)
        assert set(frames) == ({'{"channel":"heartbeat"}'} if heartbeats else set())


async def test_silence_without_pongs_is_a_cut_cable(sim: Simulator) -> None:
    async with subscribed(sim, "okx") as client:
        await sim.fault("okx", f.Silence(pongs=False))
        await drain_what_comes(client)
        await client.send("ping")
        pong = asyncio.ensure_future(await client.ping())
        assert await quiet(client) == []
        assert not pong.done()
        with pytest.raises(TimeoutError):
            await connect(sim.ws_url("okx"), proxy=None, open_timeout=0.2)
        assert sim.connections("okx") == 1, "half-open: neither side was told"
        await sim.clear("okx")
        await frames_until(client, "pong")
        await asyncio.wait_for(pong, 2)


async def test_handshake_begun_during_silence_completes_after_it(sim: Simulator) -> None:
    await sim.fault("okx", f.Silence(pongs=False))
    dialling = asyncio.ensure_future(connect(sim.ws_url("okx"), proxy=None).__aenter__())
    await sim.until(lambda: bool(sim.exchange("okx").knocking))
    await sim.clear("okx")
    client = await asyncio.wait_for(dialling, 2)
    await client.close()


async def test_quiet_symbol_is_silent_while_others_flow(sim: Simulator) -> None:
    async with subscribed(sim, "okx", "BTC", "ETH") as client:
        await sim.fault("okx", f.QuietSymbols(symbols=("BTC-USDT",)))
        await drain(client)
        assert {row["instId"] for row in rows(await quiet(client))} == {"ETH-USDT"}


@pytest.mark.parametrize(("code", "seen"), [(1001, 1001), (4000, 4000), (0, 1006)])
async def test_disconnect(sim: Simulator, code: int, seen: int) -> None:
    async with subscribed(sim, "okx") as client, subscribed(sim, "bybit"):
        await sim.fault("okx", f.Disconnect(code=code, reason="test"))
        assert await closing(client) == seen
        assert (sim.connections("okx"), sim.connections("bybit")) == (0, 1)
        assert sim.exchange("okx").faults == [], "it happens once"
    async with subscribed(sim, "okx") as client:
        await frames_until(client, TRADE)


async def test_refused_symbol_is_refused_until_cleared(sim: Simulator) -> None:
    await sim.fault("okx", f.RefusedSymbol(symbols=("BTC-USDT",)))
    async with subscribed(sim, "okx", "BTC", "ETH") as client:
        assert any('"60018"' in frame for frame in await frames_until(client, TRADE))
        await sim.clear("okx", "refused-symbol")
        for frame in DIALECTS["okx"].request(["BTC-USDT"], 0):
            await client.send(frame)
        await frames_until(client, '"instId":"BTC-USDT"},"data"')


@pytest.mark.parametrize(
    ("name", "says"), [("okx", '"64008"'), ("gateio", '"upgrade"'), ("binance", '"serverShutdown"')]
)
async def test_maintenance_is_announced_and_then_closes(sim: Simulator, name: str, says: str) -> None:
    async with subscribed(sim, name) as client:
        await sim.fault(name, f.Maintenance(close_after_s=0.1))
        await frames_until(client, says)
        assert await closing(client) == 1012


async def test_kraken_maintenance_is_a_state_that_ends(sim: Simulator) -> None:
    async with subscribed(sim, "kraken") as client:
        await drain(client, "kraken")
        await sim.fault("kraken", f.Maintenance())
        await frames_until(client, '"maintenance"')
        assert not [frame for frame in await quiet(client) if '"update"' in frame]
        async with connect(sim.ws_url("kraken"), proxy=None) as late:
            await frames_until(late, '"maintenance"')
        await sim.clear("kraken")
        await frames_until(client, '"online"')
        await frames_until(client, '"trade","type":"update"')


@pytest.mark.parametrize("name", ["coinbase", "gemini", "bybit"])
async def test_exchange_without_a_maintenance_frame_says_so(sim: Simulator, name: str) -> None:
    with pytest.raises(UnknownAnnouncement, match=name):
        await sim.fault(name, f.Maintenance())
    assert sim.exchange(name).faults == []


@pytest.mark.parametrize("name", ["coinbase", "gemini", "okx"])
async def test_data_flows_although_no_ack_comes(sim: Simulator, name: str) -> None:
    mark = {"coinbase": '"subscriptions"', "gemini": '"status":200', "okx": '"event"'}[name]
    await sim.fault(name, f.LateAck())
    async with subscribed(sim, name) as client:
        frames = await quiet(client, seconds=0.4)
        assert len(frames) > 3
        assert not [frame for frame in frames if mark in frame]


async def test_late_ack_comes_after_data_and_empty_when_asked(sim: Simulator) -> None:
    await sim.fault("coinbase", f.LateAck(seconds=0.2, empty=True))
    async with subscribed(sim, "coinbase") as client:
        frames = await frames_until(client, '"subscriptions"')
        assert any('"update"' in frame for frame in frames)
        assert json.loads(frames[-1])["events"] == [{"subscriptions": {}}]


async def test_slow_drip_delivers_byte_by_byte_and_loses_nothing_when_it_ends(sim: Simulator) -> None:
    async with subscribed(sim, "okx") as client:
        await sim.fault("okx", f.SlowDrip(bytes_per_s=50))
        await drain_what_comes(client)
        await client.send("ping")
        assert len(await quiet(client, seconds=0.4)) <= 1
        await sim.clear("okx")
        frames = await frames_until(client, "pong")
        assert all(json.loads(frame) for frame in frames[:-1])


# Trades.


async def test_absurd_price_is_sent_so_often_as_counted(sim: Simulator) -> None:
    async with subscribed(sim, "okx", "BTC") as client:
        await drain(client)
        await sim.fault("okx", f.AbsurdPrice(price="x1000", count=3))
        prices = [Decimal(row["px"]) for row in rows(await quiet(client, seconds=0.5))]
        assert len([price for price in prices if price > 10_000_000]) == 3
        assert len(prices) > 3


async def test_absurd_price_of_kraken_is_a_bare_number(sim: Simulator) -> None:
    await sim.fault("kraken", f.AbsurdPrice(price="1e400"))
    async with subscribed(sim, "kraken", "BTC") as client:
        frames = await frames_until(client, '"price":1e400,')
        assert '"update"' in frames[-1]


async def test_wick_hits_one_trade_of_one_exchange(sim: Simulator) -> None:
    async with subscribed(sim, "okx", "BTC") as client, subscribed(sim, "bybit", "BTC") as other:
        await drain(client)
        await sim.fault("okx", f.Wick())
        prices = [Decimal(row["px"]) for row in rows(await quiet(client, seconds=0.4))]
        others = [Decimal(row["p"]) for t in await quiet(other) for row in json.loads(t).get("data", [])]
        assert len([price for price in prices if price < 50_000]) == 1
        assert min(others) > 80_000


async def test_crash_moves_every_exchange_for_good(sim: Simulator) -> None:
    async with subscribed(sim, "okx", "BTC") as client, subscribed(sim, "gemini", "BTC") as other:
        await sim.fault("okx", f.Crash(factor=0.5, assets=("BTC",)))
        await drain(client)
        await drain(other, "gemini")
        prices = [Decimal(row["px"]) for row in rows(await quiet(client))]
        prices += [Decimal(json.loads(frame)["p"]) for frame in await quiet(other)]
        assert prices and all(Decimal(41_000) < price < Decimal(42_500) for price in prices)
        assert sim.exchange("okx").faults == [], "not a fault but a fact"


@pytest.mark.parametrize(
    ("fault", "low_s", "high_s"),
    [
        (f.OldTrades(age_s=3600), -3601, -3599),
        (f.FutureTimes(ahead_s=60), 58, 61),
        (f.WrongUnit(shift=3), 10**11, 10**15),
    ],
)
async def test_times_are_spoilt_as_asked(sim: Simulator, fault: f.Fault, low_s: int, high_s: int) -> None:
    async with subscribed(sim, "okx") as client:
        await sim.fault("okx", fault)
        await drain(client)
        now_ms = time.time_ns() // 1_000_000
        offsets_s = [(int(row["ts"]) - now_ms) / 1000 for row in rows(await quiet(client, seconds=0.2))]
        assert offsets_s and all(low_s <= offset <= high_s for offset in offsets_s)


async def test_duplicates_come_twice(sim: Simulator) -> None:
    async with subscribed(sim, "okx") as client:
        await sim.fault("okx", f.Duplicates())
        await drain(client)
        ids = [row["tradeId"] for row in rows(await quiet(client))]
        assert len(ids) >= 10 and ids[::2] == ids[1::2]


async def test_out_of_order_trades_are_older_than_their_forerunners(sim: Simulator) -> None:
    async with subscribed(sim, "okx") as client:
        await sim.fault("okx", f.OutOfOrder())
        await drain(client)
        times = [int(row["ts"]) for row in rows(await quiet(client))]
        assert times and all(old < new for new, old in zip(times[::2], times[1::2], strict=False))


async def test_unknown_symbols_come_beside_the_asked_ones(sim: Simulator) -> None:
    async with subscribed(sim, "okx", "BTC") as client:
        await sim.fault("okx", f.UnknownSymbols(symbols=("SPAM-USDT",)))
        await drain(client)
        assert {row["instId"] for row in rows(await quiet(client))} == {"BTC-USDT", "SPAM-USDT"}


async def test_two_trade_faults_work_together(sim: Simulator) -> None:
    async with subscribed(sim, "okx") as client:
        await sim.fault("okx", f.Duplicates())
        await sim.fault("okx", f.AbsurdPrice(price="0"))
        await drain(client)
        found = rows(await quiet(client))
        assert {row["px"] for row in found} == {"0"}
        assert found[0]["tradeId"] == found[1]["tradeId"]


# Frames.


@pytest.mark.parametrize("fault", [f.Garbage(), f.Truncated()])
async def test_spoilt_text_reaches_the_client_and_the_connection_lives(
    sim: Simulator, fault: f.Fault
) -> None:
    async with subscribed(sim, "okx") as client:
        await sim.fault("okx", fault)
        await drain(client)
        frames = await quiet(client)
        assert len(frames) > 3
        for frame in frames:
            with pytest.raises(json.JSONDecodeError):
                json.loads(frame)
        await sim.clear("okx")
        await drain(client)
        assert rows(await quiet(client))


async def test_truncated_and_closed_frame_is_another_price(sim: Simulator) -> None:
    async with subscribed(sim, "okx", "BTC") as client:
        await sim.fault("okx", f.Truncated(closed=True))
        await drain(client)
        found = rows(await quiet(client))
        assert found and all(Decimal(row["px"]) < 100 for row in found)


@pytest.mark.parametrize(
    ("fault", "code"),
    [(f.Oversized(size_bytes=2**20 + 1), 1009), (f.EndlessFragments(), 1009), (f.BadUtf8(), 1007)],
)
async def test_frame_that_a_client_must_not_take_ends_its_connection(
    sim: Simulator, fault: f.Fault, code: int
) -> None:
    async with subscribed(sim, "okx") as client:
        await sim.fault("okx", fault)
        await closing(client)
        assert client.protocol.close_sent is not None and client.protocol.close_sent.code == code


async def test_oversized_frame_comes_whole_to_a_client_that_takes_it(sim: Simulator) -> None:
    async with subscribed(sim, "okx", max_size=None) as client:
        await sim.fault("okx", f.Oversized(size_bytes=3 * 2**20))
        frames = await frames_until(client, " " * 1_000)
        assert len(frames[-1]) == 3 * 2**20
        await frames_until(client, TRADE)


async def test_deflate_bomb_is_seen_as_too_big_by_a_careful_client(sim: Simulator) -> None:
    async with subscribed(sim, "okx") as client:
        await sim.fault("okx", f.DeflateBomb(size_bytes=16 * 2**20))
        await closing(client)
        assert client.protocol.close_sent is not None and client.protocol.close_sent.code == 1009


async def test_deflate_bomb_without_compression_breaks_the_protocol(sim: Simulator) -> None:
    async with subscribed(sim, "okx", compression=None) as client:
        await sim.fault("okx", f.DeflateBomb(size_bytes=2**20))
        await closing(client)
        assert client.protocol.close_sent is not None and client.protocol.close_sent.code == 1002


async def test_endless_fragments_stop_other_frames_and_end_with_the_fault(sim: Simulator) -> None:
    async with subscribed(sim, "okx", max_size=None) as client:
        await sim.fault("okx", f.EndlessFragments(size_bytes=1_000))
        await drain_what_comes(client)
        assert await quiet(client) == []
        await sim.clear("okx")
        assert await closing(client) == 1006


async def test_tiny_frames_come_in_number(sim: Simulator) -> None:
    async with subscribed(sim, "okx") as client:
        await drain(client)
        await sim.fault("okx", f.TinyFrames(frames=500))
        frames = await quiet(client, seconds=0.5)
        assert frames.count("") == 500 and rows(frames)


async def test_client_that_does_not_read_is_cut_off(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchanges.simulator.peer._BUFFER_BYTES", 10_000)
    async with subscribed(sim, "okx", max_queue=1):
        await sim.fault("okx", f.Oversized(size_bytes=2**20, count=0))
        await sim.until(lambda: sim.connections("okx") == 0)
        assert sim.counts("okx")["slow_clients"] == 1


# REST.


@pytest.mark.parametrize(
    ("mode", "status", "says"),
    [("error-body", 200, "51001"), ("500", 500, ""), ("429", 429, ""), ("garbage", 200, "<html>")],
)
async def test_rest_fault(sim: Simulator, mode: str, status: int, says: str) -> None:
    url = sim.rest_url("okx") + "/api/v5/market/ticker?instId=BTC-USDT"
    await sim.fault("okx", f.parse_fault(json.dumps({"kind": "rest-fault", "mode": mode}).encode()))
    got, answer = await http("GET", url)
    assert got == status and says in str(answer)
    await sim.clear("okx")
    assert (await http("GET", url))[1]["code"] == "0"


async def test_rest_can_be_slow_and_oversized(sim: Simulator) -> None:
    url = sim.rest_url("okx") + "/api/v5/market/ticker?instId=BTC-USDT"
    await sim.fault("okx", f.RestFault(mode="slow", seconds=0.2))
    began = time.monotonic()
    assert (await http("GET", url))[0] == 200
    assert time.monotonic() - began >= 0.2
    await sim.fault("okx", f.RestFault(mode="oversized", size_bytes=1_000_000))
    _, _, body = await raw_http("GET", url)
    assert len(body) > 1_000_000


async def test_crash_of_all_exchanges_happens_once(sim: Simulator) -> None:
    status, _ = await http("POST", sim.url + "/control/all/fault", {"kind": "crash", "factor": 0.5})
    price = Decimal(sim.exchange("okx").tape.last("BTC-USDT", sim.now_ns()).price)
    assert status == 201 and Decimal(41_000) < price < Decimal(42_500)


async def test_maintenance_of_all_exchanges_passes_over_those_that_announce_none(sim: Simulator) -> None:
    await sim.fault("all", f.Maintenance())
    assert [name for name, exchange in sim.exchanges.items() if exchange.faults] == [
        "kraken",
        "gateio",
        "okx",
        "binance",
    ]


async def test_fault_of_all_exchanges_strikes_each(sim: Simulator) -> None:
    await sim.fault("all", f.RefuseHandshake())
    for name in DIALECTS:
        with pytest.raises(InvalidStatus):
            await connect(sim.ws_url(name), proxy=None)
    await sim.clear()
    async with connect(sim.ws_url("okx"), proxy=None):
        pass
