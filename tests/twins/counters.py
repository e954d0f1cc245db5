"""The counters in plain Python: their specification. Same interface, same bytes."""

from __future__ import annotations

import struct

from telemetry.exceptions import LayoutError

MAGIC = int.from_bytes(b"TRCOUNT1", "little")
LAYOUT_VERSION, MAX_WORKERS = 2, 80
BUCKETS, LOWEST_NS = 224, 128
HEADER = struct.Struct("=QIIQQQ24x")  # magic version workers size epoch epoch-of-the-monotonic-clock
ROW_WORDS = 512
# Where things are, in words of a row.
CLAIMS, SOCKET, KERNEL_DROPS, RCVBUF, SNDBUF, TOOK, DROPS, LATENCY = 24, 25, 26, 27, 28, 29, 32, 64
REFUSED, SHED = 56, 57
SIZE = HEADER.size + MAX_WORKERS * 8 * ROW_WORDS

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
REASONS = [
    "kernel",
    "bad_source",
    "empty",
    "oversized",
    "not_utf8",
    "malformed",
    "truncated",
    "too_deep",
    "bad_escape",
    "duplicate_field",
    "reply_shaped",
    "too_short",
    "limited",
    "shed",
    "unsent",
    "stopped",
]
KINDS = ["http", "udp"]
RECEIVED, DROPPED = NAMES.index("udp_packets_received"), NAMES.index("udp_packets_dropped")


def format_counters(buffer: bytearray, wall_ns: int = 0, mono_ns: int = 0) -> None:
    if len(buffer) != SIZE:
        raise LayoutError("size", SIZE, len(buffer))
    header = HEADER.pack(MAGIC, LAYOUT_VERSION, MAX_WORKERS, SIZE, wall_ns, mono_ns)
    buffer[:] = header + bytes(SIZE - HEADER.size)


def latency_bucket(ns: int) -> int:
    """Eight buckets for each doubling, told by the three bits below the highest one."""
    if ns < LOWEST_NS:
        return 0
    doublings = ns.bit_length() - LOWEST_NS.bit_length()
    eighths = (ns * 8 >> (ns.bit_length() - 1)) - 8
    return min(8 * doublings + eighths, BUCKETS - 1)


class Counters:
    def __init__(self, buffer: bytearray, worker: int) -> None:
        if not 0 <= worker < MAX_WORKERS:
            raise ValueError(worker)
        self._words = memoryview(buffer)[HEADER.size :].cast("Q")
        self._row = worker * ROW_WORDS
        self._raise(CLAIMS, 1)

    def add(self, index: int, n: int = 1) -> None:
        if not 0 <= index < len(NAMES):
            raise IndexError(index)
        self._raise(index, n)

    def drop(self, reason: int, n: int = 1) -> None:
        if not 0 <= reason < len(REASONS):
            raise IndexError(reason)
        self._raise(DROPS + reason, n)
        self._raise(DROPPED, n)

    def latency(self, kind: int, ns: int, n: int = 1) -> None:
        if not 0 <= kind < len(KINDS):
            raise IndexError(kind)
        self._raise(LATENCY + kind * BUCKETS + latency_bucket(ns), n)
        self._raise(TOOK + kind, ns * n)

    def unrecorded(self, refused: int, shed: int) -> None:
        self._raise(REFUSED, refused)
        self._raise(SHED, shed)

    def open_socket(self, cookie: int, rcvbuf_bytes: int, sndbuf_bytes: int) -> None:
        if self._words[self._row + SOCKET] != cookie:
            self._words[self._row + KERNEL_DROPS] = 0
        self._words[self._row + SOCKET] = cookie
        self._words[self._row + RCVBUF] = rcvbuf_bytes
        self._words[self._row + SNDBUF] = sndbuf_bytes

    def kernel_dropped(self, so_far: int) -> int:
        more = (so_far - self._words[self._row + KERNEL_DROPS]) % 2**32
        self._words[self._row + KERNEL_DROPS] = so_far
        self._raise(RECEIVED, more)
        self.drop(REASONS.index("kernel"), more)
        return more

    def _raise(self, word: int, n: int) -> None:
        self._words[self._row + word] = (self._words[self._row + word] + n) % 2**64


class CounterReader:
    def __init__(self, buffer: bytearray) -> None:
        _, _, _, _, self.epoch_ns, self.epoch_mono_ns = HEADER.unpack_from(buffer)
        words = memoryview(buffer)[HEADER.size :].cast("Q")
        self._rows = [words[at : at + ROW_WORDS] for at in range(0, len(words), ROW_WORDS)]

    def workers(self) -> list[int]:
        return [number for number, row in enumerate(self._rows) if row[CLAIMS]]

    def rows(self) -> list[dict[str, int]]:
        used = max(self.workers(), default=-1) + 1
        return [dict(zip(NAMES, row, strict=False)) for row in self._rows[:used]]

    def totals(self) -> dict[str, int]:
        return {name: self._sum(at) for at, name in enumerate(NAMES)}

    def drops(self) -> dict[str, int]:
        return {name: self._sum(DROPS + at) for at, name in enumerate(REASONS)}

    def unrecorded(self) -> dict[str, int]:
        return {"refused": self._sum(REFUSED), "shed": self._sum(SHED)}

    def latencies(self) -> dict[str, list[int]]:
        return {
            name: [self._sum(LATENCY + kind * BUCKETS + bucket) for bucket in range(BUCKETS)]
            for kind, name in enumerate(KINDS)
        }

    def took_ns(self) -> dict[str, int]:
        return {name: self._sum(TOOK + kind) for kind, name in enumerate(KINDS)}

    def sockets(self) -> dict[int, tuple[int, int]]:
        return {number: (row[RCVBUF], row[SNDBUF]) for number, row in enumerate(self._rows) if row[SOCKET]}

    def _sum(self, word: int) -> int:
        return sum(row[word] for row in self._rows) % 2**64
