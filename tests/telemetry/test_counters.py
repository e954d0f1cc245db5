"""The counters by themselves: what they add up to, what they refuse, and that they are their twin's equal."""

from __future__ import annotations

import itertools
import mmap
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry import _counters
from telemetry._counters import (
    DROP_REASONS,
    DROPPED_EMPTY,
    DROPPED_STOPPED,
    FEED_TICKS,
    GOVERNOR_DELAYS,
    HTTP_LATENCY,
    LATENCY_BUCKETS,
    LATENCY_NAMES,
    LAYOUT_VERSION,
    LOWEST_LATENCY_NS,
    MAX_WORKERS,
    NAMES,
    TCP_REQUESTS,
    UDP_LATENCY,
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


def test_reasons_and_latencies_have_their_constants_in_the_same_order() -> None:
    assert list(DROP_REASONS) == twin.REASONS
    assert [getattr(_counters, f"DROPPED_{name.upper()}") for name in DROP_REASONS] == list(range(16))
    assert list(LATENCY_NAMES) == twin.KINDS
    assert [getattr(_counters, f"{name.upper()}_LATENCY") for name in LATENCY_NAMES] == [0, 1]


def test_totals_add_all_workers_up(buffer: bytearray) -> None:
    for worker in (0, 5, MAX_WORKERS - 1):
        counters = Counters(buffer, worker)
        counters.add(TCP_REQUESTS)
        counters.add(GOVERNOR_DELAYS, 10)
    totals = CounterReader(buffer).totals()
    assert totals["tcp_requests"] == 3
    assert totals["governor_delays"] == 30
    assert sum(totals.values()) == 33


def test_epoch_is_the_instant_of_formatting_on_both_clocks() -> None:
    before = time.time_ns(), time.monotonic_ns()
    memory = bytearray(counters_size())
    format_counters(memory)
    reader = CounterReader(memory)
    assert before[0] <= reader.epoch_ns <= time.time_ns()
    assert before[1] <= reader.epoch_mono_ns <= time.monotonic_ns()


def test_workers_are_named_once_they_have_a_row(buffer: bytearray) -> None:
    reader = CounterReader(buffer)
    for worker in (0, 32, 32, MAX_WORKERS - 1):
        Counters(buffer, worker)
    assert reader.workers() == [0, 32, MAX_WORKERS - 1]


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


@pytest.mark.parametrize("index", [2, 16, 24, 2**31])
def test_unknown_reason_or_kind_of_latency_is_refused(index: int, buffer: bytearray) -> None:
    counters = Counters(buffer, 0)
    before = bytes(buffer)
    if index >= len(DROP_REASONS):
        with pytest.raises(IndexError):
            counters.drop(index)
    with pytest.raises(IndexError):
        counters.latency(index, 1)
    assert buffer == before


@pytest.mark.parametrize("n", [-1, 2**64])
def test_addition_that_would_go_back_is_refused(n: int, buffer: bytearray) -> None:
    with pytest.raises(OverflowError):
        Counters(buffer, 0).add(TCP_REQUESTS, n)


# Datagrams that were not answered


def test_drop_counts_its_reason_and_the_datagram(buffer: bytearray) -> None:
    for worker in (32, 33):
        counters = Counters(buffer, worker)
        counters.drop(DROPPED_EMPTY)
        counters.drop(DROPPED_STOPPED, 3)
    reader = CounterReader(buffer)
    assert {reason: n for reason, n in reader.drops().items() if n} == {"empty": 2, "stopped": 6}
    assert reader.totals()["udp_packets_dropped"] == sum(reader.drops().values()) == 8
    assert reader.totals()["udp_packets_received"] == 0  # whoever receives counts that


def kernel_drops(buffer: bytearray) -> tuple[int, int, int]:
    reader = CounterReader(buffer)
    totals = reader.totals()
    return reader.drops()["kernel"], totals["udp_packets_dropped"], totals["udp_packets_received"]


def test_kernel_drops_count_what_is_new_as_received_and_dropped(buffer: bytearray) -> None:
    counters = Counters(buffer, 32)
    counters.open_socket(77, 1, 1)
    assert [counters.kernel_dropped(so_far) for so_far in (0, 5, 5, 12)] == [0, 5, 0, 7]
    assert kernel_drops(buffer) == (12, 12, 12)


def test_kernels_count_of_drops_wraps_at_32_bits(buffer: bytearray) -> None:
    counters = Counters(buffer, 32)
    counters.open_socket(77, 1, 1)
    assert [counters.kernel_dropped(so_far) for so_far in (2**32 - 2, 3, 2**31)] == [
        2**32 - 2,
        5,
        2**31 - 3,
    ]
    assert kernel_drops(buffer) == (2**32 + 2**31,) * 3
    with pytest.raises(OverflowError):
        counters.kernel_dropped(2**32)


def test_worker_restarted_on_the_same_socket_counts_no_drop_twice(buffer: bytearray) -> None:
    first = Counters(buffer, 32)
    first.open_socket(77, 1, 1)
    first.kernel_dropped(10)
    second = Counters(buffer, 32)
    second.open_socket(77, 1, 1)
    assert second.kernel_dropped(13) == 3
    assert kernel_drops(buffer) == (13, 13, 13)


def test_worker_restarted_on_another_socket_counts_its_drops_from_0(buffer: bytearray) -> None:
    first = Counters(buffer, 32)
    first.open_socket(77, 1, 1)
    first.kernel_dropped(10)
    second = Counters(buffer, 32)
    second.open_socket(78, 1, 1)
    assert second.kernel_dropped(4) == 4
    assert kernel_drops(buffer) == (14, 14, 14)


def test_sockets_tell_the_buffers_of_workers_that_have_one(buffer: bytearray) -> None:
    Counters(buffer, 1)
    Counters(buffer, 33).open_socket(2**63 + 1, 33_554_432, 425_984)
    assert CounterReader(buffer).sockets() == {33: (33_554_432, 425_984)}


# Latencies


def bucket_of(ns: int) -> int:
    """Say in which bucket one answer is counted."""
    memory = bytearray(counters_size())
    format_counters(memory)
    Counters(memory, 0).latency(UDP_LATENCY, ns)
    (bucket,) = (at for at, n in enumerate(CounterReader(memory).latencies()["udp"]) if n)
    return bucket


EDGES = [(8 + eighth) << (doubling + 4) for doubling in range(28) for eighth in range(8)]
"""Where each bucket begins, by arithmetic of its own."""


def test_bounds_of_every_bucket() -> None:
    assert (EDGES[0], len(EDGES)) == (LOWEST_LATENCY_NS, LATENCY_BUCKETS)
    assert [bucket_of(edge) for edge in EDGES] == list(range(LATENCY_BUCKETS))
    assert [bucket_of(edge - 1) for edge in EDGES[1:]] == list(range(LATENCY_BUCKETS - 1))


@pytest.mark.parametrize(
    ("ns", "bucket"),
    [(0, 0), (1, 0), (127, 0), (143, 0), (144, 1), (2**35 - 1, 223), (2**35, 223), (2**64 - 1, 223)],
)
def test_latency_below_the_first_bound_or_beyond_the_last(ns: int, bucket: int) -> None:
    assert bucket_of(ns) == bucket


def test_bounds_are_at_most_an_eighth_apart() -> None:
    assert all(upper * 8 <= lower * 9 for lower, upper in itertools.pairwise(EDGES))


def test_latencies_and_what_they_took_add_all_workers_up_by_kind(buffer: bytearray) -> None:
    for worker in (1, 32):
        counters = Counters(buffer, worker)
        counters.latency(HTTP_LATENCY, 1_000)
        counters.latency(UDP_LATENCY, 200, 64)
    reader = CounterReader(buffer)
    assert {name: sum(buckets) for name, buckets in reader.latencies().items()} == {"http": 2, "udp": 128}
    assert reader.latencies()["http"][bucket_of(1_000)] == 2
    assert reader.took_ns() == {"http": 2_000, "udp": 25_600}


@pytest.mark.parametrize("worker", [-1, MAX_WORKERS])
def test_worker_without_a_row_is_refused(worker: int, buffer: bytearray) -> None:
    with pytest.raises(ValueError, match="0 to 79"):
        Counters(buffer, worker)


def test_closed_counters_let_go_of_their_memory_and_count_nowhere() -> None:
    memory = mmap.mmap(-1, counters_size())
    format_counters(memory)
    counters, reader = Counters(memory, 0), CounterReader(memory)
    for opened in (counters, reader):
        opened.close()
        opened.close()
    before = bytes(memory)
    counters.add(TCP_REQUESTS)
    counters.drop(DROPPED_EMPTY)
    counters.latency(HTTP_LATENCY, 1)
    counters.open_socket(77, 1, 1)
    counters.kernel_dropped(9)
    counters.unrecorded(1, 2)
    assert bytes(memory) == before
    memory.close()
    for read in ("totals", "rows", "drops", "unrecorded", "latencies", "took_ns", "sockets", "workers"):
        with pytest.raises(ValueError, match="closed"):
            getattr(reader, read)()
    for name in ("epoch_ns", "epoch_mono_ns"):
        with pytest.raises(ValueError, match="closed"):
            getattr(reader, name)


def test_format_refuses_memory_of_another_size() -> None:
    with pytest.raises(LayoutError, match=f"is 8, expected {counters_size()}"):
        format_counters(bytearray(8))


REFUSED: dict[str, tuple[Callable[[bytearray], Any], str]] = {
    "empty": (lambda b: b"", r"size in bytes is 0, expected \d+"),
    "foreign": (lambda b: b"GARBAGE!" + b[8:], r"magic is 0x2145.*, expected 0x3154"),
    "older version": (lambda b: b[:8] + struct.pack("=I", 1) + b[12:], r"version is 1, expected 2"),
    "newer version": (lambda b: b[:8] + struct.pack("=I", 3) + b[12:], r"version is 3, expected 2"),
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


WORKERS = st.integers(0, MAX_WORKERS - 1)
CALLS = st.one_of(
    st.tuples(st.just("add"), WORKERS, st.integers(0, 23), st.integers(0, 2**40)),
    st.tuples(st.just("drop"), WORKERS, st.integers(0, 15), st.integers(0, 2**40)),
    st.tuples(st.just("latency"), WORKERS, st.integers(0, 1), st.integers(0, 2**40), st.integers(0, 2**30)),
    st.tuples(st.just("open_socket"), WORKERS, st.integers(1, 3), st.integers(0, 2**40), st.just(7)),
    st.tuples(st.just("kernel_dropped"), WORKERS, st.integers(0, 2**32 - 1)),
    st.tuples(st.just("unrecorded"), WORKERS, st.integers(0, 2**40), st.integers(0, 2**40)),
)
READINGS = ("totals", "rows", "workers", "drops", "unrecorded", "latencies", "took_ns", "sockets")


@given(st.lists(CALLS, max_size=50))
def test_any_calls_leave_counters_and_twin_with_the_same_bytes(calls: list[tuple[Any, ...]]) -> None:
    buffers = bytearray(counters_size()), bytearray(twin.SIZE)
    format_counters(buffers[0])
    reader = CounterReader(buffers[0])
    twin.format_counters(buffers[1], reader.epoch_ns, reader.epoch_mono_ns)
    for name, worker, *arguments in calls:
        result = getattr(Counters(buffers[0], worker), name)(*arguments)
        assert result == getattr(twin.Counters(buffers[1], worker), name)(*arguments)
    assert buffers[0] == buffers[1]
    expected = twin.CounterReader(buffers[1])
    assert (expected.epoch_ns, expected.epoch_mono_ns) == (reader.epoch_ns, reader.epoch_mono_ns)
    for reading in READINGS:
        assert getattr(reader, reading)() == getattr(expected, reading)()


def test_layout_is_of_version_2_with_rows_of_4096_bytes() -> None:
    assert (LAYOUT_VERSION, counters_size(), twin.SIZE) == (2, 64 + 80 * 4_096, 64 + 80 * 4_096)


WRITER = """
import mmap, sys
from telemetry._counters import TCP_REQUESTS, Counters
with open(sys.argv[1], "r+b") as file:
    counters = Counters(mmap.mmap(file.fileno(), 0), 0)
for _ in range(int(sys.argv[3])):
    counters.add(TCP_REQUESTS, int(sys.argv[2]))
"""


def test_reader_beside_a_writer_never_sees_a_count_torn_or_going_back(tmp_path: Path) -> None:
    """Each addition carries into the upper half: a number read in two halves would be no multiple."""
    step, additions = 2**32 - 1, 200_000
    file = tmp_path / "counters"
    file.write_bytes(bytes(counters_size()))
    with file.open("r+b") as opened:
        memory = mmap.mmap(opened.fileno(), 0)
    format_counters(memory)
    seen = [0]
    with subprocess.Popen([sys.executable, "-c", WRITER, file, str(step), str(additions)]) as writer:
        while writer.poll() is None:
            seen.append(CounterReader(memory).totals()["tcp_requests"])
    assert writer.returncode == 0
    seen.append(CounterReader(memory).totals()["tcp_requests"])
    assert seen == sorted(seen) and seen[-1] == step * additions
    assert all(count % step == 0 for count in seen)
    assert len(set(seen)) > 2  # some were read while it counted
