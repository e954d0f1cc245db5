"""How long to wait before dialling again. Sans-I/O; randomness comes in.

Full jitter (delay uniform in [0, cap]) keeps feeds that were dropped together from returning together:
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

from collections import deque
from collections.abc import Callable

FIRST_S = 1.0
CAP_S = 60.0
# Ticks for ten seconds show that the exchange has taken us back: a handshake or a snapshot does not. A minute
# would count short outages that follow one another as one long one, and recovery within 5 s would be lost.
# What a flapping exchange counts against us is bounded by Pacing, whatever the delay is.
SETTLED_S = 10.0


class Backoff:
    """The delay before each attempt.

    It starts over only after ticks have flowed for SETTLED_S: a handshake proves nothing.
    """

    def __init__(
        self, uniform: Callable[[float, float], float], *, first_s: float = FIRST_S, cap_s: float = CAP_S
    ) -> None:
        self._uniform = uniform
        self._first_s = first_s
        self._cap_s = cap_s
        self.failures = 0

    def next_delay_s(self) -> float:
        """Return how long to wait now, and count a failure."""
        ceiling = min(self._first_s * 2 ** min(self.failures, 32), self._cap_s)
        self.failures += 1
        return self._uniform(0.0, ceiling)

    def ended(self, ticks_flowed_s: float) -> None:
        """Take note that a connection ended after delivering ticks for *ticks_flowed_s* seconds."""
        if ticks_flowed_s >= SETTLED_S:
            self.failures = 0


class Pacing:
    """The exchange's own rule for connecting: a smallest gap, and so many attempts in a rolling window.

    One per exchange, shared by its connections. Times are monotonic nanoseconds.
    """

    def __init__(self, *, min_gap_s: float, window_s: float = 0, window_attempts: int = 0) -> None:
        self._gap_ns = int(min_gap_s * 1e9)
        self._window_ns = int(window_s * 1e9)
        self._attempts: deque[int] = deque(maxlen=window_attempts or 1)
        self._limited = window_attempts > 0
        self._next_ns = 0

    def reserve(self, mono_ns: int) -> int:
        """Book the next attempt and return its time, not before *mono_ns*."""
        at = max(mono_ns, self._next_ns)
        if self._limited and len(self._attempts) == self._attempts.maxlen:
            at = max(at, self._attempts[0] + self._window_ns)
        self._attempts.append(at)
        self._next_ns = at + self._gap_ns
        return at
