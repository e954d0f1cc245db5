"""The spool's segments as the shipper goes through them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from telemetry import backlog as module
from telemetry._spool import HEADER_BYTES, RECORD_BYTES, decode
from telemetry.backlog import Backlog
from telemetry.envelope import read_records
from telemetry.packing import Packing, Part
from telemetry.parameters import ShipperParameters
from telemetry.segments import Segment
from tests.telemetry.shipping import PARAMETERS, files, write_spool
from tests.telemetry.spooling import CAPACITY, NODE, append_all, make_spool, write_segment


def make_backlog(root: Path, parameters: ShipperParameters = PARAMETERS) -> tuple[Backlog, Packing]:
    packing = Packing(parameters)
    return Backlog(root, packing, mono_ns=lambda: 0), packing


def plan(packing: Packing) -> list[Part]:
    """Name all that is unsent, as if the ledger had nothing."""
    for identity in packing.to_ask():
        packing.note_ledger(identity, [], None, 0)
    return packing.plan(0, flush=True)


def test_spool_that_was_never_used_has_nothing(tmp_path: Path) -> None:
    backlog, packing = make_backlog(tmp_path / "none")
    backlog.scan()
    assert plan(packing) == []


@pytest.mark.parametrize(("young_s", "is_left"), [(60.0, True), (0.0, False)])
def test_what_workers_of_rows_that_nobody_has_any_more_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, young_s: float, is_left: bool
) -> None:
    monkeypatch.setattr(module, "YOUNG_S", young_s)
    path = write_segment(tmp_path, 1)
    left = path.with_suffix(".new")
    left.write_bytes(b"")
    make_backlog(tmp_path)[0].scan()
    assert (path.exists(), left.exists()) == (True, is_left)


def test_parts_become_envelopes_with_their_records(tmp_path: Path) -> None:
    identity = Segment(write_segment(tmp_path, 150)).identity
    backlog, packing = make_backlog(tmp_path)
    backlog.scan()
    first, second = (backlog.read(part)[0] for part in plan(packing))
    assert (first.node, first.segment, first.offset, first.count, first.final) == (*identity, 0, 100, False)
    assert (second.offset, second.count, second.final, second.damaged) == (100, 50, True, 0)
    assert [log.key_id for log in decode(read_records(second))] == list(range(100, 150))


def test_final_envelope_has_the_process_and_its_last_tally(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    spool.prepare()
    spool.appender.enter()
    append_all(spool, range(3))
    spool.appender.open_answer()
    backlog, packing = make_backlog(tmp_path)
    backlog.scan()
    (early,) = [backlog.read(part)[0] for part in plan(packing)]
    spool.appender.leave()
    spool.close()
    backlog.scan()
    (last,) = [backlog.read(part)[0] for part in plan(packing)]
    assert (early.final, early.tally) == (False, (1, 0, 1, 0, 0))
    assert (last.final, last.tally) == (True, (1, 1, 1, 0, 0))
    assert last.boot_ns == early.boot_ns > 0


def test_what_a_live_segment_gains_is_seen(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    spool.prepare()
    append_all(spool, range(5))
    backlog, packing = make_backlog(tmp_path)
    backlog.scan()
    assert [(part.end, part.final) for part in plan(packing)] == [(5, False)]
    append_all(spool, range(5, 8))
    backlog.scan()
    assert [(part.end, part.final) for part in plan(packing)] == [(8, False)]
    spool.close()
    backlog.scan()
    assert [(part.end, part.final) for part in plan(packing)] == [(8, True)]


def test_oldest_segments_come_first_whichever_worker_wrote_them(tmp_path: Path) -> None:
    write_spool(tmp_path, 10, row=9, wall_ns=lambda: 100)
    write_spool(tmp_path, 10, row=2, wall_ns=lambda: 300)
    write_spool(tmp_path, 10, row=5, wall_ns=lambda: 200)
    backlog, packing = make_backlog(tmp_path)
    backlog.scan()
    assert [part.identity[1] for part in plan(packing)] == ["9-100", "5-200", "2-300"]


def test_only_as_many_segments_are_looked_at_as_are_wanted(tmp_path: Path) -> None:
    write_spool(tmp_path, 10 * CAPACITY)
    backlog, packing = make_backlog(tmp_path)  # 1,000 records at once
    backlog.scan()
    assert len(packing.to_ask()) == -(-1_000 // CAPACITY)


def test_few_files_are_open_however_many_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OPEN", 3)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        write_spool(tmp_path, 1, wall_ns=lambda number=number: number)
    backlog, packing = make_backlog(tmp_path)
    backlog.scan()
    parts = plan(packing)
    random.Random(5).shuffle(parts)
    assert len([backlog.read(part)[0] for part in parts]) == 20
    assert len(os.listdir("/proc/self/fd")) - before == 3
    backlog.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_envelope_that_would_be_too_long_is_halved(tmp_path: Path) -> None:
    write_segment(tmp_path, 100)
    backlog, packing = make_backlog(tmp_path)
    backlog.scan()
    (part,) = plan(packing)
    whole = len(backlog.read(part)[0].payload)
    envelopes = backlog.read(part, whole * 3 // 4)
    assert [(one.offset, one.count, one.final) for one in envelopes] == [(0, 50, False), (50, 50, True)]
    smallest = backlog.read(part, 1)
    assert [one.count for one in smallest] == [1] * 100
    assert [one.final for one in smallest] == [False] * 99 + [True]


def test_damaged_records_are_counted_and_the_others_are_sent(tmp_path: Path) -> None:
    path = write_segment(tmp_path, 50)
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES + 7 * RECORD_BYTES] ^= 1
    path.write_bytes(content)
    backlog, packing = make_backlog(tmp_path)
    backlog.scan()
    (envelope,) = backlog.read(plan(packing)[0])
    assert (envelope.count, envelope.damaged) == (50, 1)
    assert 7 not in [log.key_id for log in decode(read_records(envelope))]


def test_tally_that_was_flipped_keeps_no_segment_back(tmp_path: Path) -> None:
    path = write_segment(tmp_path, 5)
    content = bytearray(path.read_bytes())
    with Segment(path) as segment:
        place = next(place for place in range(0, HEADER_BYTES, 8) if is_tally(segment, content, place))
    content[place + 7] = 0xFF
    path.write_bytes(content)
    backlog, packing = make_backlog(tmp_path)
    backlog.scan()
    (envelope,) = backlog.read(plan(packing)[0])
    assert max(envelope.tally) == 2**63 - 1


def is_tally(segment: Segment, content: bytearray, place: int) -> bool:
    """Whether the word at *place* is one of the tally's: they are all that no checksum knows of."""
    segment.path.write_bytes(content[:place] + b"\x01" + content[place + 1 :])
    return sum(segment.tally()) == 1


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * HEADER_BYTES, os.urandom(70_000)])
def test_file_that_is_no_segment_is_set_aside_and_told(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    good = write_segment(tmp_path, 5)
    bad = good.with_name(f"{0:020}.seg")
    bad.write_bytes(content)
    backlog, packing = make_backlog(tmp_path)
    backlog.scan()
    backlog.scan()
    assert len(plan(packing)) == 1
    assert files(tmp_path) == [good.name]
    assert bad.with_name(bad.name + ".bad").read_bytes() == content
    assert backlog.set_aside == 1
    assert len(caplog.records) == 1 and str(bad) in caplog.text


def test_file_that_cannot_be_opened_is_left_and_keeps_no_other_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = write_segment(tmp_path, 5)
    good.with_name(f"{0:020}.seg").symlink_to(good)  # as a disk that refuses: a link is not followed
    backlog, packing = make_backlog(tmp_path)
    for _ in range(3):
        backlog.scan()
    assert len(plan(packing)) == 1
    assert len(files(tmp_path)) == 2 and backlog.set_aside == 0
    assert len(caplog.records) == 1 and "tried again" in caplog.text


def test_file_that_is_no_segment_and_cannot_be_set_aside_keeps_no_other_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = write_segment(tmp_path, 5)
    bad = good.with_name(f"{0:020}.seg")
    bad.write_bytes(b"no segment")
    bad.with_name(bad.name + ".bad").mkdir()  # as a disk that refuses: no file is given a folder's name
    backlog, packing = make_backlog(tmp_path)
    for _ in range(3):
        backlog.scan()
    assert len(plan(packing)) == 1
    assert bad.exists() and backlog.set_aside == 0
    assert len(caplog.records) == 1 and "tried again" in caplog.text


def test_segment_that_turns_out_to_be_none_gives_nothing_of_its_other_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_OPEN", 1)
    path = write_segment(tmp_path, 150)
    write_spool(tmp_path, 5)  # another one, which stays open
    backlog, packing = make_backlog(tmp_path)
    backlog.scan()
    parts = [part for part in plan(packing) if part.identity[1] == "3-1"]
    path.write_bytes(b"no segment")
    assert [backlog.read(part) for part in parts] == [[], []]
    assert backlog.set_aside == 1


def test_segment_that_somebody_removed_is_forgotten(tmp_path: Path) -> None:
    path = write_segment(tmp_path, 5)
    backlog, packing = make_backlog(tmp_path)
    backlog.scan()
    (part,) = plan(packing)
    path.unlink()
    backlog.scan()
    assert part.identity not in packing


def test_segment_that_vanishes_before_it_is_read_gives_nothing_and_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MOST_OPEN", 1)
    path = write_segment(tmp_path, 5)
    write_spool(tmp_path, 5)  # another one, which stays open
    backlog, packing = make_backlog(tmp_path)
    backlog.scan()
    part = next(part for part in plan(packing) if part.identity[1] == "3-1")
    path.unlink()
    assert backlog.read(part) == []
    assert not caplog.records


def test_envelope_of_fewer_places_than_planned_does_not_claim_to_be_the_end(tmp_path: Path) -> None:
    with Segment(write_segment(tmp_path, 50)) as segment:
        envelope = module.make_envelope(segment, Part(segment.identity, 40, 60, True))
    assert (envelope.offset, envelope.count, envelope.final) == (40, 10, False)


def test_deleted_segment_is_gone_and_closed(tmp_path: Path) -> None:
    path = write_segment(tmp_path, 5)
    backlog, packing = make_backlog(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    backlog.scan()
    (part,) = plan(packing)
    backlog.delete(part.identity)
    assert not path.exists() and part.identity not in packing
    assert len(os.listdir("/proc/self/fd")) == before


def test_segments_of_another_name_of_this_node_keep_it(tmp_path: Path) -> None:
    write_spool(tmp_path, 1, node="Before")
    write_spool(tmp_path, 1)
    backlog, packing = make_backlog(tmp_path)
    backlog.scan()
    assert {part.identity[0] for part in plan(packing)} == {"Before", NODE}
