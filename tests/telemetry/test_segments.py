"""Reading segments: while they are written, after a kill, and after the disk has damaged them."""

from __future__ import annotations

import fcntl
import os
import random
from pathlib import Path

import pytest

from telemetry._spool import HEADER_BYTES, MIN_SEGMENT_BYTES, RECORD_BYTES, decode, make_header
from telemetry.exceptions import LayoutError
from telemetry.segments import LOCK, Extent, Segment, find_segments, remove_left, segment_name, used_bytes
from tests.telemetry.spooling import (
    BOOT_NS,
    CAPACITY,
    NODE,
    ROW,
    SIZE,
    append_all,
    make_log,
    make_memory,
    make_spool,
    read_numbers,
    write_segment,
)

COUNT = 100
RECORDS_END = HEADER_BYTES + COUNT * RECORD_BYTES


def sizes(ordinary: int, full: int) -> pytest.MarkDecorator:
    marks = [pytest.mark.full, pytest.mark.timeout(3600)]
    return pytest.mark.parametrize("times", [ordinary, pytest.param(full, marks=marks)])


def test_live_segment_is_read_as_far_as_it_has_been_written(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    spool.prepare()
    (path,) = find_segments(tmp_path)
    with Segment(path) as segment:
        assert segment.look() == Extent(0, sealed=False, final=False)
        for number in range(10):
            spool.appender.append(make_log(number))
            assert segment.alive
            assert segment.look() == Extent(number + 1, sealed=False, final=False)
            assert [log.key_id for log in decode(segment.read(number, 5).records)] == [number]
        spool.close()
        assert not segment.alive
        assert segment.look() == Extent(10, sealed=True, final=True)


def test_segment_tells_its_identity(tmp_path: Path) -> None:
    with Segment(write_segment(tmp_path, 3)) as segment:
        assert segment.identity == (NODE, f"{ROW}-1")
        assert (segment.header.segment_bytes, segment.header.capacity) == (SIZE, CAPACITY)


def test_unsealed_segment_of_a_dead_writer_is_final_with_all_that_was_appended(tmp_path: Path) -> None:
    path = write_segment(tmp_path, COUNT, sealed=False)
    with Segment(path) as segment:
        assert segment.look() == Extent(COUNT, sealed=False, final=True)
    assert read_numbers(path) == ([*range(COUNT)], 0)


def test_last_record_counts_although_its_writer_died_before_counting_it(tmp_path: Path) -> None:
    path = write_segment(tmp_path, COUNT, sealed=False)
    patch(path, 256, write_segment(tmp_path / "before", COUNT - 1, sealed=False).read_bytes()[256:264])
    assert read_numbers(path) == ([*range(COUNT)], 0)


def test_reading_stops_where_it_was_asked_to_and_goes_on_from_there(tmp_path: Path) -> None:
    with Segment(write_segment(tmp_path, COUNT)) as segment:
        first, second = segment.read(0, 60), segment.read(60, 60)
        assert (first.start, first.end, first.damaged) == (0, 60, 0)
        assert (second.start, second.end, second.damaged) == (60, COUNT, 0)
        assert [log.key_id for log in decode(second.records)] == [*range(60, COUNT)]
        assert segment.read(COUNT).end == COUNT
        assert len(segment.read(COUNT + 5).records) == 0


def test_reading_from_nowhere_is_an_error(tmp_path: Path) -> None:
    with (
        Segment(write_segment(tmp_path, 1)) as segment,
        pytest.raises(ValueError, match="no 1 records from -1"),
    ):
        segment.read(-1, 1)


def test_segments_are_found_by_row_and_age(tmp_path: Path) -> None:
    names = ["2/" + segment_name(7), "2/" + segment_name(30), "10/" + segment_name(5)]
    for name in [*reversed(names), f"2/{segment_name(40)[:-4]}.new"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1234")
    assert [str(path.relative_to(tmp_path)) for path in find_segments(tmp_path)] == names
    assert used_bytes(tmp_path) == 16
    (tmp_path / "2" / "other.new").hardlink_to(tmp_path / names[0])
    assert used_bytes(tmp_path) == 16  # it has two names


def test_segment_whose_file_began_again_has_vanished(tmp_path: Path) -> None:
    path = write_segment(tmp_path, COUNT)
    with Segment(path) as segment:
        patch(path, 0, make_header(NODE, ROW, 2, SIZE, BOOT_NS))
        for ask in (segment.look, segment.tally, lambda: segment.read(0, COUNT)):
            with pytest.raises(FileNotFoundError):
                ask()


def test_segment_whose_file_began_again_while_it_was_read_has_vanished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_segment(tmp_path, COUNT)
    with Segment(path) as segment:
        read = segment._records

        def meanwhile(start: int, end: int) -> memoryview:
            patch(path, 0, make_header(NODE, ROW, 2, SIZE, BOOT_NS))
            return read(start, end)

        monkeypatch.setattr(segment, "_records", meanwhile)
        with pytest.raises(FileNotFoundError):
            segment.read(0, COUNT)


def test_what_a_dead_worker_has_left_is_removed_and_no_segment(tmp_path: Path) -> None:
    path, left, made = write_segment(tmp_path, 1), tmp_path / "1.new", tmp_path / str(ROW) / "2.new"
    kept = path.with_suffix(".new")
    kept.hardlink_to(path)
    made.write_bytes(b"")
    left.write_bytes(b"")
    remove_left(path.parent, older_s=60)
    assert kept.exists() and made.exists()
    with made.open("r+b") as live:
        fcntl.fcntl(live, fcntl.F_OFD_SETLK, LOCK.pack(fcntl.F_WRLCK, 0, 0, 1, 0))
        remove_left(path.parent)
        assert [made.exists(), kept.exists(), left.exists(), path.exists()] == [True, False, True, True]
    remove_left(path.parent)
    assert not made.exists()


# -- damage


def patch(path: Path, place: int, value: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(value)


def flip(path: Path, place: int, bit: int) -> None:
    patch(path, place, bytes([path.read_bytes()[place] ^ 1 << bit]))


@pytest.mark.parametrize("sealed", [True, False])
@sizes(300, full=10_000)
def test_flipped_bit_loses_the_record_that_it_hits_and_no_other(
    times: int, sealed: bool, tmp_path: Path
) -> None:
    path, chance = write_segment(tmp_path, COUNT, sealed=sealed), random.Random(times)
    whole = path.read_bytes()
    for _ in range(times):
        # Half of them in the header, of which the record's share would be small.
        place = chance.choice([chance.randrange(HEADER_BYTES), chance.randrange(HEADER_BYTES, SIZE)])
        flip(path, place, chance.randrange(8))
        hit = (place - HEADER_BYTES) // RECORD_BYTES
        lost = {hit} & {*range(COUNT)}
        assert read_numbers(path) == ([number for number in range(COUNT) if number not in lost], len(lost))
        patch(path, place, whole[place : place + 1])


@sizes(300, full=10_000)
def test_many_flipped_bits_are_counted_exactly(times: int, tmp_path: Path) -> None:
    path, chance = write_segment(tmp_path, COUNT), random.Random(times)
    whole = path.read_bytes()
    for _ in range(times // 10):
        places = chance.sample(range(HEADER_BYTES, RECORDS_END), 10)
        for place in places:
            flip(path, place, chance.randrange(8))
        lost = {(place - HEADER_BYTES) // RECORD_BYTES for place in places}
        assert read_numbers(path) == ([number for number in range(COUNT) if number not in lost], len(lost))
        path.write_bytes(whole)


@sizes(400, full=SIZE)
def test_truncated_segment_loses_what_was_cut_off_and_counts_it(times: int, tmp_path: Path) -> None:
    path = write_segment(tmp_path, COUNT)
    whole = path.read_bytes()
    places = range(SIZE) if times == SIZE else random.Random(times).sample(range(264, SIZE), times)
    for size in places:
        path.write_bytes(whole[:size])
        if size < 112:
            with pytest.raises(LayoutError, match="size in bytes"):
                Segment(path)
        elif size >= 264:  # the counts are in the header up to there
            left = max(0, min(COUNT, (size - HEADER_BYTES) // RECORD_BYTES))
            assert read_numbers(path) == ([*range(left)], COUNT - left)


def test_unsealed_segment_cut_off_knows_what_is_missing(tmp_path: Path) -> None:
    path = write_segment(tmp_path, COUNT, sealed=False)
    os.truncate(path, HEADER_BYTES + 10 * RECORD_BYTES + 7)
    assert read_numbers(path) == ([*range(10)], COUNT - 10)


@pytest.mark.parametrize("sealed", [True, False])
def test_tail_of_zeros_is_counted_as_damaged(sealed: bool, tmp_path: Path) -> None:
    path = write_segment(tmp_path, COUNT, sealed=sealed)
    patch(path, HEADER_BYTES + 50 * RECORD_BYTES, bytes(SIZE - HEADER_BYTES - 50 * RECORD_BYTES))
    assert read_numbers(path) == ([*range(50)], COUNT - 50)


def test_segment_without_any_count_is_read_up_to_its_last_whole_record(tmp_path: Path) -> None:
    path = write_segment(tmp_path, COUNT)
    patch(path, 192, b"\xff" * 8)
    patch(path, 256, b"\xff" * 8)
    patch(path, HEADER_BYTES + 20 * RECORD_BYTES, bytes(RECORD_BYTES))
    assert read_numbers(path) == ([number for number in range(COUNT) if number != 20], 1)


def test_swapped_segments_are_refused(tmp_path: Path) -> None:
    path = write_segment(tmp_path, 3)
    other = path.with_name(segment_name(2))
    path.rename(other)
    with pytest.raises(LayoutError, match="the name"):
        Segment(other)
    (tmp_path / "9").mkdir()
    with pytest.raises(LayoutError, match="the name"):
        Segment(other.rename(tmp_path / "9" / segment_name(1)))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "size in bytes"),
        (bytes(SIZE), "magic"),
        (bytes(make_memory()) + b"more", "size in bytes"),
        (b"TRSPOOL1" + b"\2\0\0\0" + bytes(SIZE), "layout version is 2, expected 1"),
        (b"x" * MIN_SEGMENT_BYTES, "magic"),
    ],
)
def test_file_that_is_no_segment_is_refused_and_closed(content: bytes, what: str, tmp_path: Path) -> None:
    path = write_segment(tmp_path, 0)
    path.write_bytes(content)
    opened = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LayoutError, match=what):
        Segment(path)
    assert len(os.listdir("/proc/self/fd")) == opened


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    segment = Segment(write_segment(tmp_path, 1))
    segment.close()
    segment.close()


def test_second_opening_sees_what_the_first_one_saw(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    spool.prepare()
    append_all(spool, range(CAPACITY + 10))
    spool.close()
    paths = list(find_segments(tmp_path))
    assert [read_numbers(path) for path in paths] == [read_numbers(path) for path in paths]
    assert [len(read_numbers(path)[0]) for path in paths] == [CAPACITY, 10]
