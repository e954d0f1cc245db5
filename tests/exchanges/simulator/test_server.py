"""The simulator over real sockets: subscribing, trades, REST, control, limits, its own end."""

import asyncio
import contextlib
import json
from decimal import Decimal

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from exchanges.simulator.dialects import DIALECTS
from exchanges.simulator.dialects.base import Close, Limits
from exchanges.simulator.faults import Silence, parse_fault
from exchanges.simulator.server import Simulator, UnknownExchange
from tests.exchanges.simulator.client import FAST, frames_until, http, quiet, raw_http, subscribed
from tests.fakes.exchange import FakeExchange

TRADE_MARKS = {
    "coinbase": '"update"',
    "gemini": '"t":',
    "kraken": '"update"',
    "gateio": '"update"',
    "bybit": '"publicTrade.',
    "okx": '"px"',
    "binance": '"e":"trade"',
}


@pytest.mark.parametrize("name", list(DIALECTS))
async def test_subscriber_hears_trades(name: str) -> None:
    async with Simulator(rate=FAST) as sim, subscribed(sim, name) as client:
        await frames_until(client, TRADE_MARKS[name])
        assert sim.connections(name) == 1
        assert {key: sim.counts(name)[key] for key in ("handshakes", "accepted")} == {
            "handshakes": 1,
            "accepted": 1,
        }


async def test_every_symbol_trades_every_few_seconds_at_the_default_rate() -> None:
    now = [1_795_000_000_000_000_000]
    async with Simulator(clock=lambda: now[0]) as sim:
        assets = list(sim.walk.markets)[:60]
        async with subscribed(sim, "okx", *assets) as client:
            await quiet(client, seconds=0.1)
            exchange, heard = sim.exchange("okx"), set()
            for _ in range(100):  # five seconds of the simulator's clock
                now[0] += 50_000_000
                exchange.step(now[0])
            for frame in await quiet(client, seconds=0.5):
                if '"px"' in frame:
                    heard.add(json.loads(frame)["arg"]["instId"])
    assert len(heard) == 60


async def test_two_exchanges_do_not_share_connections() -> None:
    async with Simulator() as sim, subscribed(sim, "okx"), subscribed(sim, "kraken"):
        assert [sim.connections(name) for name in ("okx", "kraken", "gemini")] == [1, 1, 0]


async def test_client_that_leaves_is_forgotten() -> None:
    async with Simulator() as sim:
        async with subscribed(sim, "okx"):
            pass
        await sim.until(lambda: sim.connections("okx") == 0 and not sim.peers)


async def test_received_keeps_the_client_frames_in_order() -> None:
    async with Simulator() as sim, subscribed(sim, "okx") as client:
        await client.send("ping")
        await frames_until(client, "pong")
        assert sim.received("okx")[-1] == "ping"
        assert json.loads(sim.received("okx")[0])["op"] == "subscribe"


async def test_fragmented_client_frame_is_put_together() -> None:
    async with Simulator() as sim, connect(sim.ws_url("okx"), proxy=None) as client:
        await client.send(["pi", "n", "g"])
        assert await client.recv() == "pong"


async def test_protocol_ping_is_answered() -> None:
    async with Simulator() as sim, connect(sim.ws_url("gemini"), proxy=None) as client:
        async with asyncio.timeout(2):
            await (await client.ping())


async def test_close_of_a_session_reaches_the_client() -> None:
    limits = {"coinbase": Limits(first_subscribe_s=0.1)}
    async with Simulator(limits=limits) as sim, connect(sim.ws_url("coinbase"), proxy=None) as client:
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(client.recv(), 3)
        assert client.close_code == 1008


async def test_connections_beyond_the_limit_are_refused_with_429() -> None:
    limits = {"kraken": Limits(connections=1, connections_window_s=600)}
    async with Simulator(limits=limits) as sim, connect(sim.ws_url("kraken"), proxy=None):
        with pytest.raises(InvalidStatus) as refused:
            await connect(sim.ws_url("kraken"), proxy=None)
        assert refused.value.response.status_code == 429
        assert sim.counts("kraken")["connections_refused"] == 1


async def test_rest_beyond_the_limit_is_refused_with_429() -> None:
    async with Simulator(limits={"okx": Limits(rest=1, rest_window_s=60)}) as sim:
        url = sim.rest_url("okx") + "/api/v5/market/ticker?instId=BTC-USDT"
        assert [(await http("GET", url))[0] for _ in range(2)] == [200, 429]


async def test_unknown_exchange_is_404_and_in_python_an_error() -> None:
    async with Simulator() as sim:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{sim.ws_url('okx')}x", proxy=None)
        assert refused.value.response.status_code == 404
        with pytest.raises(UnknownExchange, match="no exchange nope; there are coinbase"):
            sim.ws_url("nope")


@pytest.mark.parametrize(
    ("name", "path", "where"),
    [
        ("coinbase", "/api/v3/brokerage/market/products/BTC-USD/ticker?limit=1", ("trades", 0, "price")),
        ("gemini", "/v1/pubticker/btcusd", ("last",)),
        ("gemini", "/v2/ticker/BTCUSD", ("close",)),
        ("gemini", "/v1/trades/btcusd?limit_trades=1", (0, "price")),
        ("kraken", "/0/public/Ticker?pair=XBTUSD", ("result", "XXBTZUSD", "c", 0)),
        ("kraken", "/0/public/Ticker?pair=BTC/USD", ("result", "BTC/USD", "c", 0)),
        ("kraken", "/0/public/Trades?pair=BTC%2FUSD&count=1", ("result", "BTC/USD", -1, 0)),
        ("gateio", "/api/v4/spot/tickers?currency_pair=BTC_USDT", (0, "last")),
        ("gateio", "/api/v4/spot/trades?currency_pair=BTC_USDT&limit=1", (0, "price")),
        ("bybit", "/v5/market/tickers?category=spot&symbol=BTCUSDT", ("result", "list", 0, "lastPrice")),
        ("bybit", "/v5/market/recent-trade?category=spot&symbol=BTCUSDT", ("result", "list", 0, "price")),
        ("okx", "/api/v5/market/ticker?instId=BTC-USDT", ("data", 0, "last")),
        ("okx", "/api/v5/market/trades?instId=BTC-USDT&limit=1", ("data", 0, "px")),
        ("binance", "/api/v3/ticker/price?symbol=BTCUSDT", ("price",)),
        ("binance", "/api/v3/trades?symbol=BTCUSDT&limit=1", (0, "price")),
    ],
)
async def test_rest_gives_a_plausible_last_price(name: str, path: str, where: tuple[str | int, ...]) -> None:
    async with Simulator() as sim:
        status, value = await http("GET", sim.rest_url(name) + path)
    assert status == 200
    for step in where:
        value = value[step]
    assert isinstance(value, str) and Decimal(83_000) < Decimal(value) < Decimal(84_000)


async def test_rest_limit_that_is_no_number_is_400() -> None:
    async with Simulator() as sim:
        url = sim.rest_url("okx") + "/api/v5/market/trades?instId=BTC-USDT&limit=x"
        assert (await http("GET", url))[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("GET", "/", None, 404, "no such path"),
        ("GET", "/control/okx/other", None, 404, "no such path"),
        ("GET", "/control/nope", None, 404, "there are coinbase"),
        ("POST", "/control", None, 405, "only GET"),
        ("PUT", "/control/okx/fault", None, 405, "GET, POST, DELETE"),
        ("GET", "/control/okx/blast", None, 405, "only POST"),
        ("POST", "/control/okx/fault", b"{", 400, "truncated"),
        ("POST", "/control/okx/fault", {"kind": "sloth"}, 400, "sloth"),
        ("POST", "/control/okx/fault", {"kind": "silence", "pong": 1}, 400, "unknown field `pong`"),
        ("POST", "/control/coinbase/fault", {"kind": "maintenance"}, 400, "announces no maintenance"),
        ("POST", "/control/okx/blast", {"frames": 0}, 400, ">= 1"),
        ("DELETE", "/control/okx/fault?kind=sloth", None, 400, "no fault of kind sloth"),
    ],
)
async def test_control_explains_its_errors(
    method: str, path: str, body: object, status: int, says: str
) -> None:
    async with Simulator() as sim:
        got, answer = await http(method, sim.url + path, body)
        assert got == status and says in answer["error"]
        assert all(not exchange.faults for exchange in sim.exchanges.values())


async def test_control_begins_lists_and_ends_faults() -> None:
    async with Simulator() as sim:
        fault = sim.url + "/control/okx/fault"
        assert await http("POST", fault, {"kind": "silence", "pongs": False}) == (
            201,
            {"okx": [{"kind": "silence", "pongs": False, "heartbeats": True}]},
        )
        await http("POST", fault, {"kind": "old-trades"})
        _, listed = await http("GET", fault)
        assert [one["kind"] for one in listed["okx"]] == ["silence", "old-trades"]
        assert await http("DELETE", fault + "?kind=silence") == (
            200,
            {"okx": [{"kind": "old-trades", "symbols": [], "count": 0, "age_s": 3600.0}]},
        )
        assert await http("DELETE", sim.url + "/control/all/fault") == (200, {name: [] for name in DIALECTS})


async def test_second_fault_of_a_kind_replaces_the_first() -> None:
    async with Simulator() as sim:
        await sim.fault("okx", Silence(pongs=False))
        await sim.fault("okx", Silence(pongs=True))
        assert sim.exchange("okx").faults == [Silence(pongs=True)]


async def test_control_tells_the_state() -> None:
    async with Simulator() as sim, subscribed(sim, "okx", "BTC"):
        _, state = await http("GET", sim.url + "/control/okx")
        assert state["okx"]["connections"] == 1
        assert state["okx"]["symbols"] == ["BTC-USDT"]
        assert state["okx"]["counts"]["accepted"] == 1
        assert list((await http("GET", sim.url + "/control"))[1]) == list(DIALECTS)


async def test_web_pages_may_not_give_orders() -> None:
    async with Simulator() as sim:
        status, _ = await http(
            "POST", sim.url + "/control/okx/fault", {"kind": "crash"}, Origin="http://evil"
        )
        assert status == 403


@pytest.mark.parametrize("length", ["x", "-1", "99999999"])
async def test_bad_content_length_is_400(length: str) -> None:
    async with Simulator() as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(sim.url.rpartition(":")[2]))
        writer.write(f"POST /control HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        await writer.wait_closed()


async def test_endless_request_head_is_cut_off() -> None:
    async with Simulator() as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(sim.url.rpartition(":")[2]))
        writer.write(b"GET /" + b"x" * 100_000)
        with contextlib.suppress(ConnectionResetError):  # or an end of file: it depends on what was in flight
            assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()
        await sim.until(lambda: not sim.peers)


async def test_plain_get_of_a_websocket_address_is_an_error_not_a_hang() -> None:
    async with Simulator() as sim:
        status, _, _ = await raw_http("GET", sim.url + "/ws/okx", Upgrade="websocket")
        assert status in (400, 426)


async def test_blast_sends_so_many_frames_of_which_none_is_lost() -> None:
    async with Simulator() as sim, subscribed(sim, "okx") as client:
        await frames_until(client, '"ETH-USDT"')
        blasting = asyncio.create_task(sim.blast("okx", 5_000))
        ids: list[int] = []
        while len(ids) < 5_000:
            frame = json.loads(await asyncio.wait_for(client.recv(), 5))
            if frame.get("data") and frame["data"][0]["side"] == "buy":
                ids.append(int(frame["data"][0]["tradeId"]))
        blast = await blasting
        assert (blast.frames, ids) == (5_000, sorted(ids))
        assert blast.size_bytes > 500_000 and blast.seconds > 0
        assert sim.connections("okx") == 1, "ordinary trades go on afterwards"


async def test_blast_by_control_reports_its_figures() -> None:
    async with Simulator() as sim, subscribed(sim, "gemini") as client:
        assert (await http("POST", sim.url + "/control/gemini/blast", {"frames": 100}))[0] == 202
        for _ in range(100):
            await client.recv()
        await sim.until(lambda: bool(sim.exchange("gemini").blasts))
        _, state = await http("GET", sim.url + "/control/gemini")
        assert state["gemini"]["blasts"][0]["frames"] == 100


async def test_leaving_the_simulator_cuts_its_clients_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    async with Simulator() as sim:
        client = await connect(sim.ws_url("okx"), proxy=None)
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(client.recv(), 2)
    await client.close()
    assert not sim.peers
    assert asyncio.all_tasks() == before


async def test_simulator_ends_when_it_is_cancelled_during_a_blast() -> None:
    async def serve() -> None:
        async with Simulator() as sim, subscribed(sim, "okx"):
            sim.begin_blast("okx", 5_000_000)
            started.set()
            await asyncio.Event().wait()

    before, started = asyncio.all_tasks(), asyncio.Event()
    task = asyncio.create_task(serve())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert asyncio.all_tasks() - before == set()


async def test_fake_exchange_says_what_it_is_told() -> None:
    fake = FakeExchange(on_connect=["hello"], reply=lambda frame: [frame.upper(), Close(4000, "bye")])
    async with fake, connect(fake.ws_url("plain"), proxy=None) as client:
        await fake.say("more")
        assert [await client.recv(), await client.recv()] == ["hello", "more"]
        await client.send("question")
        assert await client.recv() == "QUESTION"
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (4000, "bye")
        assert fake.received("plain") == ["question"]


def test_fault_read_from_json_equals_the_one_made_in_python() -> None:
    assert parse_fault(b'{"kind":"silence","pongs":false}') == Silence(pongs=False)
