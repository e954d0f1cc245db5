"""Which places of a segment have been written: intervals that never overlap. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """The places from *start* up to *end*, counted from 0, and what was found in them."""

    start: int
    end: int
    rows: int
    damaged: int


def missing(written: Sequence[Interval], start: int, end: int) -> list[tuple[int, int]]:
    """Give what is not *written* of the places from *start* up to *end*; *written* is in order."""
    gaps = []
    for interval in written:
        if start < min(interval.start, end):
            gaps.append((start, min(interval.start, end)))
        start = max(start, interval.end)
    if start < end:
        gaps.append((start, end))
    return gaps


def merge(written: Iterable[Interval]) -> list[Interval]:
    """Put intervals in order, and make one of those that touch."""
    merged: list[Interval] = []
    for interval in sorted(written):
        if merged and merged[-1].end == interval.start:
            last = merged.pop()
            rows, damaged = last.rows + interval.rows, last.damaged + interval.damaged
            interval = Interval(last.start, interval.end, rows, damaged)
        merged.append(interval)
    return merged
