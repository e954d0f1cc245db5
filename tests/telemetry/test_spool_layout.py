"""The spool's segments as bytes: the compiled appender against its twin, and whatever a kill leaves."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry import _spool
from telemetry._spool import (
    ENDPOINTS,
    HEADER_BYTES,
    MAX_SEGMENT_BYTES,
    PROTOCOLS,
    RECORD_BYTES,
    REPORT_REPORT_SUMMARY,
    SOURCES,
    UDP,
    Appender,
    UsageLog,
    crc32c,
    decode,
    make_header,
    read_counts,
    read_header,
    sift,
)
from telemetry.exceptions import LayoutError
from telemetry.segments import segment_name
from tests.telemetry.spooling import CAPACITY, NODE, ROW, SIZE, make_log, make_memory, read_numbers
from tests.twins import spool as twin

WORDS = st.integers(0, 2**64 - 1)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=50)
LOGS = st.builds(
    UsageLog,
    time_ns=WORDS,
    key_id=WORDS,
    account_id=WORDS,
    month=st.integers(0, 2**32 - 1),
    latency_us=st.integers(0, 2**40),
    status=st.integers(0, 2**16 - 1),
    assets=st.integers(0, 1000),
    tier=st.integers(0, 255),
    source=st.integers(0, 255),
    flags=st.integers(0, 255),
    protocol=st.integers(0, 255),
    endpoint=st.integers(0, 255),
    asset=TEXTS,
    exchange=TEXTS,
    price=TEXTS,
    quote=TEXTS,
)
# What may happen: an append, a run of them that fills most of a segment, and what the other thread does.
STEPS = st.one_of(
    LOGS,
    st.integers(1, CAPACITY).map(lambda count: ("run", count)),
    st.sampled_from(
        [("admits", 0), ("refuse", 0), ("enter", 0), ("leave", 0), ("open_answer", 0), ("close_answer", 0)]
    ),
    st.integers(1, CAPACITY).map(lambda count: ("owe", count)),
    st.integers(1, CAPACITY).map(lambda count: ("promise", count)),
    st.booleans().map(lambda sheds: ("shed", sheds)),
    st.just(("publish", 0)),
    st.just(("retire", 0)),
    st.integers(1, 4).map(lambda number: ("condemn", number)),
)


class Both:
    """The compiled appender and its twin, each over its own memories."""

    def __init__(self) -> None:
        self.appenders: list[Any] = [Appender(), twin.Appender()]
        self.memories: list[list[bytearray]] = [[], []]

    def publish(self) -> None:
        created_ns = len(self.memories[0]) + 1
        for appender, memories in zip(self.appenders, self.memories, strict=True):
            memories.append(make_memory(created_ns))
            appender.publish(memories[-1])

    def alike(self, call: str, *arguments: object) -> Any:
        """Call both; they must give the same, or raise the same."""
        results = []
        for appender in self.appenders:
            try:
                results.append(getattr(appender, call)(*arguments))
            except (KeyError, ValueError) as error:
                results.append(type(error))
        assert results[0] == results[1]
        return results[0]

    def play(self, step: Any) -> None:
        match step:
            case UsageLog():
                self.alike("append", step)
            case "run", count:
                for number in range(count):
                    self.alike("append", make_log(number))
            case "publish", _:
                if self.appenders[0].wanting:
                    self.publish()
            case "retire", _:
                for number in self.alike("take_retired"):
                    self.alike("release", number)
            case "condemn", number:
                self.alike("condemn", number)
            case "owe", count:
                for _ in range(count):
                    self.alike("admits")
                    self.alike("open_answer")
            case "promise", count:
                for _ in range(count):
                    self.alike("admits")
                    self.alike("promise")
                self.alike("admits")
                for _ in range(count // 2):
                    self.alike("fulfil")
            case "shed", sheds:
                for appender in self.appenders:
                    appender.sheds = sheds
            case "close_answer", _:
                if self.appenders[1].tally.opened > self.appenders[1].tally.closed:
                    self.alike("close_answer")
            case call, _:
                self.alike(call)

    def check(self) -> None:
        native, plain = self.appenders
        assert self.memories[0] == self.memories[1]
        assert (native.appended, native.refused, native.tally) == (plain.appended, plain.refused, plain.tally)
        assert native.wanting == plain.wanting


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_random_histories_leave_the_same_bytes_as_the_twins(steps: list[Any]) -> None:
    both = Both()
    both.publish()
    for step in steps:
        both.play(step)
        both.check()
    both.alike("close")
    both.check()


@given(TEXTS, st.integers(0, 2**32 - 1), WORDS, st.integers(1, 40), WORDS)
def test_headers_are_the_twins(node: str, row: int, created_ns: int, pages: int, boot_ns: int) -> None:
    results: list[Any] = []
    for module in (_spool, twin):
        try:
            page = module.make_header(node, row, created_ns, pages * HEADER_BYTES, boot_ns)  # type: ignore[attr-defined]
            results.append((page, module.read_header(page)))  # type: ignore[attr-defined]
        except ValueError:
            results.append(None)
    assert results[0] == results[1]


@given(st.data())
def test_damaged_headers_are_judged_as_the_twin_judges_them(data: st.DataObject) -> None:
    page = bytearray(make_memory()[:HEADER_BYTES])
    for place in data.draw(st.lists(st.one_of(st.integers(0, 300), st.integers(2040, 2180)), max_size=3)):
        page[place] ^= 1 << data.draw(st.integers(0, 7))
    cut = bytes(page[: data.draw(st.sampled_from([HEADER_BYTES, HEADER_BYTES, 3000, 120, 119, 0]))])
    results: list[Any] = []
    for module in (_spool, twin):
        try:
            header = module.read_header(cut)  # type: ignore[attr-defined]
            results.append((header, module.read_counts(cut.ljust(HEADER_BYTES, b"\0"), header)))  # type: ignore[attr-defined]
        except LayoutError:
            results.append(LayoutError)
    assert results[0] == results[1]


@settings(max_examples=50)
@given(st.integers(0, 40), st.integers(0, 5), st.lists(st.tuples(st.integers(0, 6399), st.integers(0, 7))))
def test_damaged_records_are_sifted_as_the_twin_sifts_them(
    written: int, start: int, flips: list[tuple[int, int]]
) -> None:
    memory = with_records(written)
    records = memory[HEADER_BYTES + start * RECORD_BYTES : HEADER_BYTES + 40 * RECORD_BYTES]
    for place, bit in flips:
        records[place % len(records)] ^= 1 << bit
    other = bytearray(records)
    seed = read_header(memory[:HEADER_BYTES]).seed
    kept, end = sift(records, start, seed)
    assert (kept, end) == twin.sift(other, start, seed)
    assert records[: kept * RECORD_BYTES] == other[: kept * RECORD_BYTES]


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
def test_checksum_is_the_same_by_instruction_by_tables_and_in_python(text: bytes, crc: int) -> None:
    assert crc32c(text, crc) == crc32c(text, crc, portable=True) == twin.crc32c(text, crc)


def test_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of its catalogue entry


def with_records(count: int, created_ns: int = 1) -> bytearray:
    memory, appender = make_memory(created_ns), Appender()
    appender.publish(memory)
    assert all(appender.append(make_log(number)) for number in range(count))
    return memory


def read_logs(memory: bytearray) -> list[UsageLog]:
    """What a reader finds once the writer is dead."""
    records = memory[HEADER_BYTES:]
    kept, end = sift(records, 0, read_header(memory[:HEADER_BYTES]).seed)
    assert kept == end  # nothing damaged in between
    return decode(records[: kept * RECORD_BYTES])


@pytest.mark.parametrize("before", [0, 1, 25, CAPACITY - 1])
def test_appender_killed_at_any_store_leaves_what_was_appended_and_at_most_the_one_in_hand(
    before: int,
) -> None:
    for stores in range(100):
        memory, appender = make_memory(), twin.Appender()
        appender.publish(memory)
        for number in range(before):
            appender.append(make_log(number))  # type: ignore[arg-type]  # the compiled module's has the same fields
        appender.stores_left = stores
        try:
            appender.append(make_log(before))  # type: ignore[arg-type]
        except twin.Killed:
            found = read_logs(memory)
            assert [log.key_id for log in found] in ([*range(before)], [*range(before + 1)])
            assert found == [make_log(log.key_id, sequence=log.key_id + 1) for log in found]
            sealed, written = read_counts(memory[:HEADER_BYTES], read_header(memory[:HEADER_BYTES]))
            assert sealed is None
            assert written in (before, before + 1)
            assert written is not None and written <= len(found)  # what it counts is there
        else:
            assert stores == RECORD_BYTES // 8 + 1 + (before == CAPACITY - 1) + 5 * (before == 0)
            assert len(read_logs(memory)) == before + 1
            return
    pytest.fail("an append never ended")


STOPPED_AT = """
import ctypes, mmap, resource, sys
from telemetry._spool import Appender
from tests.telemetry.spooling import SIZE, make_log
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
before, page = int(sys.argv[2]), int(sys.argv[3])
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), SIZE)
appender = Appender()
appender.publish(memory)
for number in range(before):
    appender.append(make_log(number))
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + page * 4096), 4096, 1) == 0
appender.append(make_log(before))
"""


@pytest.mark.parametrize(
    ("page", "left"),
    [(1, 25), (2, 25), (0, 26)],
    ids=["before the record", "within the record", "before it is counted"],
)
def test_compiled_appender_stopped_between_its_stores_leaves_no_half_record(
    page: int, left: int, tmp_path: Path
) -> None:
    # The record after 25 others lies across two pages: whichever may not be written, the process ends there.
    assert 25 * RECORD_BYTES < 4096 < 26 * RECORD_BYTES
    folder = tmp_path / str(ROW)
    folder.mkdir()
    path = folder / segment_name(1)
    path.write_bytes(make_memory())
    command = [sys.executable, "-c", STOPPED_AT, str(path), "25", str(page)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGSEGV
    assert read_numbers(path) == ([*range(left)], 0)


@given(LOGS)
def test_record_comes_back_as_it_was_appended(log: UsageLog) -> None:
    memory, appender = make_memory(), Appender()
    appender.publish(memory)
    assert appender.append(log)
    (found,) = read_logs(memory)
    assert found.latency_us == min(log.latency_us, 2**32 - 1)
    assert found.assets == min(log.assets, 255)
    for name, size in (("asset", 32), ("exchange", 32), ("price", 40), ("quote", 8)):
        encoded = getattr(log, name).encode()[:size]
        assert getattr(found, name) == encoded.decode(errors="replace")
    numbers = ("time_ns", "key_id", "account_id", "month", "status")
    numbers += ("tier", "source", "flags", "protocol", "endpoint")
    assert all(getattr(found, name) == getattr(log, name) for name in numbers)
    assert found.sequence == 1


def test_names_belong_to_their_numbers() -> None:
    assert PROTOCOLS[UDP] == "udp"
    assert SOURCES[_spool.NO_SOURCE] == "none"
    assert ENDPOINTS[REPORT_REPORT_SUMMARY] == "reports/report-summary"
    assert len(ENDPOINTS) == REPORT_REPORT_SUMMARY + 1


def test_full_segment_is_sealed_at_once_and_the_prepared_one_goes_on() -> None:
    first, second, appender = make_memory(1), make_memory(2), Appender()
    appender.publish(first)
    for number in range(CAPACITY - 1):
        assert appender.append(make_log(number))
    assert appender.wanting
    appender.publish(second)
    assert appender.append(make_log(CAPACITY - 1))
    assert read_counts(first[:HEADER_BYTES], read_header(first[:HEADER_BYTES])) == (CAPACITY, CAPACITY)
    assert appender.take_retired() == [1]
    assert appender.append(make_log(CAPACITY))
    assert [log.key_id for log in read_logs(second)] == [CAPACITY]


def test_full_segment_that_was_let_go_of_is_not_touched_by_the_next_append() -> None:
    appender = Appender()
    number = appender.publish(make_memory(1))
    for created_ns in range(2, 20):
        while appender.take_retired() != [number]:
            assert appender.append(make_log(0))
        appender.release(number)
        number = appender.publish(make_memory(created_ns))  # mostly lies where the last one was freed
        assert appender.append(make_log(0))
        assert appender.wanting


def test_append_without_room_is_shed_and_counted_until_there_is_room() -> None:
    appender = Appender()
    assert not appender.append(make_log(0))
    appender.publish(make_memory())
    assert all(appender.append(make_log(number)) for number in range(CAPACITY))
    assert not appender.append(make_log(CAPACITY))
    assert (appender.appended, appender.tally.shed) == (CAPACITY, 2)
    appender.publish(make_memory(2))
    assert appender.append(make_log(CAPACITY))


def test_condemned_segment_is_sealed_with_what_it_has() -> None:
    first, second, appender = make_memory(1), make_memory(2), Appender()
    number = appender.publish(first)
    assert appender.append(make_log(0))
    appender.publish(second)
    appender.condemn(number)
    assert appender.append(make_log(1))
    assert read_counts(first[:HEADER_BYTES], read_header(first[:HEADER_BYTES])) == (1, 1)
    assert [log.key_id for log in read_logs(second)] == [1]


def test_condemned_segment_that_was_never_used_takes_no_record() -> None:
    memory, appender = make_memory(), Appender()
    appender.condemn(appender.publish(memory))
    assert not appender.append(make_log(0))
    assert appender.wanting
    assert read_logs(memory) == []


def test_segment_that_may_be_appended_to_is_not_let_go_of() -> None:
    appender = Appender()
    number = appender.publish(make_memory())
    with pytest.raises(ValueError, match="may still be appended to"):
        appender.release(number)
    appender.append(make_log(0))
    with pytest.raises(ValueError, match="may still be appended to"):
        appender.release(number)


def test_closed_appender_refuses_and_has_sealed_what_it_had() -> None:
    memory, appender = make_memory(), Appender()
    appender.publish(memory)
    appender.append(make_log(0))
    assert appender.close() == [1]
    assert appender.close() == []
    assert not appender.append(make_log(1))
    assert not appender.wanting
    assert read_counts(memory[:HEADER_BYTES], read_header(memory[:HEADER_BYTES])) == (1, 1)
    with pytest.raises(ValueError, match="closed"):
        appender.publish(make_memory(2))


def test_segment_in_which_there_is_something_is_not_appended_to() -> None:
    with pytest.raises(ValueError, match="not empty"):
        Appender().publish(with_records(1))


def test_second_prepared_segment_is_refused() -> None:
    appender = Appender()
    appender.publish(make_memory())
    with pytest.raises(ValueError, match="prepared"):
        appender.publish(make_memory(2))


def test_record_of_another_segment_or_place_is_none_of_this_one() -> None:
    memory, other = with_records(3), with_records(3, created_ns=2)
    seed = read_header(memory[:HEADER_BYTES]).seed
    assert sift(memory[HEADER_BYTES:], 0, seed) == (3, 3)
    assert sift(other[HEADER_BYTES:], 0, seed) == (0, 0)
    assert sift(memory[HEADER_BYTES:], 1, seed) == (0, 0)


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        (0, b"X", "the magic"),
        (8, b"\7", "the layout version"),
        (40, b"X", "the header's checksum"),
    ],
)
def test_foreign_header_is_refused_with_what_differs(place: int, value: bytes, what: str) -> None:
    page = bytearray(make_memory()[:HEADER_BYTES])
    for start in (0, 2048):
        page[start + place : start + place + 1] = value
    with pytest.raises(LayoutError, match=what):
        read_header(page)


@pytest.mark.parametrize(("at", "value", "what"), [(12, 152, "size of a record"), (44, 99, "capacity")])
def test_header_that_contradicts_itself_is_refused(at: int, value: int, what: str) -> None:
    identity = bytearray(make_memory()[:120])
    identity[at : at + 4] = value.to_bytes(4, "little")
    identity[116:] = crc32c(identity[:116]).to_bytes(4, "little")
    with pytest.raises(LayoutError, match=what):
        read_header(identity)


@pytest.mark.parametrize(
    ("node", "size"),
    [
        ("", SIZE),
        ("n" * 65, SIZE),
        (NODE, SIZE - HEADER_BYTES),
        (NODE, SIZE + 1),
        (NODE, 2 * MAX_SEGMENT_BYTES),
    ],
)
def test_segment_that_cannot_be_is_not_made(node: str, size: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        make_header(node, ROW, 1, size, 1)


def test_memory_of_another_size_than_its_header_says_is_refused() -> None:
    with pytest.raises(LayoutError, match="size in bytes"):
        Appender().publish(make_memory() + bytes(HEADER_BYTES))


def test_sync_of_what_is_no_mapped_file_raises_as_the_system_does() -> None:
    memory, appender = memoryview(mmap.mmap(-1, 2 * SIZE))[8 : 8 + SIZE], Appender()
    memory[:] = make_memory()  # which begins at no page
    number = appender.publish(memory)
    appender.sync(number)  # nothing to be done yet
    appender.append(make_log(0))
    with pytest.raises(OSError) as caught:
        appender.sync(number)
    assert caught.value.strerror == os.strerror(caught.value.errno or 0)
    appender.condemn(number)
    appender.sync(number)  # never tried again
