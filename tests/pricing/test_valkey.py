from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from pricing.exceptions import Tier2Error
from pricing.parameters import MS, Parameters
from pricing.protocol import PriceAnswer, PriceQuery
from pricing.tick import StoredPrice
from pricing.valkey import FLUSH_CHUNK, KEY, BoardFlusher, Breaker, Valkey, translated
from tests.pricing.doubles import CATALOGUE, Clock, World, make_board
from tests.services import free_port
from tests.valkeys import ValkeyServer, shared_url

RECOVERY_S = 5.0
NOW_NS = 1_795_352_400_123_456_789


def btc(price: str = "67123.45", *, traded_ns: int = NOW_NS, received_ns: int | None = None) -> StoredPrice:
    received_ns = traded_ns + 37 * MS if received_ns is None else received_ns
    return StoredPrice("BTC", "coinbase", "coinbase-ws", "USD", price, traded_ns, received_ns)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture
async def client() -> AsyncIterator[Redis]:
    """The shared server, empty of prices."""
    client = Redis.from_url(shared_url())
    await client.delete(*(KEY + asset for asset in ("BTC", "ETH", "UNI")))
    yield client
    await client.aclose()


@pytest.fixture
async def valkey(client: Redis) -> AsyncIterator[Valkey]:
    valkey = Valkey(shared_url(), Parameters(cache_read_ms=1_000))
    yield valkey
    await valkey.aclose()


async def until(condition: object, limit_s: float = RECOVERY_S) -> None:
    """Wait until an async *condition* holds; that is the recovery that is promised."""
    assert callable(condition)
    async with asyncio.timeout(limit_s):
        while not await condition():  # noqa: ASYNC110  # another process is waited for
            await asyncio.sleep(0.05)


async def test_price_written_is_read_back_digit_for_digit(valkey: Valkey) -> None:
    prices = [btc("0.000000000000000001"), msgspec.structs.replace(btc("1.50"), exchange="okx", polled=True)]
    await valkey.write(prices)
    assert await valkey.read("BTC") == {"coinbase": prices[0], "okx": prices[1]}


async def test_readers_that_ask_at_once_share_one_command(valkey: Valkey, client: Redis) -> None:
    await valkey.write([btc()])
    await client.config_resetstat()
    found = await asyncio.gather(*(valkey.read("BTC") for _ in range(500)))
    assert found == [{"coinbase": btc()}] * 500
    assert (await client.info("commandstats"))["cmdstat_hgetall"]["calls"] == 1


async def test_connection_that_takes_longer_than_a_reader_waits_is_there_for_a_later_one() -> None:
    url = os.environ["TEST_VALKEY_URL"]
    port = int(url.rpartition(":")[2].partition("/")[0])

    async def dawdle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)  # as a distant server's handshake does
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, to_writer), carry(to_reader, writer))

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    distant = await asyncio.start_server(dawdle, "127.0.0.1", 0)
    address = distant.sockets[0].getsockname()[1]
    valkey = Valkey(f"redis://127.0.0.1:{address}/0", Parameters(cache_retry_ms=500))
    assert await valkey.read("BTC") == {}
    assert valkey.failures == 1
    await asyncio.sleep(0.6)
    await valkey.read("BTC")
    assert valkey.failures == 1
    await valkey.aclose()
    distant.close()
    await distant.wait_closed()


async def test_unknown_asset_reads_as_nothing(valkey: Valkey) -> None:
    assert await valkey.read("BTC") == {}
    assert valkey.failures == 0


async def test_layout_is_one_hash_per_asset_with_compact_json_and_an_expiry(
    valkey: Valkey, client: Redis
) -> None:
    await valkey.write([btc()])
    value = b'{"traded_ns":1795352400123456789,"received_ns":1795352400160456789,"price":"67123.45",'
    assert await client.hgetall("tb:price:BTC") == {
        b"coinbase": value + b'"quote":"USD","source":"coinbase-ws"}'
    }
    assert 3_590 < await client.ttl("tb:price:BTC") <= 3_600


async def test_older_trade_never_replaces_a_newer_one(valkey: Valkey) -> None:
    await valkey.write([btc("2", traded_ns=NOW_NS)])
    await valkey.write([btc("1", traded_ns=NOW_NS - 1_000, received_ns=NOW_NS + MS)])
    assert (await valkey.read("BTC"))["coinbase"].price == "2"
    await valkey.write([btc("3", traded_ns=NOW_NS + 1_000)])
    assert (await valkey.read("BTC"))["coinbase"].price == "3"


async def test_trade_written_by_a_clock_that_runs_ahead_does_not_stay_for_ever(valkey: Valkey) -> None:
    await valkey.write([btc("2", traded_ns=NOW_NS + 3_600_000 * MS)])
    await valkey.write([btc("1", traded_ns=NOW_NS)])
    assert (await valkey.read("BTC"))["coinbase"].price == "1"


async def test_price_whose_trade_has_no_time_keeps_its_mark(valkey: Valkey) -> None:
    untimed = msgspec.structs.replace(btc("1"), traded_ns=None, polled=True)
    await valkey.write([untimed])
    assert await valkey.read("BTC") == {"coinbase": untimed}


@pytest.mark.parametrize("later_ms", [1, -1])
@pytest.mark.parametrize("untimed_first", [True, False])
async def test_where_a_trade_has_no_time_the_later_look_stays(
    valkey: Valkey, later_ms: int, untimed_first: bool
) -> None:
    untimed = btc("1", received_ns=NOW_NS)
    untimed = msgspec.structs.replace(untimed, traded_ns=None, polled=True)
    trade = btc("2", traded_ns=NOW_NS - 60_000 * MS, received_ns=NOW_NS + later_ms * MS)
    for price in (untimed, trade) if untimed_first else (trade, untimed):
        await valkey.write([price])
    assert (await valkey.read("BTC"))["coinbase"].price == ("2" if later_ms > 0 else "1")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"nonsense",
        b"[]",
        b'{"price":"1"}',
        b'{"traded_ns":1,"received_ns":2,"price":"NaN","quote":"USD","source":"s"}',
        b'{"traded_ns":1,"received_ns":2,"price":"0","quote":"USD","source":"s"}',
        b'{"traded_ns":1,"received_ns":2,"price":"0.00","quote":"USD","source":"s"}',
        b'{"traded_ns":1,"received_ns":2,"price":"-1","quote":"USD","source":"s"}',
        b'{"traded_ns":1,"received_ns":2,"price":1.5,"quote":"USD","source":"s"}',
        b'{"traded_ns":"1","received_ns":2,"price":"1","quote":"USD","source":"s"}',
    ],
)
async def test_malformed_field_is_counted_and_the_others_are_read(
    valkey: Valkey, client: Redis, value: bytes
) -> None:
    await valkey.write([btc()])
    await client.hset(KEY + "BTC", "kraken", value)
    assert list(await valkey.read("BTC")) == ["coinbase"]
    assert (valkey.malformed, valkey.failures) == (1, 0)


async def test_malformed_old_value_is_overwritten(valkey: Valkey, client: Redis) -> None:
    await client.hset(KEY + "BTC", "coinbase", "nonsense")
    await valkey.write([btc("1")])
    assert (await valkey.read("BTC"))["coinbase"].price == "1"


async def test_key_of_another_type_is_a_failure_not_an_exception(valkey: Valkey, client: Redis) -> None:
    await client.set(KEY + "BTC", "text")
    assert await valkey.read("BTC") == {}
    await valkey.keep(btc())
    assert valkey.failures == 1  # the breaker spared the second


async def test_error_is_translated_with_its_cause() -> None:
    valkey = Valkey(f"redis://127.0.0.1:{free_port()}/0", Parameters())
    with pytest.raises(Tier2Error) as caught:
        await valkey.write([btc()])
    assert caught.value.__cause__ is not None
    await valkey.aclose()


async def test_cancellation_is_not_translated() -> None:
    async def wait() -> None:
        async with translated(10_000):
            await asyncio.sleep(10)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_breaker_lets_one_probe_through_after_each_pause() -> None:
    clock = Clock()
    breaker = Breaker(2_000 * MS, clock.mono_ns)
    assert breaker.admits()
    breaker.failed()
    clock.forward(1_999)
    assert not breaker.admits()
    clock.forward(1)
    assert [breaker.admits(), breaker.admits()] == [True, False]
    breaker.succeeded()
    assert [breaker.admits(), breaker.admits()] == [True, True]


async def test_dead_server_costs_nothing_per_read_and_is_logged_once(
    server: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    valkey = Valkey(server.url, Parameters(), mono_ns=clock.mono_ns)
    server.kill()
    start = time.perf_counter()
    for _ in range(1_000):
        assert await valkey.read("BTC") == {}
    assert time.perf_counter() - start < 0.5
    assert valkey.failures == 1
    clock.forward(2_000)
    await valkey.read("BTC")
    assert valkey.failures == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    await valkey.aclose()


async def test_reading_recovers_by_itself_after_a_restart(server: ValkeyServer) -> None:
    valkey = Valkey(server.url, Parameters())
    await valkey.write([btc("1")])
    await valkey.read("BTC")
    server.kill()
    assert await valkey.read("BTC") == {}
    server.start()

    async def kept_and_read() -> bool:
        await valkey.keep(btc("2"))
        return bool(await valkey.read("BTC"))

    await until(kept_and_read)
    await valkey.aclose()


async def test_frozen_server_costs_one_short_wait_and_answers_are_never_mixed_up(
    server: ValkeyServer,
) -> None:
    valkey = Valkey(server.url, Parameters(cache_read_ms=250))
    names = [f"A{number}" for number in range(8)]
    await valkey.write([msgspec.structs.replace(btc(), asset=name, source=name) for name in names])
    assert all(await asyncio.gather(*(valkey.read(name) for name in names)))
    server.process.send_signal(signal.SIGSTOP)
    start = time.perf_counter()
    assert await asyncio.gather(*(valkey.read(name) for name in names)) == [{}] * 8
    assert time.perf_counter() - start < 1.5  # not eight waits
    assert await valkey.read("A0") == {}
    server.process.send_signal(signal.SIGCONT)

    async def readable() -> bool:
        return bool(await valkey.read("A0"))

    await until(readable)
    for name in names * 20:
        assert (await valkey.read(name))["coinbase"].source == name
    await valkey.aclose()


async def test_service_goes_on_without_a_frozen_server_within_its_short_timeout(server: ValkeyServer) -> None:
    world = World()
    valkey = Valkey(server.url, world.parameters)
    world.tier2 = valkey  # type: ignore[assignment]  # the real thing in the double's place
    world.fallback.answers["kraken"] = world.polled("2", source="kraken-rest")
    service = world.make_service(world.fallback)
    server.process.send_signal(signal.SIGSTOP)
    start = time.perf_counter()
    answer = await service.price(PriceQuery("ETH"))
    assert time.perf_counter() - start < 0.5
    assert isinstance(answer, PriceAnswer)
    assert answer.tier == 3
    await service.aclose()
    await world.aclose()
    await valkey.aclose()


class Flushing:
    """A board with a flusher over it."""

    def __init__(self, valkey: Valkey) -> None:
        self.clock = Clock()
        self.board = make_board(self.clock)
        self.assets: Collection[str] = CATALOGUE.assets
        self.flusher = BoardFlusher(self.board, valkey, lambda: self.assets, mono_ns=self.clock.mono_ns)

    def tick(self, asset: str, exchange: str, price: str) -> None:
        self.clock.forward(1)
        self.write(asset, exchange, price)

    def write(self, asset: str, exchange: str, price: str) -> None:
        slot = self.board.place(asset, exchange)
        self.board.write(slot, price, self.clock.wall, self.clock.wall, self.clock.mono)


@pytest.fixture
async def flushing(valkey: Valkey) -> AsyncIterator[Flushing]:
    flushing = Flushing(valkey)
    yield flushing
    flushing.board.close()


async def test_only_what_has_changed_is_flushed(flushing: Flushing, valkey: Valkey) -> None:
    flushing.tick("BTC", "coinbase", "1.10")
    flushing.tick("BTC", "okx", "2")
    flushing.tick("ETH", "kraken", "3")
    assert await flushing.flusher.flush() == 3
    assert await flushing.flusher.flush() == 0
    flushing.tick("BTC", "coinbase", "1.20")
    assert await flushing.flusher.flush() == 1
    stored = await valkey.read("BTC")
    assert {name: (row.price, row.quote, row.source) for name, row in stored.items()} == {
        "coinbase": ("1.20", "USD", "coinbase-ws"),
        "okx": ("2", "USDT", "okx-ws"),
    }
    assert stored["coinbase"].received_ns == flushing.clock.wall


async def test_memory_of_the_flusher_is_bounded_by_what_is_on_the_board(flushing: Flushing) -> None:
    flushing.tick("BTC", "coinbase", "1")
    flushing.tick("BTC", "okx", "1")
    await flushing.flusher.flush()
    flushing.board.remove("BTC", "okx")
    await flushing.flusher.flush()
    flushing.write("BTC", "okx", "1")  # at the instant that would be remembered
    assert await flushing.flusher.flush() == 1


async def test_price_that_left_the_board_leaves_tier_2(flushing: Flushing, valkey: Valkey) -> None:
    flushing.tick("BTC", "coinbase", "1")
    flushing.tick("BTC", "okx", "2")
    await flushing.flusher.flush()
    flushing.board.remove("BTC", "okx")  # its symbol was corrected: the old price is another asset's
    await flushing.flusher.flush()
    assert list(await valkey.read("BTC")) == ["coinbase"]


async def test_price_of_a_feed_that_stopped_stays_in_tier_2(flushing: Flushing, valkey: Valkey) -> None:
    flushing.tick("BTC", "okx", "2")
    await flushing.flusher.flush()
    flushing.assets = ()  # as when the feeds are stopping: the price stays on the board
    await flushing.flusher.flush()
    assert list(await valkey.read("BTC")) == ["okx"]


async def test_flush_of_more_than_a_chunk_is_complete(valkey: Valkey, client: Redis) -> None:
    prices = [msgspec.structs.replace(btc(), asset=f"T{number}") for number in range(FLUSH_CHUNK + 1)]

    class Wide:
        def all(self, asset: str) -> list[object]:
            return [Row(prices[int(asset[1:])])]

    flusher = BoardFlusher(Wide(), valkey, lambda: [price.asset for price in prices])  # type: ignore[arg-type]  # as much of a board as is used
    assert await flusher.flush() == FLUSH_CHUNK + 1
    assert await valkey.read(prices[-1].asset) == {"coinbase": prices[-1]}
    await client.delete(*(KEY + price.asset for price in prices))


class Row:
    """A stored price as the board would show it."""

    received_mono_ns = 1

    def __init__(self, price: StoredPrice) -> None:
        self._price = price

    def __getattr__(self, name: str) -> object:
        return getattr(self._price, name)


async def test_what_a_dead_server_missed_goes_out_when_it_is_back(
    server: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    valkey = Valkey(server.url, Parameters())
    flushing, stop = Flushing(valkey), asyncio.Event()
    server.kill()
    flushing.tick("BTC", "coinbase", "1")
    attempts = 0

    class Counting(BoardFlusher):
        async def flush(self) -> int:
            nonlocal attempts
            attempts += 1
            return await super().flush()

    flusher = Counting(flushing.board, valkey, lambda: CATALOGUE.assets)
    running = asyncio.create_task(flusher.run(stop))

    async def failed_twice() -> bool:
        return attempts > 2

    await until(failed_twice)
    assert [record.exc_info for record in caplog.records if "flushed" in record.message] == [False]
    server.start()

    async def readable() -> bool:
        return bool(await valkey.read("BTC"))

    await until(readable)
    stop.set()
    await running
    flushing.board.close()
    await valkey.aclose()


async def test_flusher_stops_at_once_by_event_and_by_cancellation(flushing: Flushing) -> None:
    stop = asyncio.Event()
    by_event = asyncio.create_task(flushing.flusher.run(stop))
    by_cancellation = asyncio.create_task(flushing.flusher.run(asyncio.Event()))
    await asyncio.sleep(0.1)
    stop.set()
    by_cancellation.cancel()
    async with asyncio.timeout(0.5):
        await by_event
        with pytest.raises(asyncio.CancelledError):
            await by_cancellation


async def test_flusher_survives_unexpected_errors_and_logs_one_a_minute(
    valkey: Valkey, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pricing.valkey.FLUSH_PERIOD_S", 0.001)
    attempts, stop = 0, asyncio.Event()

    def assets() -> list[str]:
        nonlocal attempts
        attempts += 1
        if attempts == 3:
            stop.set()
        raise RuntimeError("bug")

    clock = Clock()
    with make_board(clock) as board:
        await BoardFlusher(board, valkey, assets, mono_ns=clock.mono_ns).run(stop)
    assert attempts == 3
    assert [record.exc_info is not None for record in caplog.records] == [True]
