"""The two ways from the shipper to the database, each with a fault at every place."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from telemetry import carriers as module
from telemetry._spool import Tally
from telemetry.carriers import MESSAGE_BYTES, Direct, Queued
from telemetry.documents import decode
from telemetry.envelope import Envelope, compress, unpack
from telemetry.exceptions import CarrierError, Poison


def make_envelope(number: int) -> Envelope:
    """Make one that says in its offset which it is."""
    return Envelope(
        node="BeastMain",
        segment="1-1",
        boot_ns=1,
        offset=number,
        count=0,
        damaged=0,
        final=False,
        tally=Tally(0, 0, 0, 0, 0),
        payload=compress(b""),
    )


ENVELOPES = [make_envelope(number) for number in range(4)]


class Database:
    """Writes envelopes but for some, in transactions."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.alone: list[int] = []
        self.transactions = 0
        self.faults: dict[int, Exception] = {}

    async def write(self, envelopes: Sequence[Envelope]) -> None:
        self.transactions += 1
        for envelope in envelopes:
            if envelope.offset in self.faults:
                raise self.faults[envelope.offset]
        self.written += [envelope.offset for envelope in envelopes]

    async def take(self, document: bytes) -> None:
        number = unpack(decode(document)).offset
        fault = self.faults.get(number)
        if isinstance(fault, ConnectionError):
            raise fault
        self.alone.append(number)

    def carrier(self) -> Direct:
        return Direct(self.write, self.take, lambda error: isinstance(error, ConnectionError))


# -- direct


async def test_all_envelopes_of_a_call_are_one_transaction() -> None:
    database = Database()
    assert await database.carrier().carry(ENVELOPES) == 4
    assert (database.written, database.transactions) == ([0, 1, 2, 3], 1)


async def test_database_that_is_away_takes_nothing() -> None:
    database = Database()
    database.faults[2] = ConnectionError("the server closed the connection")
    with pytest.raises(CarrierError, match="closed the connection"):
        await database.carrier().carry(ENVELOPES)
    assert (database.written, database.alone) == ([], [])


@pytest.mark.parametrize("fault", [Poison("its tally cannot be"), RuntimeError("unforeseen")])
async def test_envelope_at_fault_keeps_no_other_back(fault: Exception) -> None:
    database = Database()
    database.faults[2] = fault
    assert await database.carrier().carry(ENVELOPES) == 4
    assert (database.written, database.alone) == ([], [0, 1, 2, 3])


async def test_database_that_goes_away_between_single_envelopes_is_an_outage() -> None:
    database = Database()
    database.faults = {1: RuntimeError("unforeseen"), 3: ConnectionError("away")}
    with pytest.raises(CarrierError, match="away"):
        await database.carrier().carry(ENVELOPES)
    assert database.alone == [0, 1, 2]  # what was written stays: the ledger has it


async def test_database_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_S", 0.01)

    async def hang(_: object) -> None:
        await asyncio.Event().wait()

    carrier = Direct(hang, Database().take, lambda error: True)
    with pytest.raises(CarrierError, match="not answered in time"):
        await carrier.carry(ENVELOPES)


# -- queued


class Broker:
    """Takes messages, or fails, or hangs at one of them."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.threads: set[int] = set()
        self.fails_at: int | None = None
        self.hangs = threading.Event()
        self.hangs.set()

    def publish(self, document: bytes) -> None:
        self.threads.add(threading.get_ident())
        number = unpack(decode(document)).offset
        self.hangs.wait(10)
        if number == self.fails_at:
            raise OSError("connection refused")
        self.taken.append(number)


async def test_each_envelope_is_a_message_published_from_a_thread_of_its_own() -> None:
    broker = Broker()
    carrier = Queued(broker.publish, timeout_s=5)
    assert await carrier.carry(ENVELOPES) == 4
    assert broker.taken == [0, 1, 2, 3]
    assert len(broker.threads) == 1 and threading.get_ident() not in broker.threads
    await carrier.aclose()


async def test_what_was_taken_before_a_fault_counts_as_taken() -> None:
    broker = Broker()
    broker.fails_at = 2
    carrier = Queued(broker.publish, timeout_s=5)
    assert await carrier.carry(ENVELOPES) == 2
    await carrier.aclose()


async def test_fault_at_the_first_envelope_is_told() -> None:
    broker = Broker()
    broker.fails_at = 0
    carrier = Queued(broker.publish, timeout_s=5)
    with pytest.raises(CarrierError, match="connection refused"):
        await carrier.carry(ENVELOPES)
    await carrier.aclose()


async def test_queue_that_hangs_is_given_up_in_time_and_blocks_nothing() -> None:
    broker = Broker()
    broker.hangs.clear()
    carrier = Queued(broker.publish, timeout_s=0.05)
    began_s, turned = time.monotonic(), 0

    async def turn() -> None:
        nonlocal turned
        while True:
            await asyncio.sleep(0.001)
            turned += 1

    turning = asyncio.create_task(turn())
    with pytest.raises(CarrierError):
        await carrier.carry(ENVELOPES)
    with pytest.raises(CarrierError):  # behind the one that hangs
        await carrier.carry(ENVELOPES[1:])
    assert time.monotonic() - began_s < 5 and turned > 10
    turning.cancel()
    broker.hangs.set()
    assert await Queued(broker.publish, timeout_s=5).carry(ENVELOPES[3:]) == 1
    await carrier.aclose()
    assert 1 not in broker.taken  # given up before its turn came


def test_longest_payload_in_base64_leaves_room_for_the_rest_of_the_message() -> None:
    assert Queued.payload_bytes * 4 / 3 < MESSAGE_BYTES - 3_000
