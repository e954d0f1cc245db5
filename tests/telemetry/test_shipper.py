"""The shipper: everything arrives, nothing goes before it has, and nothing stops it for good."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from telemetry import shipper as module
from telemetry._spool import HEADER_BYTES, RECORD_BYTES
from telemetry.ledger import SegmentState
from telemetry.packing import PATIENCE_NS, Part
from telemetry.parameters import ShipperParameters
from telemetry.segments import Segment
from telemetry.shipper import Shipper, first_records
from tests.telemetry.shipping import Books, Hand, files, make_shipper, shipped, turns, until, write_spool
from tests.telemetry.spooling import CAPACITY, append_all, make_spool, write_segment


class Clock:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.now_ns = 1

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
def hand(books: Books) -> Hand:
    return Hand(books)


async def test_whole_spool_arrives_once_and_its_files_go(tmp_path: Path, hand: Hand, books: Books) -> None:
    write_spool(tmp_path, 3 * CAPACITY + 7)
    await turns(make_shipper(tmp_path, hand))
    assert sorted(books.numbers) == list(range(3 * CAPACITY + 7))
    assert (books.repeated, books.damaged, files(tmp_path)) == (0, 0, [])
    assert sorted(books.ended.values()) == [7, CAPACITY, CAPACITY, CAPACITY]


async def test_live_segment_is_shipped_and_kept(tmp_path: Path, hand: Hand, books: Books) -> None:
    spool = make_spool(tmp_path)
    spool.prepare()
    append_all(spool, range(5))
    shipper = make_shipper(tmp_path, hand)
    await turns(shipper)
    assert books.numbers == list(range(5)) and len(files(tmp_path)) == 1
    append_all(spool, range(5, 9))
    await turns(shipper)
    assert books.numbers == list(range(9))
    spool.close()
    await turns(shipper)
    assert files(tmp_path) == [] and list(books.ended.values()) == [9]


async def test_segment_is_kept_while_the_ledger_lacks_any_of_it(tmp_path: Path, books: Books) -> None:
    hand = Hand(books, at_once=False)
    hand.loses = True
    path = write_segment(tmp_path, 150)
    await turns(make_shipper(tmp_path, hand))
    first, last = hand.taken
    books.write(last)
    await turns(make_shipper(tmp_path, hand))
    assert path.exists()
    books.write(first)
    await turns(make_shipper(tmp_path, hand))
    assert not path.exists()


async def test_what_the_queue_lost_is_sent_again(tmp_path: Path, books: Books) -> None:
    clock, hand = Clock(), Hand(books, at_once=False)
    write_segment(tmp_path, 250)
    shipper = make_shipper(tmp_path, hand, mono_ns=clock)
    hand.loses = True
    await turns(shipper)
    assert len(hand.taken) == 3 and books.numbers == []
    hand.loses = False
    clock.now_ns += PATIENCE_NS
    await turns(shipper)
    assert sorted(books.numbers) == list(range(250)) and files(tmp_path) == []


async def test_segment_that_cannot_be_deleted_keeps_no_other_back(
    tmp_path: Path, hand: Hand, books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_segment(tmp_path, 10)
    shipper = make_shipper(tmp_path, hand)
    await shipper.turn()
    path.unlink()
    path.mkdir()  # as a disk that refuses: what is open can still be read
    await turns(shipper)
    write_spool(tmp_path, 20)
    await turns(shipper)
    assert len(books.numbers) == 30 and files(tmp_path) == [path.name]
    assert len(caplog.records) == 1 and "tried again" in caplog.text
    path.rmdir()
    await turns(shipper)
    assert files(tmp_path) == []


async def test_restarted_shipper_sends_only_what_the_ledger_lacks(
    tmp_path: Path, hand: Hand, books: Books
) -> None:
    spool = make_spool(tmp_path)
    spool.prepare()
    append_all(spool, range(130))
    await turns(make_shipper(tmp_path, hand))
    append_all(spool, range(130, 200))
    hand.taken.clear()
    await turns(make_shipper(tmp_path, hand))
    assert [(one.offset, one.count) for one in hand.taken] == [(130, 70)]
    assert books.repeated == 0


async def test_nothing_is_sent_before_the_ledger_can_be_asked(
    tmp_path: Path, hand: Hand, books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    write_segment(tmp_path, 10)
    books.away = True
    shipper = make_shipper(tmp_path, hand)
    await turns(shipper)
    assert hand.taken == [] and books.asked == 20
    assert ["cannot be asked" in record.getMessage() for record in caplog.records] == [
        True
    ]  # and not 20 times
    books.away = False
    await turns(shipper)
    assert len(books.numbers) == 10


async def test_ledger_is_asked_once_a_second_while_something_is_on_its_way(
    tmp_path: Path, books: Books
) -> None:
    clock, hand = Clock(), Hand(books, at_once=False)
    hand.loses = True
    write_segment(tmp_path, 10)
    shipper = make_shipper(tmp_path, hand, mono_ns=clock)
    for _ in range(40):
        await shipper.turn()
        clock.now_ns += 50_000_000
    assert books.asked == 2


async def test_carrier_that_is_down_is_tried_again_after_longer_and_longer_pauses(
    tmp_path: Path, hand: Hand, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.random, "uniform", lambda least, most: most)
    clock = Clock()
    write_segment(tmp_path, 10)
    hand.refuses = True
    shipper = make_shipper(tmp_path, hand, mono_ns=clock)
    tried_s = []
    for _ in range(120):
        before = hand.calls["refused"]
        await shipper.turn()
        if hand.calls["refused"] > before:
            tried_s.append(clock.now_ns // 500_000_000 / 2)
        clock.now_ns += 500_000_000
    assert tried_s == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    hand.refuses = False
    clock.now_ns += 30 * 10**9
    await turns(shipper)
    assert len(books.numbers) == 10 and files(tmp_path) == []


async def test_carrier_that_is_down_for_many_hours_is_still_tried(tmp_path: Path, hand: Hand) -> None:
    clock = Clock()
    write_segment(tmp_path, 10)
    hand.refuses = True
    shipper = make_shipper(tmp_path, hand, mono_ns=clock)
    for _ in range(1_200):
        clock.now_ns += 30 * 10**9
        await shipper.turn()
    assert hand.calls["refused"] == 1_200


async def test_ledger_that_does_not_answer_is_not_waited_for_for_good(
    tmp_path: Path, hand: Hand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "ASK_S", 0.01)
    write_segment(tmp_path, 10)

    async def hang(node: str, names: object) -> dict[str, SegmentState]:
        await asyncio.Event().wait()
        return {}

    shipper = Shipper(tmp_path, carrier=hand, covered=hang)
    async with asyncio.timeout(10):
        await shipper.turn()
    assert hand.taken == [] and "cannot be asked" in caplog.text


async def test_what_was_taken_before_a_refusal_is_not_sent_twice(
    tmp_path: Path, hand: Hand, books: Books
) -> None:
    write_segment(tmp_path, 350)
    hand.most = 2
    await turns(make_shipper(tmp_path, hand))
    assert books.repeated == 0 and len(books.numbers) == 350


async def test_no_more_is_on_its_way_than_the_buffer_holds(tmp_path: Path, books: Books) -> None:
    hand = Hand(books, at_once=False)
    hand.loses = True
    write_spool(tmp_path, 5 * CAPACITY)
    await turns(make_shipper(tmp_path, hand), 40)
    assert 900 < sum(one.count for one in hand.taken) <= 1_000


async def test_part_that_the_disk_does_not_give_out_keeps_no_other_back(
    tmp_path: Path, hand: Hand, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_segment(tmp_path, 300)
    read, failures = Segment.read, 0

    def failing(self: Segment, start: int, most: int) -> object:
        nonlocal failures
        if start == 100:
            failures += 1
            raise OSError(5, "Input/output error")
        return read(self, start, most)

    monkeypatch.setattr(Segment, "read", failing)
    clock = Clock()
    shipper = make_shipper(tmp_path, hand, mono_ns=clock)
    await turns(shipper)
    assert len(books.numbers) == 200 and len(files(tmp_path)) == 1
    assert failures == 1  # it is not asked for again and again
    monkeypatch.undo()
    clock.now_ns += PATIENCE_NS
    await turns(shipper)
    assert len(books.numbers) == 300 and files(tmp_path) == []


async def test_file_that_was_cut_off_loses_what_is_gone_and_nothing_else(
    tmp_path: Path, hand: Hand, books: Books
) -> None:
    path = write_segment(tmp_path, 300)
    with path.open("r+b") as file:
        file.truncate(HEADER_BYTES + 120 * RECORD_BYTES + 80)
    await turns(make_shipper(tmp_path, hand))
    assert sorted(books.numbers) == list(range(120))
    assert (books.damaged, files(tmp_path)) == (180, [])


# -- stopping


async def test_what_is_left_is_shipped_at_the_stop_without_waiting_for_more(
    tmp_path: Path, hand: Hand, books: Books
) -> None:
    write_segment(tmp_path, 150, sealed=False)
    spool = make_spool(tmp_path)
    spool.prepare()
    append_all(spool, range(150, 180))  # of a worker that lives on
    parameters = ShipperParameters(sqs_batch_size=100, sqs_flush_ms=60_000, sqs_buffer_size=1_000)
    await shipped(make_shipper(tmp_path, hand, parameters))
    assert len(books.numbers) == 180 and len(files(tmp_path)) == 1
    spool.close()


async def test_stop_is_not_delayed_for_ever_by_what_never_arrives(
    tmp_path: Path, books: Books, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LAST_S", 0.2)
    hand = Hand(books, at_once=False)
    hand.loses = True
    write_segment(tmp_path, 10)
    await shipped(make_shipper(tmp_path, hand))
    assert len(files(tmp_path)) == 1 and "left in the spool" in caplog.text


async def test_running_shipper_ships_what_comes_and_stops_by_its_event(
    tmp_path: Path, hand: Hand, books: Books
) -> None:
    spool, stop = make_spool(tmp_path), asyncio.Event()
    spool.prepare()
    running = asyncio.create_task(make_shipper(tmp_path, hand).run(stop))
    append_all(spool, range(5))
    await until(lambda: len(books.numbers) == 5)
    spool.close()
    stop.set()
    await running
    assert files(tmp_path) == []


async def test_cancelled_shipper_leaves_at_once_and_closes_its_files(tmp_path: Path, hand: Hand) -> None:
    write_segment(tmp_path, 10, sealed=False)
    hand.refuses = True
    shipper = make_shipper(tmp_path, hand)
    running = asyncio.create_task(shipper.run(asyncio.Event()))
    await until(lambda: hand.calls["refused"] > 0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(files(tmp_path)) == 1
    assert not shipper.backlog._left and not shipper.backlog._live


async def test_turn_that_fails_unforeseen_is_logged_and_the_next_one_goes_on(
    tmp_path: Path,
    hand: Hand,
    books: Books,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_segment(tmp_path, 10)
    shipper, stop = make_shipper(tmp_path, hand), asyncio.Event()
    scan, calls = shipper.backlog.scan, 0

    def failing() -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise RuntimeError("nobody has foreseen it")
        scan()

    monkeypatch.setattr(shipper.backlog, "scan", failing)
    monkeypatch.setattr(module, "PERIOD_S", 0.01)
    running = asyncio.create_task(shipper.run(stop))
    await until(lambda: len(books.numbers) == 10)
    stop.set()
    await running
    assert caplog.text.count("Shipping usage failed") == 1  # at most once a minute


def test_group_has_at_least_one_part_and_no_more_records_than_asked() -> None:
    parts = [Part(("n", "1-1"), place, place + 10, False) for place in range(0, 50, 10)]
    assert first_records(parts, 25) == parts[:2]
    assert first_records(parts, 1) == parts[:1]
    assert first_records([], 1) == []
