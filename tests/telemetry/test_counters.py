"""The counters by themselves: what they add up to, what they refuse, and that they are their twin's equal."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry import _counters
from telemetry._counters import (
    FEED_TICKS,
    GOVERNOR_DELAYS,
    MAX_WORKERS,
    NAMES,
    TCP_REQUESTS,
    CounterReader,
    Counters,
    counters_size,
    format_counters,
)
from telemetry.exceptions import LayoutError
from tests.twins import counters as twin


@pytest.fixture
def buffer() -> bytearray:
    memory = bytearray(counters_size())
    format_counters(memory)
    return memory


def test_names_are_the_published_ones_and_each_has_its_constant() -> None:
    assert list(NAMES) == twin.NAMES
    assert [getattr(_counters, name.upper()) for name in NAMES] == list(range(24))


def test_totals_add_all_workers_up(buffer: bytearray) -> None:
    for worker in (0, 5, MAX_WORKERS - 1):
        counters = Counters(buffer, worker)
        counters.add(TCP_REQUESTS)
        counters.add(GOVERNOR_DELAYS, 10)
    totals = CounterReader(buffer).totals()
    assert totals["tcp_requests"] == 3
    assert totals["governor_delays"] == 30
    assert sum(totals.values()) == 33


def test_rows_end_with_the_highest_worker_that_ever_counted(buffer: bytearray) -> None:
    reader = CounterReader(buffer)
    assert reader.rows() == []
    Counters(buffer, 2).add(FEED_TICKS, 7)
    assert [row["feed_ticks"] for row in reader.rows()] == [0, 0, 7]


def test_worker_in_the_place_of_another_counts_on(buffer: bytearray) -> None:
    reader = CounterReader(buffer)
    seen = []
    for _ in range(3):
        Counters(buffer, 1).add(TCP_REQUESTS, 2)
        seen.append(reader.totals()["tcp_requests"])
    assert seen == [2, 4, 6]


def test_counter_beyond_32_bits_is_kept(buffer: bytearray) -> None:
    Counters(buffer, 0).add(TCP_REQUESTS, 2**63)
    assert CounterReader(buffer).totals()["tcp_requests"] == 2**63


@pytest.mark.parametrize("index", [24, 2**31])
def test_unknown_counter_is_refused(index: int, buffer: bytearray) -> None:
    before = bytes(buffer)
    counters = Counters(bytearray(buffer), 0)
    with pytest.raises(IndexError):
        counters.add(index)
    assert buffer == before


@pytest.mark.parametrize("n", [-1, 2**64])
def test_addition_that_would_go_back_is_refused(n: int, buffer: bytearray) -> None:
    with pytest.raises(OverflowError):
        Counters(buffer, 0).add(TCP_REQUESTS, n)


@pytest.mark.parametrize("worker", [-1, MAX_WORKERS])
def test_worker_without_a_row_is_refused(worker: int, buffer: bytearray) -> None:
    with pytest.raises(ValueError, match="0 to 63"):
        Counters(buffer, worker)


def test_closed_counters_let_go_of_their_memory_and_count_nowhere() -> None:
    memory = mmap.mmap(-1, counters_size())
    format_counters(memory)
    counters, reader = Counters(memory, 0), CounterReader(memory)
    for opened in (counters, reader):
        opened.close()
        opened.close()
    counters.add(TCP_REQUESTS)
    assert CounterReader(bytes(memory)).totals()["tcp_requests"] == 0
    memory.close()
    with pytest.raises(ValueError, match="closed"):
        reader.totals()
    with pytest.raises(ValueError, match="closed"):
        reader.rows()


def test_format_refuses_memory_of_another_size() -> None:
    with pytest.raises(LayoutError, match=f"is 8, expected {counters_size()}"):
        format_counters(bytearray(8))


REFUSED: dict[str, tuple[Callable[[bytearray], Any], str]] = {
    "empty": (lambda b: b"", r"size in bytes is 0, expected \d+"),
    "foreign": (lambda b: b"GARBAGE!" + b[8:], r"magic is 0x2145.*, expected 0x3154"),
    "newer version": (lambda b: b[:8] + struct.pack("=I", 2) + b[12:], r"version is 2, expected 1"),
    "other workers": (lambda b: b[:12] + struct.pack("=I", 9) + b[16:], r"recorded size for 9 workers"),
    "other size": (lambda b: b[:16] + struct.pack("=Q", 9) + b[24:], r"recorded size .* is 9, expected"),
    "truncated": (lambda b: b[:-8], r"size in bytes is \d+, expected"),
    "unaligned": (lambda b: memoryview(bytearray(b"\0" + b))[1:], r"alignment is 1 bytes off"),
}


@pytest.mark.parametrize(("spoil", "message"), REFUSED.values(), ids=REFUSED)
def test_memory_that_holds_no_such_counters_is_refused(
    spoil: Callable[[bytearray], Any], message: str, buffer: bytearray
) -> None:
    memory = spoil(buffer)
    with pytest.raises(LayoutError, match=message):
        CounterReader(memory)
    if not isinstance(memory, bytes):
        with pytest.raises(LayoutError, match=message):
            Counters(memory, 0)


ADDITIONS = st.tuples(st.integers(0, MAX_WORKERS - 1), st.integers(0, 23), st.integers(0, 2**40))


@given(st.lists(ADDITIONS, max_size=50))
def test_any_additions_leave_counters_and_twin_with_the_same_bytes(
    additions: list[tuple[int, int, int]],
) -> None:
    buffers = bytearray(counters_size()), bytearray(twin.SIZE)
    format_counters(buffers[0])
    twin.format_counters(buffers[1])
    for worker, index, n in additions:
        Counters(buffers[0], worker).add(index, n)
        twin.Counters(buffers[1], worker).add(index, n)
    assert buffers[0] == buffers[1]
    assert CounterReader(buffers[0]).totals() == twin.CounterReader(buffers[1]).totals()
    assert CounterReader(buffers[0]).rows() == twin.CounterReader(buffers[1]).rows()
