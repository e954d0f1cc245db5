"""Rates, months, and what a client is told of them: what the gate computes in C, as its specification.

The rate limit is GCRA, a token bucket kept as one number: the theoretical arrival time (TAT) at which the
bucket would be full again. Sans-I/O.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

SECOND_NS = 1_000_000_000


class Rate(NamedTuple):
    """So many requests at once, and one more every *emission_ns*; an emission of 0 is no limit."""

    emission_ns: int
    burst: int

    @property
    def tolerance_ns(self) -> int:
        return (self.burst - 1) * self.emission_ns


class Turn(NamedTuple):
    """What one request does to a bucket."""

    admitted: bool
    tat_ns: int
    """To be stored; unchanged by a refusal."""
    remaining: int
    """Requests that would be admitted at the same instant after this one."""
    reset_ns: int
    """Until one more would be; 0 when the bucket is full."""


def emission_ns(per_second: int) -> int:
    """Return the time between two requests of an even stream at that rate."""
    return SECOND_NS // per_second


def take(rate: Rate, tat_ns: int, now_ns: int) -> Turn:
    """Ask for one request at *now_ns*. A refused one would be admitted *reset_ns* later, and not before."""
    start = max(tat_ns, now_ns)
    if start - now_ns > rate.tolerance_ns:
        return Turn(False, tat_ns, 0, start - now_ns - rate.tolerance_ns)
    return Turn(True, start + rate.emission_ns, *left(rate, start + rate.emission_ns, now_ns))


def left(rate: Rate, tat_ns: int, now_ns: int) -> tuple[int, int]:
    """Return how many requests would be admitted now, and the time until one more (0: the bucket is full)."""
    ahead = max(0, tat_ns - now_ns)
    remaining = (rate.tolerance_ns - ahead) // rate.emission_ns + 1 if ahead <= rate.tolerance_ns else 0
    return remaining, ahead + remaining * rate.emission_ns - rate.tolerance_ns if ahead else 0


def retry_after_s(wait_ns: int) -> int:
    """Return whole seconds for `Retry-After` (RFC 9110, 10.2.3): a retry then is admitted, if it is alone."""
    return max(1, -(-wait_ns // SECOND_NS))


# -- months, by UTC: 202611


def month_of(wall_s: float) -> int:
    """Return the month of a moment since the epoch."""
    moment = datetime.fromtimestamp(wall_s, UTC)
    return moment.year * 100 + moment.month


def next_month(month: int) -> int:
    """Return the month after. Neighbours always differ in their last bit, December and January too."""
    return month + 89 if month % 100 == 12 else month + 1


def previous_month(month: int) -> int:
    """Return the month before *month*: 202512 for 202601."""
    return month - 1 if month % 100 > 1 else month - 89


def month_start_s(month: int) -> int:
    """Return the second since the epoch at which a month begins."""
    return math.floor(datetime(month // 100, month % 100, 1, tzinfo=UTC).timestamp())


def month_length_s(month: int) -> int:
    return month_start_s(next_month(month)) - month_start_s(month)


# -- the header fields of draft-ietf-httpapi-ratelimit-headers-11


class Limits(Protocol):
    """What the fields need of a verdict."""

    @property
    def emission_ns(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def remaining(self) -> int: ...
    @property
    def reset_ns(self) -> int: ...
    @property
    def cap(self) -> int: ...
    @property
    def cap_remaining(self) -> int: ...
    @property
    def cap_reset_ns(self) -> int: ...
    @property
    def month(self) -> int: ...


def policy_field(verdict: Limits) -> str:
    """Write `RateLimit-Policy`: `"rate";q=20;w=2, "month";q=50000;w=2592000`. Empty: it must not be sent.

    Section 3 of the draft: "a non-empty List of Quota Policy Items", each a String with "q", the quota, and
    "w", the window in seconds, a positive Integer. A bucket is told as its burst over the time in which it
    refills: who spreads so many over it is never refused. The month's window is the present month's length.
    """
    items = []
    if verdict.emission_ns:
        window_s = retry_after_s(verdict.limit * verdict.emission_ns)
        items.append(f'"rate";q={verdict.limit};w={window_s}')
    if verdict.cap:
        items.append(f'"month";q={verdict.cap};w={month_length_s(verdict.month)}')
    return ", ".join(items)


def state_field(verdict: Limits) -> str:
    """Write `RateLimit`: `"rate";r=19;t=1, "month";r=49999;t=86400`. Empty: it must not be sent.

    Section 4 of the draft: "r" is the quota that is available, "t" the seconds within which no more than that
    may be used. Here *t* is the time until there is more, rounded up, so that `Retry-After` never names an
    earlier moment (section 6); it is left out where the bucket is full.
    """
    items = []
    if verdict.emission_ns:
        items.append(_item("rate", verdict.remaining, verdict.reset_ns))
    if verdict.cap:
        items.append(_item("month", verdict.cap_remaining, verdict.cap_reset_ns))
    return ", ".join(items)


def _item(policy: str, remaining: int, reset_ns: int) -> str:
    return f'"{policy}";r={remaining}' + (f";t={retry_after_s(reset_ns)}" if reset_ns else "")


def report_fields(*, used: int, cap: int, month: int, left_s: int) -> tuple[str, str]:
    """Write both fields for reports, of which an account may have *cap* in a month that ends in *left_s*."""
    left = max(0, cap - used)
    return f'"reports";q={cap};w={month_length_s(month)}', f'"reports";r={left};t={max(1, left_s)}'
