"""Times that pages look back on: whole hours and days, UTC, over the ends of months and years."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.periods import DAYS, HOURS, PERIODS, bounds_of


def utc(year: int, month: int, day: int, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


NOW = datetime(2026, 11, 23, 14, 37, 5, 123_456, UTC)
MOMENTS = st.integers(1_600_000_000, 2_200_000_000).map(lambda at: datetime.fromtimestamp(at, UTC))


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("24h", (2026, 11, 22, 15), (2026, 11, 23, 15)),
        ("7d", (2026, 11, 17), (2026, 11, 23, 15)),
        ("30d", (2026, 10, 25), (2026, 11, 24)),
        ("month", (2026, 11, 1), (2026, 11, 24)),
        ("last-month", (2026, 10, 1), (2026, 11, 1)),
        ("90d", (2026, 8, 26), (2026, 11, 24)),
    ],
)
def test_bounds_of_period(name: str, start: tuple[int, ...], end: tuple[int, ...]) -> None:
    assert bounds_of(PERIODS[name], NOW) == (utc(*start), utc(*end))


def test_last_month_of_january_is_in_the_year_before() -> None:
    bounds = bounds_of(PERIODS["last-month"], utc(2027, 1, 31, 23))
    assert bounds == (utc(2026, 12, 1), utc(2027, 1, 1))


@given(MOMENTS, st.sampled_from(sorted(PERIODS)))
def test_period_is_whole_steps_and_has_the_present_unless_it_is_past(now: datetime, name: str) -> None:
    period = PERIODS[name]
    start, end = bounds_of(period, now)
    assert (end - start) % period.step.length == timedelta()
    assert timedelta() < end - start <= timedelta(days=93)
    assert start <= now < end or period.ends_before_month


def test_bounds_are_utc_wherever_the_clock_is() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert bounds_of(PERIODS["30d"], elsewhere) == bounds_of(PERIODS["30d"], NOW)


def test_labels_of_hours_name_the_day_at_midnight() -> None:
    assert [HOURS.label(utc(2026, 11, 3, hour)) for hour in (0, 6)] == ["3 Nov", "06:00"]
    assert HOURS.name(utc(2026, 11, 3, 6)) == "3 Nov, 06:00 UTC"
    assert HOURS.number(utc(2026, 11, 3)) % 24 == 0


def test_labels_of_days() -> None:
    assert DAYS.label(utc(2026, 11, 3)) == "3 Nov"
    numbers = [DAYS.number(utc(2026, month, day)) for month, day in ((2, 28), (3, 1))]
    assert numbers[1] - numbers[0] == 1
