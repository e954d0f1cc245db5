"""Which month requests are counted in, by UTC, whatever the wall clock does. Sans-I/O.

The wall clock may be stepped, or be wrong from the start; CLOCK_MONOTONIC says how much time can have passed,
and the database's clock is a second opinion. Times are nanoseconds.
"""

from __future__ import annotations

from typing import NamedTuple

from billing.ratelimit import SECOND_NS, month_of, month_start_s, next_month

JUMP_NS = 3_600 * SECOND_NS
STEADY_NS = 300 * SECOND_NS
SAME_NS = 60 * SECOND_NS
"""Two offsets no further apart are one clock's: it is slewed meanwhile."""


class Month(NamedTuple):
    month: int
    """202611"""
    ends_mono_ns: int


class MonthGuard:
    """Follow the wall clock, except where it jumps by more than an hour.

    A jump is believed when the database's clock agrees, or, where nothing is known of that clock, when it has
    lasted for five minutes. *month* is the one in which counting went on before (0: none).

    A month that has begun does not go back for a clock that is set back by an hour or two. It does when the
    clock was altogether wrong; the gate then keeps each key that has counted in the later month there.
    """

    def __init__(self, month: int = 0) -> None:
        self._month = month
        self._anchor_ns: int | None = None  # wall - monotonic, as it was last believed: jumps are from there
        self._offset_ns: int | None = None  # the one that counts, never far from the anchor
        self._candidate_ns = 0  # what the wall clock claims, and since when
        self._since_ns: int | None = None

    def doubts(self, wall_ns: int, mono_ns: int) -> bool:
        """Say whether a second opinion is needed."""
        return self._anchor_ns is None or abs(wall_ns - mono_ns - self._anchor_ns) > JUMP_NS

    def look(self, wall_ns: int, mono_ns: int, second_ns: int | None = None) -> Month | None:
        """Return the month; None while nothing can be believed, and what was known before still holds.

        *second_ns* is the same instant by the database's clock, None where that is not known.
        """
        offset_ns = wall_ns - mono_ns
        steady = self._is_steady(offset_ns, mono_ns)
        if not self.doubts(wall_ns, mono_ns):
            self._offset_ns = offset_ns
            if steady:
                self._anchor_ns = offset_ns
        elif second_ns is not None:
            if abs(second_ns - wall_ns) <= JUMP_NS:
                self._anchor_ns = self._offset_ns = offset_ns
            elif self._anchor_ns is None:
                self._anchor_ns = self._offset_ns = second_ns - mono_ns
        elif steady or (self._anchor_ns is None and self._month in (0, month_at(wall_ns))):
            self._anchor_ns = self._offset_ns = offset_ns
        return None if self._offset_ns is None else self._month_by(self._offset_ns, mono_ns)

    def _is_steady(self, offset_ns: int, mono_ns: int) -> bool:
        if self._since_ns is None or abs(offset_ns - self._candidate_ns) > SAME_NS:
            self._candidate_ns, self._since_ns = offset_ns, mono_ns
        return mono_ns - self._since_ns >= STEADY_NS

    def _month_by(self, offset_ns: int, mono_ns: int) -> Month:
        now_ns = mono_ns + offset_ns
        month = month_at(now_ns)
        if not month <= self._month <= month_at(now_ns + 2 * JUMP_NS):
            self._month = month
        end_ns = month_start_s(next_month(self._month)) * SECOND_NS
        return Month(self._month, end_ns - offset_ns)


def month_at(wall_ns: int) -> int:
    return month_of(wall_ns // SECOND_NS)
