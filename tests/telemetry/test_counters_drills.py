"""Workers that are killed while they count: nothing goes back, and nothing is lost but what was under way."""

from __future__ import annotations

import mmap
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry._counters import CounterReader, counters_size, format_counters

WORKERS = 2
WORKER = """
import mmap, signal, sys
from telemetry._counters import DROPPED_EMPTY, TCP_REQUESTS, UDP_LATENCY, Counters
worker, stop = int(sys.argv[3]), []
signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
with open(sys.argv[1], "r+b") as file:
    counters = Counters(mmap.mmap(file.fileno(), 0), worker)
with open(sys.argv[2], "r+b") as file:
    told = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
while not stop:
    counters.add(TCP_REQUESTS)
    counters.drop(DROPPED_EMPTY)
    counters.latency(UDP_LATENCY, 1_000)
    told[worker] += 1
"""


def mapped(path: Path, size: int) -> mmap.mmap:
    path.write_bytes(bytes(size))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


def until(condition: Callable[[], bool], workers: list[subprocess.Popen[bytes]]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s and all(worker.poll() is None for worker in workers)


@pytest.mark.parametrize("restarts", [20, pytest.param(1_000, marks=pytest.mark.full)])
def test_counts_of_killed_and_stopped_workers_stay_and_their_successors_count_on(
    tmp_path: Path, restarts: int
) -> None:
    memory = mapped(tmp_path / "counters", counters_size())
    told = memoryview(mapped(tmp_path / "told", 8 * 8)).cast("Q")
    format_counters(memory)
    reader = CounterReader(memory)

    def start(number: int) -> subprocess.Popen[bytes]:
        paths = tmp_path / "counters", tmp_path / "told"
        return subprocess.Popen([sys.executable, "-c", WORKER, *paths, str(number)])

    workers = [start(number) for number in range(WORKERS)]
    before, killed = 0, 0
    try:
        for restart in range(restarts):
            number = restart % WORKERS
            begun = told[number]
            until(lambda: told[number] > begun, workers)  # noqa: B023  # asked within this round
            how = signal.SIGKILL if restart // WORKERS % 2 else signal.SIGTERM
            killed += how is signal.SIGKILL
            workers[number].send_signal(how)
            workers[number].wait()
            now = reader.totals()["tcp_requests"]
            assert now >= before
            before = now
            workers[number] = start(number)
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait()
    truth = sum(told)
    counted = (
        reader.totals()["tcp_requests"],
        reader.totals()["udp_packets_dropped"],
        reader.drops()["empty"],
        sum(reader.latencies()["udp"]),
    )
    assert killed == restarts // 2
    assert all(truth <= count <= truth + killed for count in counted)
    assert reader.workers() == list(range(WORKERS))  # rows, not processes: nobody dead is left behind
