from collections.abc import Sequence
from typing import Final, NamedTuple

UDP: Final[int]
HTTP: Final[int]
MAX_WINDOW: Final[int]
MAX_REQUEST: Final[int]
"""The longest request, in bytes."""
ID_PLACEHOLDER: Final[bytes]
"""A datagram with this member gets an id of its own each time, and only the reply with that id answers it.
Without, replies answer in the order in which they come."""

class Reading(NamedTuple):
    """What has been counted since the run began; sent = answered + errors + lost + in_flight."""

    sent: int
    answered: int
    """Good answers; their times alone are in the histogram."""
    errors: dict[str, int]
    """Answers that are refusals, by code or status; over HTTP also `closed`, `reset` and `unreadable`."""
    lost: int
    """Requests that nobody answered in time."""
    in_flight: int
    unsent: int
    """Paced: requests that were due and never found a free socket."""
    unexpected: int
    """Datagrams that answered nothing: late, double, or garbage."""
    unreachable: int
    """Times the system said that nobody listens there."""
    reconnects: int
    """Connections that had to be opened again."""
    timely: int
    """Answers of every kind that came while requests were still being sent."""
    sending_ns: int
    """For how long requests were sent."""
    longest_ns: int
    latencies: bytes

class Load:
    """Sockets to one address, and the loop that keeps them busy. They stay open from run to run.

    One run at a time; `reading` and `stop` may be called from another thread meanwhile.
    """

    def __init__(
        self,
        protocol: int,
        address: tuple[str, int],
        requests: Sequence[bytes],
        *,
        most: int,
        window: int = 1,
        timeout_ms: int = 2_000,
    ) -> None:
        """Make room for *most* sockets to a numeric *address*; *requests* are sent in turn."""

    @property
    def sockets(self) -> int: ...
    def grow(self, sockets: int, timeout_ms: int = 30_000) -> None:
        """Open sockets until there are so many; over HTTP wait until they are connected. Raises OSError."""

    def run(self, seconds: float, rate: float = 0.0) -> None:
        """Send for *seconds*, then wait for what is in flight; counts start from 0. Raises OSError.

        With a *rate* requests are due at even distances, whatever comes back, and an answer's time counts
        from when its request was due; above 20,000 a second, groups are due every 50 µs. What falls behind is
        caught up at twice the rate at most. Without one every socket has its window full all the time.
        """

    def stop(self) -> None:
        """Send no more in the run under way; what is in flight is still waited for."""

    def reading(self) -> Reading: ...
    def close(self) -> None:
        """Close all sockets. Doing it twice is harmless; during a run it raises RuntimeError."""

def latency_ns(latencies: bytes, share: float) -> int:
    """Return the time that *share* of the answers did not exceed, within 1 %; 0 where there are none."""
