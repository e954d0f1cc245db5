"""What is written of a segment, and what is missing."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from telemetry.intervals import Interval, merge, missing

PLACES = st.sets(st.integers(0, 30))


def intervals_of(places: set[int]) -> list[Interval]:
    """One for each place."""
    return [Interval(place, place + 1, place % 2, 1 - place % 2) for place in places]


@given(PLACES)
def test_merged_intervals_have_the_same_places_and_neither_overlap_nor_touch(places: set[int]) -> None:
    merged = merge(intervals_of(places))
    assert {place for one in merged for place in range(one.start, one.end)} == places
    assert all(one.end < other.start for one, other in pairwise(merged))
    assert all(one.rows + one.damaged == one.end - one.start for one in merged)
    assert sum(one.rows for one in merged) == sum(place % 2 for place in places)
    assert merge(merged) == merged


@given(PLACES, st.integers(0, 31), st.integers(0, 31))
def test_missing_is_what_was_asked_for_and_is_not_written(written: set[int], start: int, end: int) -> None:
    gaps = missing(merge(intervals_of(written)), start, end)
    assert [place for gap in gaps for place in range(*gap)] == sorted(set(range(start, end)) - written)
    assert all(first < last for first, last in gaps)
    assert all(gap[1] < later[0] for gap, later in pairwise(gaps))
