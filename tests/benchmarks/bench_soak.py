"""A long run of one UDP worker below its maximum: nothing lost, no memory taken, the tail as at the start.

    python -m tests.benchmarks.bench_soak [--minutes 10] [--share 0.7]

Finds the maximum with 8 requests in flight on each of 64 sockets, then sends at a share of it, at even
distances; an answer's time counts from when its request was due. The worker has one core and the client the
other. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from array import array
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_http import fresh_price
from tests.benchmarks.node import bench_node
from tests.benchmarks.yardsticks import bench
from udp_engine._load import UDP, Reading, latency_ns
from udp_engine.pool import Making, Pool
from udp_engine.stress import ID
from udp_engine.wire import build_request

SOCKETS, WINDOW = 64, 8
SEARCH_S = 5.0
SETTLE_S = 5.0  # at the rate that is then measured: connections, caches and clocks are warm
SERVER_CPU, CLIENT_CPU = 0, 1
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Watch:
    """Sees a run as it goes on: the worker's memory and files, the times of its first and last minute."""

    def __init__(self, pids: list[int], seconds: float) -> None:
        self._pids = pids
        self._part_s = min(60.0, seconds / 3)
        self._seconds = seconds
        self._began_s = self._seen_s = time.monotonic()
        self.memory: list[tuple[float, int]] = []  # second, bytes
        self.files: list[int] = []
        self.first: Reading | None = None
        self.before_last: Reading | None = None

    def look(self, reading: Reading) -> bool:
        now_s = time.monotonic()
        if now_s - self._seen_s >= 1:
            self._seen_s = now_s
            self.memory.append((now_s - self._began_s, sum(map(resident_bytes, self._pids))))
            self.files.append(sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self._pids))
        if self.first is None and reading.sending_ns >= self._part_s * 1e9:
            self.first = reading
        if self.before_last is None and reading.sending_ns >= (self._seconds - self._part_s) * 1e9:
            self.before_last = reading
        return True


def resident_bytes(pid: int) -> int:
    _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    return (resident - shared) * PAGE_BYTES


def measure(*, minutes: float, share: float) -> dict[str, Any]:
    """Return the figures of one run."""
    with bench_node() as node, fresh_price(node):
        key = node.make_key()
        node.start("runkeyring")
        worker = node.start("runudp", "--workers", "1")
        node.wait_for_udp(key)
        requests = [build_request("BTC", key, id=ID)]
        making = Making(UDP, ("127.0.0.1", node.udp_port), requests, SOCKETS, WINDOW, 2_000)
        with contextlib.closing(Pool(making)) as pool:
            pids = bench.process_tree(worker)
            bench.pin(pids, SERVER_CPU)
            bench.pin(bench.process_tree(pool.pids[0]), CLIENT_CPU)
            pool.grow(SOCKETS)
            best = pool.run(SEARCH_S, 0.0, lambda reading: True)
            most = best.timely * 1e9 / best.sending_ns
            rate = most * share
            pool.run(min(SETTLE_S, minutes * 60), rate, lambda reading: True)
            watch = Watch(pids, minutes * 60)
            before_s = bench.cpu_seconds(pids)
            reading = pool.run(minutes * 60, rate, watch.look)
            spent_s = bench.cpu_seconds(pids) - before_s
    return {
        "most_per_s": round(most),
        "rate": round(rate),
        **figures(reading, watch),
        "cpu_s": round(spent_s, 2),
    }


def figures(reading: Reading, watch: Watch) -> dict[str, Any]:
    """Turn what was counted and seen into what is told."""
    assert watch.first and watch.before_last
    last = difference(reading.latencies, watch.before_last.latencies)
    first_ns, last_ns = latency_ns(watch.first.latencies, 0.999), latency_ns(last, 0.999)
    return {
        "seconds": round(reading.sending_ns / 1e9, 1),
        "sent": reading.sent,
        "answered": reading.answered,
        "lost": reading.lost,
        "unsent": reading.unsent,
        "errors": reading.errors,
        "unexpected": reading.unexpected,
        "p50_us": latency_ns(reading.latencies, 0.5) / 1_000,
        "p99_us": latency_ns(reading.latencies, 0.99) / 1_000,
        "p999_first_us": first_ns / 1_000,
        "p999_last_us": last_ns / 1_000,
        "p999_ratio": round(last_ns / first_ns, 3) if first_ns else None,
        "rss_first_bytes": watch.memory[0][1] if watch.memory else None,
        "rss_last_bytes": watch.memory[-1][1] if watch.memory else None,
        "rss_most_bytes": max((size for _, size in watch.memory), default=None),
        "rss_mib_per_hour": slope(watch.memory),
        "files_first": watch.files[0] if watch.files else None,
        "files_last": watch.files[-1] if watch.files else None,
        "rss_bytes": [size for _, size in watch.memory],
    }


def difference(later: bytes, earlier: bytes) -> bytes:
    """Return the histogram of what came between two."""
    return array(
        "Q", (after - before for after, before in zip(array("Q", later), array("Q", earlier), strict=True))
    ).tobytes()


def slope(memory: list[tuple[float, int]]) -> float | None:
    """Return how fast memory grows, in MiB an hour, by least squares."""
    if len(memory) < 2:
        return None
    seconds, sizes = zip(*memory, strict=True)
    return round(statistics.linear_regression(seconds, sizes).slope * 3_600 / (1 << 20), 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--share", type=float, default=0.7, help="of the maximum (default: 0.7)")
    found = measure(**vars(parser.parse_args()))
    json.dump(found, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
