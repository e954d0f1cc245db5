from typing import Final

NAMES: Final[tuple[str, ...]]
DROP_REASONS: Final[tuple[str, ...]]
LATENCY_NAMES: Final[tuple[str, ...]]
LAYOUT_VERSION: Final[int]
MAX_WORKERS: Final[int]
LATENCY_BUCKETS: Final[int]
LOWEST_LATENCY_NS: Final[int]
"""The first bucket ends an eighth above it. Eight buckets for each doubling; the last one is open."""

DROPPED_KERNEL: Final[int]
DROPPED_BAD_SOURCE: Final[int]
DROPPED_EMPTY: Final[int]
DROPPED_OVERSIZED: Final[int]
DROPPED_NOT_UTF8: Final[int]
DROPPED_MALFORMED: Final[int]
DROPPED_TRUNCATED: Final[int]
DROPPED_TOO_DEEP: Final[int]
DROPPED_BAD_ESCAPE: Final[int]
DROPPED_DUPLICATE_FIELD: Final[int]
DROPPED_REPLY_SHAPED: Final[int]
DROPPED_TOO_SHORT: Final[int]
DROPPED_LIMITED: Final[int]
DROPPED_SHED: Final[int]
DROPPED_UNSENT: Final[int]
DROPPED_STOPPED: Final[int]

HTTP_LATENCY: Final[int]
UDP_LATENCY: Final[int]

TCP_REQUESTS: Final[int]
UDP_REQUESTS: Final[int]
LRS_REQUESTS: Final[int]
SYNCMAP_HITS: Final[int]
ELASTICACHE_HITS: Final[int]
CACHE_MISSES: Final[int]
UDP_PACKETS_RECEIVED: Final[int]
UDP_PACKETS_DROPPED: Final[int]
UDP_PACKETS_SENT: Final[int]
BG_WORK_SUBMITTED: Final[int]
BG_WORK_DROPPED: Final[int]
BG_WORK_COMPLETED: Final[int]
BATCH_ROWS_QUEUED: Final[int]
DB_OPEN_CONNS: Final[int]
DB_IN_USE_CONNS: Final[int]
DB_WAIT_COUNT: Final[int]
AUTH_FAILURES: Final[int]
RATE_LIMITED: Final[int]
QUOTA_EXCEEDED: Final[int]
REST_FALLBACKS: Final[int]
FEED_TICKS: Final[int]
FEED_RECONNECTS: Final[int]
STALE_REFUSALS: Final[int]
GOVERNOR_DELAYS: Final[int]

def counters_size() -> int:
    """Say how many bytes the counters of all workers take."""

def format_counters(buffer: object) -> None:
    """Make *buffer*, writable and exactly of that size, an empty set of counters."""

class Counters:
    """One worker's row, which no other process may write.

    A worker in the place of a dead one counts on from where that one stopped, so totals never go back. Raises
    LayoutError when the buffer holds something else. Holds the buffer until closed.
    """

    def __init__(self, buffer: object | None = None, worker: int = 0) -> None: ...
    def attach(self, buffer: object, worker: int) -> None:
        """Count there from now on. What was counted before, nowhere, is forgotten."""

    def add(self, index: int, n: int = 1) -> None:
        """Add *n* to the counter at *index*, one of this module's constants. After closing, count nowhere."""

    def drop(self, reason: int, n: int = 1) -> None:
        """Count *n* datagrams that were not answered, and why; `udp_packets_dropped` counts them too."""

    def latency(self, kind: int, ns: int, n: int = 1) -> None:
        """Count *n* answers that each took *ns*."""

    def unrecorded(self, refused: int, shed: int) -> None:
        """Count questions that left no usage record for want of room: not answered, or answered so."""

    def open_socket(self, cookie: int, rcvbuf_bytes: int, sndbuf_bytes: int) -> None:
        """Say which UDP socket this worker reads (its SO_COOKIE), and the buffers that the kernel gave it.

        What an earlier worker has counted of the same socket's kernel drops is not counted again.
        """

    def kernel_dropped(self, so_far: int) -> int:
        """Count what the kernel has dropped since this was last called, and return it.

        *so_far* is the socket's own count, which wraps at 2³². Those datagrams count as received, too.
        """

    def close(self) -> None:
        """Let go of the buffer. Closing twice is harmless."""

class CounterReader:
    """All workers' rows, read while they count. Holds the buffer until closed."""

    def __init__(self, buffer: object) -> None: ...
    def totals(self) -> dict[str, int]:
        """Add all rows up, by the names that the API publishes."""

    def drops(self) -> dict[str, int]:
        """Add up the datagrams that were not answered, by reason."""

    def unrecorded(self) -> dict[str, int]:
        """Add up the questions that left no usage record for want of room: `refused` and `shed`."""

    def latencies(self) -> dict[str, list[int]]:
        """Add up the answers of `http` and `udp` by bucket of what they took."""

    def took_ns(self) -> dict[str, int]:
        """Add up what the answers of `http` and `udp` took together."""

    def sockets(self) -> dict[int, tuple[int, int]]:
        """Give by worker the receive and send buffer in bytes of those that have a UDP socket."""

    @property
    def epoch_ns(self) -> int:
        """When these counters were made, by the wall clock: what was counted before is not in them."""

    @property
    def epoch_mono_ns(self) -> int:
        """The same instant on CLOCK_MONOTONIC."""

    def workers(self) -> list[int]:
        """Name the workers that have ever counted."""

    def rows(self) -> list[dict[str, int]]:
        """Give each worker's counts, up to the highest worker number that has ever counted."""

    def close(self) -> None:
        """Let go of the buffer. Closing twice is harmless."""
