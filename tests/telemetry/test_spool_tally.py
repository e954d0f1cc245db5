"""What a spool's process has done is told by its segments: the evidence that a kill leaves."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from telemetry._spool import HEADER_BYTES, Appender, Tally, read_tally
from telemetry.segments import Segment, find_segments
from tests.telemetry.spooling import (
    BOOT_NS,
    CAPACITY,
    NODE,
    ROW,
    append_all,
    make_log,
    make_memory,
    make_spool,
)
from tests.twins import spool as twin

NOTHING = Tally(0, 0, 0, 0, 0)


def tally_of(memory: bytearray) -> Tally:
    return read_tally(memory[:HEADER_BYTES])


def published(*memories: bytearray) -> Appender:
    appender = Appender()
    for memory in memories:
        appender.publish(memory)
    return appender


def fill(appender: Appender, records: int) -> None:
    for number in range(records):
        assert appender.append(make_log(number))


def test_tally_is_in_the_current_segment_from_the_first_answer_on() -> None:
    memory = make_memory()
    appender = published(memory)
    assert tally_of(memory) == NOTHING
    assert appender.admits()
    appender.enter()
    appender.open_answer()
    assert tally_of(memory) == appender.tally == Tally(1, 0, 1, 0, 0)
    appender.leave()
    appender.close_answer()
    assert tally_of(memory) == appender.tally == Tally(1, 1, 1, 1, 0)


def test_tally_goes_on_in_the_next_segment() -> None:
    first, second = make_memory(1), make_memory(2)
    appender = published(first)
    assert appender.admits()
    appender.enter()
    fill(appender, CAPACITY)
    assert tally_of(first) == Tally(1, 0, 0, 0, 0)
    appender.leave()  # there is no current segment now: it is kept
    assert appender.tally == Tally(1, 1, 0, 0, 0)
    assert tally_of(first) == Tally(1, 0, 0, 0, 0)  # whose memory may be gone
    appender.publish(second)
    assert tally_of(second) == NOTHING
    assert appender.admits()
    assert tally_of(second) == Tally(1, 1, 0, 0, 0)


def test_tally_outlives_a_segment_that_was_condemned_before_it_was_used() -> None:
    memory, third = make_memory(2), make_memory(3)
    appender = published(make_memory(1))
    appender.enter()
    fill(appender, CAPACITY)
    appender.condemn(appender.publish(memory))
    assert not appender.admits()
    appender.publish(third)
    assert appender.admits()
    assert tally_of(third) == Tally(1, 0, 0, 0, 0)


def test_answers_are_admitted_while_there_are_places() -> None:
    appender = published(make_memory())
    for number in range(CAPACITY):
        assert appender.admits()
        assert appender.append(make_log(number))
    assert not appender.admits()
    assert appender.tally == NOTHING
    appender.refuse()
    assert appender.refused == 1
    appender.publish(make_memory(2))
    assert appender.admits()


def test_every_answer_that_is_owed_keeps_its_place() -> None:
    appender, owed = published(make_memory()), 10
    for _ in range(owed):
        assert appender.admits()
        appender.open_answer()
    fill(appender, CAPACITY - owed)
    assert not appender.admits()
    for number in range(owed):
        assert appender.append(make_log(number))
        appender.close_answer()
    assert appender.tally.shed == 0


def test_prepared_segment_is_room_for_what_is_owed_and_does_not_end_the_current_one_early() -> None:
    appender = published(make_memory())
    fill(appender, CAPACITY - 1)
    appender.open_answer()
    assert not appender.admits()
    appender.publish(make_memory(2))
    assert appender.admits()
    assert appender.take_retired() == []


def test_no_more_is_owed_than_the_prepared_segment_has_places_for() -> None:
    appender = published(make_memory())
    fill(appender, CAPACITY - 1)
    appender.publish(make_memory(2))
    owed = 0
    while owed <= 2 * CAPACITY and appender.admits():
        appender.open_answer()
        owed += 1
    assert owed == 1 + CAPACITY
    for number in range(owed):
        assert appender.append(make_log(number))
        appender.close_answer()
    assert appender.tally.shed == 0


def test_operator_may_have_answers_without_a_record() -> None:
    appender = Appender()
    assert not appender.sheds
    appender.sheds = True
    assert appender.admits()
    assert not appender.append(make_log(0))
    assert (appender.tally.shed, appender.refused) == (1, 0)


def test_tally_of_a_torn_page_is_refused() -> None:
    with pytest.raises(ValueError, match="header"):
        read_tally(make_memory()[: HEADER_BYTES - 1])


def test_segment_tells_when_its_process_began_and_what_it_had_done(tmp_path: Path) -> None:
    spool = make_spool(tmp_path, wall_ns=lambda: BOOT_NS)
    append_all(spool, range(CAPACITY + 1))  # meets one without room before each segment
    spool.appender.enter()
    first, second = find_segments(tmp_path)
    with Segment(first) as segment:
        assert (segment.header.boot_ns, segment.tally()) == (BOOT_NS, Tally(0, 0, 0, 0, 1))
    with Segment(second) as segment:
        assert (segment.header.boot_ns, segment.tally()) == (BOOT_NS, Tally(1, 0, 0, 0, 2))
    spool.close()


# -- a kill


class Process:
    """Answers by the order of the brackets; dies at the store that its appender was given."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.appender = twin.Appender()
        self.memories: list[bytearray] = []
        self.admitted = 0
        self.owed = 0
        self.publish()

    def publish(self) -> None:
        header = twin.make_header(NODE, ROW, len(self.memories) + 1, 2 * HEADER_BYTES, BOOT_NS)
        self.memories.append(bytearray(header).ljust(2 * HEADER_BYTES, b"\0"))
        self.appender.publish(self.memories[-1])

    def step(self) -> None:
        if self.appender.wanting and self.chance.random() < 0.9:
            self.publish()
        if self.owed and self.chance.random() < 0.4:
            self.appender.enter()
            self.append()
            self.appender.close_answer()
            self.owed -= 1
            self.appender.leave()
        elif self.appender.admits():
            self.begin()

    def begin(self) -> None:
        self.appender.enter()
        match self.chance.choice(["at once", "for later", "refused"]):
            case "at once":
                self.admitted += 1
                self.append()
            case "for later":
                self.admitted += 1
                self.appender.open_answer()
                self.owed += 1
            case "refused":
                self.append(month=0)
        self.appender.leave()

    def append(self, month: int = 202611) -> None:
        self.appender.append(make_log(0, month=month))  # type: ignore[arg-type]  # the same fields

    def evidence(self) -> tuple[int, list[int]]:
        """Read the segments as they were left: records that the gate has counted, and the tally's words."""
        counted, tallies = 0, []
        for memory in self.memories:
            header = twin.read_header(bytes(memory[:HEADER_BYTES]))
            whole, _ = twin.sift(memory[HEADER_BYTES:], 0, header.seed)
            counted += sum(
                twin.RECORD.unpack_from(memory, HEADER_BYTES + place * twin.RECORD_BYTES)[3] != 0
                for place in range(whole)
            )
            tallies.append(twin.read_tally(bytes(memory)))
        return counted, [max(words) for words in zip(*tallies, strict=True)]


@pytest.mark.parametrize("seed", range(100))
def test_whatever_was_admitted_and_not_recorded_by_a_killed_process_fits_its_evidence(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin, "LEAST", 2 * HEADER_BYTES)  # so that many segments follow one another
    process = Process(random.Random(seed))
    process.appender.stores_left = process.chance.randrange(2_000)
    with pytest.raises(twin.Killed):
        while True:
            process.step()
    counted, (entered, left, opened, closed, shed) = process.evidence()
    assert entered - left in (0, 1)
    assert shed == 0
    assert abs(process.admitted - counted - (opened - closed)) <= entered - left
