"""What of the order of brackets the recorder keeps, and what it counts."""

from __future__ import annotations

import pytest

from telemetry._counters import BATCH_ROWS_QUEUED
from telemetry._spool import HTTP, PRICE, Appender, Tally, UsageLog
from telemetry.recorder import Recorder
from telemetry.usage import Asked, Told
from tests.telemetry.spooling import SpoolInMemory

ASKED = Asked(7, 8, 202611, HTTP, PRICE, begun_ns=1_000_000)
TOLD = Told("BTC", 1, 1, "kraken", "kraken-ws", "1.5", "USD")


class Row:
    def __init__(self) -> None:
        self.added: list[tuple[int, int]] = []

    def add(self, index: int, n: int = 1, /) -> None:
        self.added.append((index, n))


class Sequenced(Appender):
    """Tells in which order it is called, and that the counter is raised within the bracket."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.calls: list[str] = []

    def enter(self) -> None:
        self.calls.append("enter")

    def leave(self) -> None:
        self.calls.append(f"leave after {len(self.row.added)} counted")

    def open_answer(self) -> None:
        self.calls.append("open")

    def close_answer(self) -> None:
        self.calls.append("close")

    def append(self, log: UsageLog) -> bool:
        self.calls.append("append")
        return True


def make_recorder(appender: Appender, row: Row | None = None) -> Recorder:
    return Recorder(appender, row or Row(), wall_ns=lambda: 99, mono_ns=lambda: 3_500_999)


def test_owed_answer_is_opened_within_its_first_bracket_and_closed_within_its_second() -> None:
    row = Row()
    appender = Sequenced(row)
    recorder = make_recorder(appender, row)
    with recorder:
        recorder.open(ASKED)
    recorder.close(ASKED, 200, TOLD)
    first, second = ["enter", "open", "leave after 0 counted"], ["append", "close", "leave after 1 counted"]
    assert appender.calls == [*first, "enter", *second]
    assert row.added == [(BATCH_ROWS_QUEUED, 1)]


def test_what_the_gate_has_not_counted_leaves_no_evidence() -> None:
    row = Row()
    appender = Sequenced(row)
    recorder = make_recorder(appender, row)
    with recorder:
        recorder.open(ASKED._replace(month=0))
    recorder.close(ASKED._replace(month=0), 200)
    assert appender.calls == ["enter", "leave after 0 counted", "enter", "append", "leave after 1 counted"]


@pytest.mark.parametrize("month", [202611, 0])
def test_answer_that_is_put_off_keeps_the_place_of_its_record(month: int) -> None:
    spool, asked = SpoolInMemory(), ASKED._replace(month=month)
    recorder, admitted = make_recorder(spool.appender), 0
    while recorder.admits() and admitted < 200_000:
        recorder.open(asked)
        admitted += 1
    for _ in range(admitted):
        recorder.close(asked, 200)
    assert len(spool.take()) == admitted
    assert spool.appender.tally.shed == 0
    assert recorder.admits()


def test_bracket_ends_when_the_gate_fails() -> None:
    spool = SpoolInMemory()
    with pytest.raises(ValueError, match="closed"), make_recorder(spool.appender):
        raise ValueError("the gate is closed")
    assert spool.appender.tally == Tally(1, 1, 0, 0, 0)


def test_record_has_the_time_of_the_answer_and_what_it_took() -> None:
    spool = SpoolInMemory()
    make_recorder(spool.appender).record(ASKED, 404, TOLD)
    (log,) = spool.take()
    assert (log.time_ns, log.latency_us, log.status, log.asset) == (99, 2_500, 404, "BTC")


def test_question_that_was_read_later_than_now_took_no_time() -> None:
    spool = SpoolInMemory()
    make_recorder(spool.appender).record(ASKED._replace(begun_ns=4_000_000), 200)
    assert spool.take()[0].latency_us == 0


def test_without_room_nothing_is_admitted_and_what_is_shed_is_not_counted_as_queued() -> None:
    spool, row = SpoolInMemory(has_room=False), Row()
    recorder = make_recorder(spool.appender, row)
    assert not recorder.admits()
    assert spool.appender.refused == 1
    spool.appender.sheds = True
    assert recorder.admits()
    recorder.record(ASKED, 200)
    assert (spool.appender.refused, spool.appender.tally.shed, row.added) == (1, 1, [])
