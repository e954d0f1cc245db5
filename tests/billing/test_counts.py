"""What is passed on while more is counted: nothing is forgotten, nothing told twice for nothing."""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator, Mapping

import pytest

from billing._gate import Gate, GateWriter
from billing.counts import Counts
from billing.exceptions import SharingError
from billing.placing import Placer
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
    writer: GateWriter, database: FakeDatabase, others: Others | None = None, store: Store | None = None
) -> Counts:
    """Make counts with key 1 in place."""
    tally = Tally()
    tally.begin(MONTH)
    placer = Placer(writer, tally)
    placer.begin()
    database.put(1)
    placer.put(make_row(1))
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
