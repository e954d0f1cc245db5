"""A ledger in memory, and carriers that lose, double and refuse, to try the shipper with."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from telemetry._spool import Tally, decode
from telemetry.envelope import Envelope, read_records
from telemetry.exceptions import CarrierError
from telemetry.ledger import SegmentState
from telemetry.packing import Identity
from telemetry.parameters import ShipperParameters
from telemetry.segments import find_segments
from telemetry.shipper import Shipper
from tests.telemetry.spooling import append_all, make_spool

PARAMETERS = ShipperParameters(sqs_batch_size=100, sqs_flush_ms=10, sqs_buffer_size=1_000)


class Books:
    """What the database would have: each record once, the ledger, and the tallies of final segments."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.places: dict[Identity, set[int]] = defaultdict(set)
        self.ended: dict[Identity, int] = {}
        self.tallies: dict[Identity, Tally] = {}
        self.repeated = self.damaged = self.asked = 0
        self.away = False

    def write(self, envelope: Envelope) -> None:
        identity = envelope.node, envelope.segment
        there = self.places[identity]
        for log in decode(read_records(envelope)):
            if log.sequence - 1 not in there:
                self.numbers.append(log.key_id)
        new = set(range(envelope.offset, envelope.end)) - there
        self.repeated += envelope.count - len(new)
        self.damaged += envelope.damaged if new else 0
        there |= new
        if envelope.final:
            self.ended[identity] = envelope.end
            self.tallies[identity] = envelope.tally

    async def covered(self, node: str, names: Collection[str]) -> dict[str, SegmentState]:
        self.asked += 1
        if self.away:
            raise ConnectionError("the database is away")
        return {name: self.state((node, name)) for name in names}

    def state(self, identity: Identity) -> SegmentState:
        return SegmentState(intervals(self.places[identity]), self.ended.get(identity))


def intervals(places: set[int]) -> tuple[tuple[int, int], ...]:
    """Join places that follow each other."""
    found: list[tuple[int, int]] = []
    for place in sorted(places):
        if found and found[-1][1] == place:
            found[-1] = found[-1][0], place + 1
        else:
            found.append((place, place + 1))
    return tuple(found)


class Hand:
    """A carrier that writes into the books what it takes, unless it is told to do otherwise."""

    def __init__(self, books: Books, *, at_once: bool = True, payload_bytes: int | None = None) -> None:
        self.books, self.at_once, self.payload_bytes = books, at_once, payload_bytes
        self.taken: list[Envelope] = []
        self.refuses = self.loses = False
        self.most = 1_000_000
        self.calls: Counter[str] = Counter()

    async def carry(self, envelopes: Sequence[Envelope]) -> int:
        self.calls["refused" if self.refuses else "taken"] += 1
        if self.refuses:
            raise CarrierError("it is down")
        for envelope in envelopes[: self.most]:
            self.taken.append(envelope)
            if not self.loses:
                self.books.write(envelope)
        return min(len(envelopes), self.most)

    async def aclose(self) -> None: ...


def make_shipper(
    root: Path, hand: Hand, parameters: ShipperParameters = PARAMETERS, **options: object
) -> Shipper:
    return Shipper(root, carrier=hand, covered=hand.books.covered, parameters=parameters, **options)  # type: ignore[arg-type]


async def turns(shipper: Shipper, count: int = 20, *, flush: bool = True) -> None:
    """Take turns without waiting in between."""
    for _ in range(count):
        await shipper.turn(flush=flush)
        shipper._asked_ns = None


def write_spool(root: Path, records: int, **options: int) -> None:
    """Write records numbered from 0 into as many segments as it takes, as a worker that ended leaves them."""
    spool = make_spool(root, **options)
    spool.prepare()
    append_all(spool, range(records))
    spool.close()


def files(root: Path) -> list[str]:
    return [path.name for path in find_segments(root)]


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


async def shipped(shipper: Shipper) -> None:
    """Run a shipper until it has shipped what was there and has been stopped."""
    stop = asyncio.Event()
    stop.set()
    await shipper.run(stop)
