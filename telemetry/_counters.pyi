from typing import Final

NAMES: Final[tuple[str, ...]]
LAYOUT_VERSION: Final[int]
MAX_WORKERS: Final[int]

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

    def __init__(self, buffer: object, worker: int) -> None: ...
    def add(self, index: int, n: int = 1) -> None:
        """Add *n* to the counter at *index*, one of this module's constants. After closing, count nowhere."""

    def close(self) -> None:
        """Let go of the buffer. Closing twice is harmless."""

class CounterReader:
    """All workers' rows, read while they count. Holds the buffer until closed."""

    def __init__(self, buffer: object) -> None: ...
    def totals(self) -> dict[str, int]:
        """Add all rows up, by the names that the API publishes."""

    def rows(self) -> list[dict[str, int]]:
        """Give each worker's counts, up to the highest worker number that has ever counted."""

    def close(self) -> None:
        """Let go of the buffer. Closing twice is harmless."""
