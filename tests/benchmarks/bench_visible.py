"""Time from a frame's arrival to its price in `/price`, through the real feed process and the real HTTP
worker.

    python -m tests.benchmarks.bench_visible [--trades 2000]

This process is the exchange and the customer: it sends one trade over a loopback WebSocket and asks
`/price` over one kept-alive connection until the answer shows it. The figure holds the socket, the feed,
the board and the HTTP request that sees it; it cannot be smaller than one request. Prints one JSON
document.
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

from tests.benchmarks.bench_frames import FEEDS
from tests.benchmarks.node import BenchNode, bench_node, free_port
from tests.benchmarks.yardsticks.bench import pin

_ROW = {"asset": "BTC", "symbol": "BTC-USDT", "rest_symbol": "", "category": "Major Currencies"}
_FLAGS = {"enabled": True, "prewarm": True, "home": True}


class Exchange:
    """An exchange in OKX's notation with one symbol, whose trades are made on demand."""

    def __init__(self) -> None:
        self._client: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()
        self._trade_id = 0

    async def talk(self, connection: ServerConnection) -> None:
        await connection.recv()
        self._client.set_result(connection)
        await connection.wait_closed()

    async def trade(self, price: str) -> None:
        """Send a trade at *price* now."""
        self._trade_id += 1
        time_ms = time.time_ns() // 10**6
        trade = f'{{"instId":"BTC-USDT","tradeId":"{self._trade_id}","px":"{price}","ts":"{time_ms}"}}'
        await (await self._client).send(
            f'{{"arg":{{"channel":"trades","instId":"BTC-USDT"}},"data":[{trade}]}}'
        )


class Customer:
    """One kept-alive HTTP connection that asks for the price."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self._reader, self._writer = reader, writer
        self._question = (
            f"GET /price?asset=BTC HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\n\r\n".encode()
        )

    async def price(self) -> str:
        """Return the price in the answer; empty while there is none."""
        self._writer.write(self._question)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        return str(json.loads(await self._reader.readexactly(length)).get("price", ""))


async def _time_trades(exchange: Exchange, customer: Customer, trades: int) -> dict[str, list[float]]:
    visible, request = [], []
    for number in range(trades):
        price = f"67{number % 1000:03d}.{number % 90 + 10}"
        began_ns = time.perf_counter_ns()
        await exchange.trade(price)
        while await customer.price() != price:
            pass
        visible.append((time.perf_counter_ns() - began_ns) / 1000)
        began_ns = time.perf_counter_ns()
        await customer.price()
        request.append((time.perf_counter_ns() - began_ns) / 1000)
        await asyncio.sleep(0.002)  # trades a customer sees come apart
    return {"visible": visible, "request": request}


def _share_cores(feeds: int, worker: int) -> None:
    """Give the feed process a core, and question and answer, which take turns, another.

    Who asks without a pause would otherwise keep the feed process waiting for a core, as no customer does.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    if others:
        pin([feeds], first)
        pin([worker, os.getpid()], others[0])


def _document(port: int) -> str:
    """Return OKX's row with an exchange of this process behind it."""
    feed = json.loads((FEEDS / "okx.json").read_text())["feed"]
    feed |= {"name": "bench", "display_name": "Bench", "ws_url": f"ws://127.0.0.1:{port}/"}
    feed |= {"rest_url": "", "rest_price_path": ""}
    return json.dumps({"feed": feed, "assets": [_ROW | _FLAGS]})


async def _run(node: BenchNode, port: int, key: str, trades: int) -> dict[str, Any]:
    exchange = Exchange()
    async with serve(exchange.talk, "127.0.0.1", port, compression=None):
        feeds = node.start("runfeeds")
        node.start("runkeyring")
        worker = node.start("runhttp")
        await asyncio.to_thread(node.wait_for_http)
        _share_cores(feeds, worker)
        await exchange.trade("67000.10")
        customer = Customer(*await asyncio.open_connection("127.0.0.1", node.http_port), key)
        while await customer.price() != "67000.10":
            pass
        await _time_trades(exchange, customer, min(200, trades))  # warm
        times = await _time_trades(exchange, customer, trades)
        node.close()  # before its exchange goes away
        return {name: _percentiles(times_us) for name, times_us in times.items()}


def _percentiles(times_us: list[float]) -> dict[str, float]:
    ranks = statistics.quantiles(times_us, n=1000)
    percentiles = {"p50_us": ranks[499], "p99_us": ranks[989], "p999_us": ranks[998]}
    return {name: round(value, 1) for name, value in percentiles.items()} | {"count": len(times_us)}


def measure(*, trades: int) -> dict[str, Any]:
    port = free_port()
    with bench_node(seeded=False) as node:
        document = node.folder / "bench.json"
        document.write_text(_document(port))
        node.manage("exchange", "import", str(document))
        return asyncio.run(_run(node, port, node.make_key(), trades))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trades", type=int, default=2_000)
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
