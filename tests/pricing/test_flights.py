from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pricing.flights import Flights
from tests.pricing.doubles import Clock

NEGATIVE_MS = 5_000


class Source:
    """What is fetched from: an answer, or an error, when its gate opens."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked: list[str] = []
        self.answer: str | Exception | None = "price"

    async def fetch(self, key: str) -> str | None:
        self.asked.append(key)
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def flights(clock: Clock, source: Source) -> AsyncIterator[Flights[str, str]]:
    flights = Flights(
        source.fetch, mono_ns=clock.mono_ns, entries=3, limit=2, negative_ns=NEGATIVE_MS * 1_000_000
    )
    yield flights
    await flights.aclose()


async def test_callers_share_one_fetch_and_only_the_first_has_started_it(
    flights: Flights[str, str], source: Source
) -> None:
    waiting = [asyncio.create_task(flights.get("BTC", 5)) for _ in range(200)]
    await asyncio.sleep(0)
    source.gate.set()
    results = await asyncio.gather(*waiting)
    assert source.asked == ["BTC"]
    assert results == [("price", True)] + [("price", False)] * 199


async def test_cancelled_caller_leaves_the_flight_to_the_others(
    flights: Flights[str, str], source: Source
) -> None:
    first, second = (asyncio.create_task(flights.get("BTC", 5)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    assert first.cancelled()
    source.gate.set()
    assert await second == ("price", False)


async def test_impatient_caller_goes_and_the_result_is_kept_for_the_next(
    flights: Flights[str, str], source: Source, clock: Clock
) -> None:
    assert await flights.get("BTC", 0.001) == (None, True)
    source.gate.set()
    assert await flights.get("BTC", 5) == ("price", False)
    clock.forward(7)
    assert flights.kept("BTC") == ("price", 7_000_000)


async def test_failure_is_not_repeated_for_a_while(
    flights: Flights[str, str], source: Source, clock: Clock
) -> None:
    source.gate.set()
    source.answer = None
    assert await flights.get("BTC", 5) == (None, True)
    source.answer = "price"
    clock.forward(NEGATIVE_MS - 1)
    assert await flights.get("BTC", 5) == (None, False)
    clock.forward(1)
    assert await flights.get("BTC", 5) == ("price", True)
    assert len(source.asked) == 2


async def test_unexpected_error_is_logged_once_and_counts_as_a_failure(
    flights: Flights[str, str], source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    source.answer = RuntimeError("bug")
    waiting = [asyncio.create_task(flights.get("BTC", 5)) for _ in range(3)]
    await asyncio.sleep(0)
    source.gate.set()
    assert {result for result, _ in await asyncio.gather(*waiting)} == {None}
    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert await flights.get("BTC", 5) == (None, False)


async def test_flight_over_the_limit_is_not_started_and_not_remembered_as_a_failure(
    flights: Flights[str, str], source: Source
) -> None:
    await flights.get("A", 0.001)
    await flights.get("B", 0.001)
    assert await flights.get("C", 5) == (None, False)
    source.gate.set()
    await flights.get("A", 5)
    await flights.get("B", 5)
    assert await flights.get("C", 5) == ("price", True)


async def test_start_that_is_not_admitted_is_no_failure_and_nobody_is_kept_from_joining(
    clock: Clock, source: Source
) -> None:
    allowed = [True, False, True]
    limits = {"entries": 3, "limit": 2, "negative_ns": 1}
    flights: Flights[str, str] = Flights(
        source.fetch, mono_ns=clock.mono_ns, admits=lambda key: allowed.pop(0), **limits
    )
    first = asyncio.create_task(flights.get("A", 5))
    await asyncio.sleep(0)
    joined = asyncio.create_task(flights.get("A", 5))
    assert await flights.get("B", 5) == (None, False)
    source.gate.set()
    assert await asyncio.gather(first, joined) == [("price", True), ("price", False)]
    assert await flights.get("B", 5) == ("price", True)
    assert source.asked == ["A", "B"]


async def test_memory_of_results_and_failures_is_bounded_and_drops_the_oldest(
    flights: Flights[str, str], source: Source
) -> None:
    source.gate.set()
    for key in "ABCA":
        await flights.get(key, 5)
    await flights.get("D", 5)
    assert [key for key in "ABCD" if flights.kept(key)] == ["A", "C", "D"]
    source.answer = None
    for key in "EFGH":
        await flights.get(key, 5)
    asked = len(source.asked)
    for key in "FGHE":
        await flights.get(key, 5)
    assert source.asked[asked:] == ["E"]


async def test_closing_ends_what_is_under_way_and_its_callers_get_nothing(
    flights: Flights[str, str], source: Source
) -> None:
    waiting = asyncio.create_task(flights.get("BTC", 5))
    await asyncio.sleep(0)
    assert len(flights) == 1
    await flights.aclose()
    assert len(flights) == 0
    assert await waiting == (None, True)
    assert asyncio.all_tasks() == {asyncio.current_task()}
