"""A worker that answers summaries: what it tells, how seldom it reads, what it records and counts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator

import pytest

from billing import keys
from billing._gate import GateKey
from telemetry._counters import Counters
from telemetry._spool import HEADER_BYTES, RECORD_BYTES, REPORT_SUMMARY, UDP
from tests.pricing.doubles import KEYS, MONTH
from tests.telemetry.spooling import make_log
from tests.udp_engine.live import Live
from tests.udp_engine.working import replies, until
from udp_engine.parameters import Parameters
from udp_engine.summaries import SummaryAnswers, Sums, Whose
from udp_engine.wire import MAX_DATAGRAM_BYTES
from udp_engine.worker import Worker

PARTNER, FREE = (list(KEYS).index(name) + 1 for name in ("partner", "free"))
SUMS = Sums({"200": 120, "404": 10}, {"01": 30, "23": 100}, {"BTC": 70, "ETH": 50}, 2, 10)


class ReaderDouble:
    """The database: gives `sums` when `gate` is open, or fails."""

    def __init__(self) -> None:
        self.sums: Sums | Exception | None = SUMS
        self.asked: list[Whose] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, whose: Whose) -> Sums | None:
        self.asked.append(whose)
        await self.gate.wait()
        if isinstance(self.sums, Exception):
            raise self.sums
        return self.sums


@pytest.fixture
def live() -> Iterator[Live]:
    with Live() as live:
        yield live


@pytest.fixture
def reader() -> ReaderDouble:
    return ReaderDouble()


@contextlib.asynccontextmanager
async def working(live: Live, reader: ReaderDouble, **parameters: int) -> AsyncIterator[None]:
    answers = SummaryAnswers(reader.read, live.gate, Parameters(**parameters))
    worker = Worker(
        live.socket,
        finder=None,
        gate=live.gate,
        counters=Counters(live.memory, 71),
        appender=live.spool.appender,
        answers=answers,
        parameters=Parameters(**parameters),
    )
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop), name="worker")
    try:
        yield
    finally:
        stop.set()
        await running
        await answers.aclose()


def summary(name: str = "partner", **fields: object) -> bytes:
    return json.dumps({"api_key": KEYS.get(name, name), **fields}).encode()


async def test_summary_has_what_the_gate_and_the_database_know(live: Live, reader: ReaderDouble) -> None:
    client = live.client()
    row = live.gate.find(keys.digest(KEYS["free"]))
    live.gate.restore(row, MONTH, 123)
    async with working(live, reader):
        live.send(client, summary("free", id="7"))
        (reply,) = await replies(client, 1)
    assert json.loads(reply) == {
        "id": "7",
        "month": f"{MONTH // 100}-{MONTH % 100:02d}",
        "key": FREE,
        "used": 123,
        "limit": 1_000,
        "answers": 130,
        "by_status": {"200": 120, "404": 10},
        "by_day": {"01": 30, "23": 100},
        "by_asset": {"BTC": 70, "ETH": 50},
        "other_assets": 10,
        "reports_used": 2,
        "reports_limit": 10,
    }
    assert reader.asked == [Whose(100 + FREE, FREE, MONTH)]


async def test_summary_takes_nothing_and_is_recorded(live: Live, reader: ReaderDouble) -> None:
    live.gate.changed()
    client = live.client()
    async with working(live, reader):
        live.send(client, summary())
        await replies(client, 1)
    assert live.gate.changed() == []
    (log,) = live.spool.take()
    assert (log.key_id, log.account_id, log.month) == (PARTNER, 100 + PARTNER, 0)
    assert (log.endpoint, log.protocol, log.status) == (REPORT_SUMMARY, UDP, 200)
    assert (log.asset, log.assets, log.price) == ("", 0, "")
    entered, left, opened, closed, _ = live.spool.appender.tally
    assert (entered, left, opened, closed) == (2, 2, 0, 0)


async def test_many_questions_of_a_second_are_one_of_the_database(live: Live, reader: ReaderDouble) -> None:
    reader.gate.clear()
    client = live.client()
    async with working(live, reader, summary_ms=60_000):
        live.send(client, *[summary(id=str(number)) for number in range(10)])
        await until(lambda: len(reader.asked) == 1)
        reader.gate.set()
        told = await replies(client, 10)
        live.send(client, summary(id="10"))
        told += await replies(client, 1)
    assert sorted(int(json.loads(reply)["id"]) for reply in told) == list(range(11))
    assert len(reader.asked) == 1


async def test_summary_is_read_again_when_it_is_old(live: Live, reader: ReaderDouble) -> None:
    client = live.client()
    async with working(live, reader, summary_ms=1):
        for number in range(1, 4):
            await asyncio.sleep(0.002)
            live.send(client, summary())
            await replies(client, 1)
            assert len(reader.asked) == number


async def test_keys_are_told_apart(live: Live, reader: ReaderDouble) -> None:
    client = live.client()
    async with working(live, reader):
        live.send(client, summary(), summary("free"))
        told = await replies(client, 2)
    assert {json.loads(reply)["key"] for reply in told} == {PARTNER, FREE}
    assert {whose.key_id for whose in reader.asked} == {PARTNER, FREE}


async def test_what_is_kept_is_bounded(live: Live, reader: ReaderDouble) -> None:
    client = live.client()
    async with working(live, reader, summary_entries=1, summary_ms=60_000):
        for name in ("partner", "free", "partner"):
            live.send(client, summary(name))
            await replies(client, 1)
    assert [whose.key_id for whose in reader.asked] == [PARTNER, FREE, PARTNER]


async def test_question_that_waits_keeps_the_place_of_its_record(live: Live, reader: ReaderDouble) -> None:
    reader.gate.clear()
    appender, client = live.spool.appender, live.client()
    places = (16 * 1024 * 1024 - HEADER_BYTES) // RECORD_BYTES
    for number in range(places - 1):
        appender.append(make_log(number))
    async with working(live, reader):
        assert appender.admits()
        live.send(client, summary())
        await until(lambda: len(reader.asked) == 1)
        assert not appender.admits()
        reader.gate.set()
        await replies(client, 1)
    assert len(live.spool.take()) == places


async def test_what_is_read_at_once_is_bounded(live: Live, reader: ReaderDouble) -> None:
    reader.gate.clear()
    client = live.client()
    async with working(live, reader, summaries_at_once=1):
        live.send(client, summary())
        await until(lambda: len(reader.asked) == 1)
        live.send(client, summary("free"))
        assert await replies(client, 1) == [b'{"error":"unavailable"}']
        reader.gate.set()
        await replies(client, 1)
    assert len(reader.asked) == 1


@pytest.mark.parametrize("failure", [None, RuntimeError("no")])
async def test_database_that_fails_is_left_alone_for_a_while(
    live: Live, reader: ReaderDouble, failure: Exception | None
) -> None:
    reader.sums = failure
    client = live.client()
    async with working(live, reader):
        for _ in range(3):
            live.send(client, summary(id="7"))
            assert await replies(client, 1) == [b'{"id":"7","error":"unavailable"}']
    assert len(reader.asked) == 1
    assert [(log.status, log.endpoint) for log in live.spool.take()] == [(503, REPORT_SUMMARY)] * 3


@pytest.mark.parametrize("is_taken_again", [False, True])
async def test_row_that_is_not_the_keys_any_more_tells_nothing(
    live: Live, reader: ReaderDouble, is_taken_again: bool
) -> None:
    """A key may be removed, and its row taken again, while the database is asked."""
    reader.gate.clear()
    client = live.client()
    async with working(live, reader):
        live.send(client, summary())
        await until(lambda: len(reader.asked) == 1)
        row = live.gate.find(keys.digest(KEYS["partner"]))
        live.gate.remove(keys.digest(KEYS["partner"]))
        if is_taken_again:
            others = (
                GateKey(number.to_bytes(32, "little"), 1_000 + number) for number in range(live.gate.rows)
            )
            assert row in map(live.gate.put, others)
        reader.gate.set()
        assert await replies(client, 1) == [b'{"error":"unavailable"}']


async def test_flood_of_an_account_is_left_unanswered_and_unrecorded(
    live: Live, reader: ReaderDouble
) -> None:
    client = live.client()
    async with working(live, reader):
        live.send(client, *[summary()] * 120)
        await until(lambda: live.account().difference == 0 and live.account().received == 120)
        told = await replies(client, live.account().sent)
    account = live.account()
    assert 20 <= len(told) == account.sent < 100  # 20 at once and 200 a second
    assert account.drops == {"limited": 120 - account.sent}
    assert account.totals["lrs_requests"] == 120
    assert account.totals["batch_rows_queued"] == len(live.spool.take()) == account.sent
    assert max(map(len, told)) <= MAX_DATAGRAM_BYTES


async def test_strangers_get_no_more_bytes_than_they_sent(live: Live, reader: ReaderDouble) -> None:
    client = live.client()
    datagrams = [
        summary("unknown"),
        summary("revoked"),
        summary("elsewhere"),
        b'{"id":"7"}',
        b"{}",
        b'{"asset":"BTC","id":"7"}',
        b'{"asset":"BTC","id":"7"}'.ljust(64),
        b'{"id":"7","answers":1}',
        b"hello",
    ]
    async with working(live, reader):
        for number, datagram in enumerate(datagrams, 1):
            before = live.account().sent
            live.send(client, datagram)
            await until(lambda: live.account().received == number and live.account().difference == 0)  # noqa: B023
            for reply in await replies(client, live.account().sent - before):
                assert len(reply) <= len(datagram)
    assert reader.asked == []
    assert live.account().sent == 4
    assert live.account().drops == {"too_short": 3, "reply_shaped": 1, "malformed": 1}
    assert {log.status for log in live.spool.take()} == {403}


async def test_what_waits_for_the_database_at_the_end_is_given_up(live: Live, reader: ReaderDouble) -> None:
    reader.gate.clear()
    async with working(live, reader, grace_ms=20):
        live.send(live.client(), summary())
        await until(lambda: len(reader.asked) == 1)
    account = live.account()
    assert (account.received, account.sent + account.dropped, account.difference) == (1, 1, 0)
    assert [log.status for log in live.spool.take()] == [503]
