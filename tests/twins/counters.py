"""The counters in plain Python: their specification. Same interface, same bytes."""

from __future__ import annotations

import struct

from telemetry.exceptions import LayoutError

MAGIC = int.from_bytes(b"TRCOUNT1", "little")
LAYOUT_VERSION, MAX_WORKERS, COUNTERS = 2, 64, 24
REASONS, LATENCIES, BUCKETS, LOWEST_NS = 16, 2, 224, 128
HEADER = struct.Struct("=QIIQQ32x")  # magic version workers size epoch
ROW = struct.Struct("=24Q Q4Q24x 16Q64x 64x 448Q")  # values claims socket… drops latencies
SOCKET_AT, DROPS_AT, LATENCY_AT = COUNTERS + 1, 32, 64  # in words of a row
SIZE = HEADER.size + MAX_WORKERS * ROW.size

NAMES = [
    "tcp_requests",
    "udp_requests",
    "lrs_requests",
    "syncmap_hits",
    "elasticache_hits",
    "cache_misses",
    "udp_packets_received",
    "udp_packets_dropped",
    "udp_packets_sent",
    "bg_work_submitted",
    "bg_work_dropped",
    "bg_work_completed",
    "batch_rows_queued",
    "db_open_conns",
    "db_in_use_conns",
    "db_wait_count",
    "auth_failures",
    "rate_limited",
    "quota_exceeded",
    "rest_fallbacks",
    "feed_ticks",
    "feed_reconnects",
    "stale_refusals",
    "governor_delays",
]


def format_counters(buffer: bytearray) -> None:
    if len(buffer) != SIZE:
        raise LayoutError("size", SIZE, len(buffer))
    buffer[:] = HEADER.pack(MAGIC, LAYOUT_VERSION, MAX_WORKERS, SIZE) + bytes(SIZE - HEADER.size)


class Counters:
    def __init__(self, buffer: bytearray, worker: int) -> None:
        if not 0 <= worker < MAX_WORKERS:
            raise ValueError(worker)
        self._memory, self._row = buffer, HEADER.size + worker * ROW.size
        self._raise(COUNTERS, 1)

    def add(self, index: int, n: int = 1) -> None:
        if not 0 <= index < COUNTERS:
            raise IndexError(index)
        self._raise(index, n)

    def _raise(self, index: int, n: int) -> None:
        at = self._row + 8 * index
        (value,) = struct.unpack_from("=Q", self._memory, at)
        struct.pack_into("=Q", self._memory, at, value + n)


class CounterReader:
    def __init__(self, buffer: bytearray) -> None:
        self._memory = buffer

    def rows(self) -> list[dict[str, int]]:
        rows = [
            ROW.unpack_from(self._memory, HEADER.size + worker * ROW.size) for worker in range(MAX_WORKERS)
        ]
        while rows and rows[-1][COUNTERS] == 0:
            rows.pop()
        return [dict(zip(NAMES, row[:COUNTERS], strict=True)) for row in rows]

    def totals(self) -> dict[str, int]:
        return {name: sum(row[name] for row in self.rows()) for name in NAMES}
