"""A worker on a live socket, and the prices that it asks below the board under the test's hand."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from pricing.problems import Problem
from pricing.protocol import PriceAnswer, PriceQuery
from pricing.tick import StoredPrice
from telemetry._counters import Counters
from tests.udp_engine.live import PATIENCE_S, Client, Live
from udp_engine.parameters import Parameters
from udp_engine.prices import PriceAnswers
from udp_engine.worker import Worker

TRADED_NS = 1_763_816_400_000_000_000


def priced(asset: str, tier: int, price: str = "3100.5") -> PriceAnswer:
    stored = StoredPrice(asset, "kraken", "kraken-ws", "USD", price, TRADED_NS, TRADED_NS)
    return PriceAnswer(stored, 42_000_000, tier, cached=True)


def told(asset: str, tier: int, price: str = "3100.5") -> bytes:
    """What is told of `priced`, without braces."""
    words = b'"asset":"%b","price":"%b","quote":"USD","source":"kraken-ws",'
    return (words + b'"ts":1763816400000,"age_ms":42,"tier":%d') % (asset.encode(), price.encode(), tier)


class PricesDouble:
    """Answers by asset, from the board or from below; below waits for `gate`. Exceptions are raised."""

    def __init__(self) -> None:
        self.board: dict[str, PriceAnswer | Problem | Exception] = {}
        self.lower: dict[str, PriceAnswer | Problem | Exception] = {
            "ETH": priced("ETH", 2),
            "UNI": priced("UNI", 3),
            "OLD": Problem("stale", "", {"age_ms": 5_120}),
        }
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[PriceQuery] = []

    def at_once(self, query: PriceQuery) -> PriceAnswer | Problem | None:
        if query.asset not in self.board and query.asset not in self.lower:
            return Problem("unknown_asset", "")
        return given(self.board.get(query.asset))

    async def below(self, query: PriceQuery) -> PriceAnswer | Problem:
        self.asked.append(query)
        await self.gate.wait()
        answer = given(self.lower[query.asset])
        assert answer is not None
        return answer


def given(answer: PriceAnswer | Problem | Exception | None) -> PriceAnswer | Problem | None:
    if isinstance(answer, Exception):
        raise answer
    return answer


def make_worker(live: Live, prices: PricesDouble, *, workers: int = 1, **parameters: int) -> Worker:
    return Worker(
        live.socket,
        finder=live.finder,
        gate=live.gate,
        counters=Counters(live.memory, 32),
        appender=live.spool.appender,
        answers=PriceAnswers(prices),
        parameters=Parameters(**parameters),
        workers=workers,
    )


@contextlib.asynccontextmanager
async def working(live: Live, prices: PricesDouble, **parameters: int) -> AsyncIterator[Worker]:
    """Run a worker; in the end it is stopped by its event."""
    worker, stop = make_worker(live, prices, **parameters), asyncio.Event()
    running = asyncio.create_task(worker.run(stop), name="worker")
    try:
        yield worker
    finally:
        stop.set()
        await running


async def replies(client: Client, count: int) -> list[bytes]:
    return await asyncio.to_thread(client.replies, count)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.005)
