"""What is passed on while more is counted: nothing is forgotten, nothing told twice for nothing."""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator, Mapping

import pytest

from billing import counts as module
from billing._gate import Gate
from billing._gate_writer import GateWriter
from billing.counts import Counts
from billing.exceptions import SharingError
from billing.placing import Placer
from billing.ratelimit import next_month
from billing.store import Store
from billing.tally import Tally
from tests.billing.gates import MONTH, FakeDatabase, ask_often, make_memory, make_row, open_writer


class Others:
    """The other nodes: keeps what they are told."""

    def __init__(self) -> None:
        self.is_listening = True
        self.told: list[tuple[int, dict[int, int]]] = []
        self.away = False

    async def tell(self, month: int, totals: Mapping[int, int]) -> None:
        if self.away:
            raise SharingError
        self.told.append((month, dict(totals)))

    async def read(self, month: int) -> dict[str, dict[int, int]]:
        return {}


@pytest.fixture
def memory() -> mmap.mmap:
    return make_memory()


@pytest.fixture
def writer(memory: mmap.mmap) -> Iterator[GateWriter]:
    with open_writer(memory) as writer:
        writer.set_month(MONTH, 0)
        yield writer


@pytest.fixture
def gate(memory: mmap.mmap) -> Iterator[Gate]:
    with Gate(memory) as gate:
        yield gate


def make_counts(
    writer: GateWriter,
    database: FakeDatabase,
    others: Others | None = None,
    store: Store | None = None,
    keys: int = 1,
) -> Counts:
    """Make counts with so many keys in place, from 1."""
    tally = Tally()
    tally.begin(MONTH)
    placer = Placer(writer, tally)
    placer.begin()
    for key_id in range(1, keys + 1):
        database.put(key_id)
        placer.put(make_row(key_id))
    return Counts(writer, tally, store or database.store("A"), node="A", others=others)


async def test_what_is_counted_while_it_is_saved_is_saved_next_time(writer: GateWriter, gate: Gate) -> None:
    database = FakeDatabase()
    plain = database.store("A")

    async def save_and_be_overtaken(month: int, totals: Mapping[int, int]) -> None:
        await plain.save_counts(month, totals)
        if totals == {1: 3}:
            ask_often(gate, 1, 2)
            counts.collect()

    store = dataclasses.replace(plain, save_counts=save_and_be_overtaken)
    counts = make_counts(writer, database, store=store)
    ask_often(gate, 1, 3)
    counts.collect()
    for total in (3, 5):
        await counts.save()
        assert database.counts == {("A", MONTH): {1: total}}


async def test_what_was_saved_is_not_saved_again(writer: GateWriter, gate: Gate) -> None:
    database = FakeDatabase()
    counts = make_counts(writer, database)
    ask_often(gate, 1, 3)
    counts.collect()
    await counts.save()
    asked = database.asked
    counts.collect()
    await counts.save()
    assert database.asked == asked


async def test_what_could_not_be_told_is_told_with_the_next(writer: GateWriter, gate: Gate) -> None:
    others = Others()
    counts = make_counts(writer, FakeDatabase(), others)
    others.away = True
    ask_often(gate, 1, 3)
    counts.collect()
    with pytest.raises(SharingError):
        await counts.tell()
    others.away = False
    ask_often(gate, 1, 1)
    counts.collect()
    for _ in range(2):
        await counts.tell()
    assert others.told == [(MONTH, {1: 4})]


async def test_nobody_is_told_who_does_not_listen(writer: GateWriter, gate: Gate) -> None:
    others = Others()
    counts = make_counts(writer, FakeDatabase(), others)
    others.is_listening = False
    ask_often(gate, 1, 3)
    counts.collect()
    await counts.tell()
    assert others.told == []
    await counts.meet(MONTH)
    assert others.told == [(MONTH, {1: 3})], "who connects tells everything"


async def test_requests_of_no_month_are_dropped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    memory, database, others = make_memory(), FakeDatabase(), Others()
    with open_writer(memory) as writer, Gate(memory) as gate:
        counts = make_counts(writer, database, others)
        for _ in range(2):
            assert ask_often(gate, 1, 3) == 3, "a gate without a month counts all the same"
            counts.collect()
        await counts.save()
        await counts.tell()
    assert (database.counts, others.told) == ({}, [])
    assert 1 in database.uses
    assert caplog.text.count("3 requests of key 1 are in no month") == 1


async def test_month_that_cannot_be_saved_keeps_no_other_from_being_saved(
    writer: GateWriter, gate: Gate
) -> None:
    database, later, asked = FakeDatabase(), next_month(MONTH), []
    plain = database.store("A")

    async def refuse_the_later_month(month: int, totals: Mapping[int, int]) -> None:
        asked.append(month)
        if month == later:
            raise ValueError("a constraint is violated")
        await plain.save_counts(month, totals)

    store = dataclasses.replace(plain, save_counts=refuse_the_later_month)
    counts = make_counts(writer, database, store=store)
    writer.set_month(later, 0)
    ask_often(gate, 1, 2)
    counts.collect()
    with pytest.raises(ExceptionGroup):
        await counts.save()
    assert 1 in database.uses
    writer.restore(0, MONTH, 3)
    counts.collect()
    asked.clear()
    with pytest.raises(ExceptionGroup):
        await counts.save()
    assert database.counts == {("A", MONTH): {1: 3}}
    assert asked == [MONTH, later], "the present month is the first"


async def test_chunks_that_cannot_be_saved_keep_no_other_from_being_saved(
    writer: GateWriter, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 1)
    database, bad, asked = FakeDatabase(), set(range(1, 11)), []
    plain = database.store("A")

    async def refuse_the_bad(month: int, totals: Mapping[int, int]) -> None:
        asked.extend(totals)
        if bad & totals.keys():
            raise ValueError("a constraint is violated")
        await plain.save_counts(month, totals)

    counts = make_counts(
        writer, database, store=dataclasses.replace(plain, save_counts=refuse_the_bad), keys=12
    )
    for key_id in range(1, 13):
        ask_often(gate, key_id, 1)
    counts.collect()
    for _ in range(4):
        with pytest.raises(ExceptionGroup):
            await counts.save()
    assert database.counts == {("A", MONTH): {11: 1, 12: 1}}
    assert len(asked) == 4 * module.MOST_FAILURES + 2, "a database that is away is not asked for every chunk"
    bad.clear()
    await counts.save()
    assert database.counts == {("A", MONTH): dict.fromkeys(range(1, 13), 1)}
